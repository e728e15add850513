"""A lower bound on the ε of (ε, δ)-differential privacy from one attack's scores.

(ε, δ)-DP bounds every membership test (Kairouz, Oh & Viswanath 2015; Jagielski, Ullman & Oprea,
NeurIPS 2020): TPR ≤ e^ε FPR + δ and 1 − FPR ≤ e^ε (1 − TPR) + δ. The bound is honest: threshold
and side are chosen on one half of the scores, and that single candidate is evaluated on the other
half with one-sided Clopper–Pearson limits, α/2 for the TPR and α/2 for the FPR. Both inequalities
rest on the same two limits, so the larger of the two bounds costs nothing more: P(bound > ε) ≤ α.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from unaudit.evidence import FloatArray, IntArray
from unaudit.stats.proportion import lower_limit, upper_limit
from unaudit.stats.roc import roc_counts
from unaudit.stats.samples import as_sample, require_rate, split_in_half

Side = Literal["high", "low"]
Inequality = Literal["tpr/fpr", "tnr/fnr"]
INEQUALITIES: tuple[Inequality, Inequality] = ("tpr/fpr", "tnr/fnr")


@dataclass(frozen=True)
class EpsilonBound:
    """A lower bound on ε, and the test that gave it."""

    epsilon: float
    """≥ 0; 0 means that nothing was shown."""
    confidence: float
    """1 − α."""
    delta: float
    side: Side
    """Whether high or low scores were called members."""
    threshold: float
    """Scores at it, or beyond it on ``side``, were called members."""
    inequality: Inequality
    """Which of the two inequalities gave the bound."""
    tpr: float
    fpr: float
    """Both on the half that did not choose the threshold."""
    tpr_low: float
    fpr_high: float
    """One-sided limits, each at α/2."""


def epsilon_lower_bound(
    positive: npt.ArrayLike,
    negative: npt.ArrayLike,
    alpha: float,
    rng: np.random.Generator,
    delta: float = 0.0,
) -> EpsilonBound:
    """Lower bound on ε at confidence 1 − ``alpha``; the positives are the alleged members.

    A single positive or negative cannot both choose and judge a threshold: the bound is 0.

    Raises:
        ValueError: ``alpha`` or ``delta`` out of range, or scores that are empty or NaN.
    """
    require_rate(alpha, "alpha")
    if not 0.0 <= delta < 1.0:
        raise ValueError(f"delta must lie in [0, 1), got {delta}")
    positives = split_in_half(as_sample(positive, "positive"), rng)
    negatives = split_in_half(as_sample(negative, "negative"), rng)
    sizes = len(positives[1]), len(negatives[1])
    sign, threshold = _choose(positives[0], negatives[0], alpha, delta)
    hits = int((sign * positives[1] >= threshold).sum())
    false_alarms = int((sign * negatives[1] >= threshold).sum())
    bounds = _bounds(np.array([hits]), np.array([false_alarms]), sizes, alpha, delta)[:, 0]
    best = int(np.argmax(bounds))
    return EpsilonBound(
        epsilon=max(0.0, float(bounds[best])),
        confidence=1.0 - alpha,
        delta=delta,
        side="high" if sign > 0 else "low",
        threshold=sign * threshold,
        inequality=INEQUALITIES[best],
        tpr=hits / sizes[0],
        fpr=false_alarms / sizes[1],
        tpr_low=float(lower_limit(hits, sizes[0], alpha / 2)),
        fpr_high=float(upper_limit(false_alarms, sizes[1], alpha / 2)),
    )


def _choose(
    positive: FloatArray, negative: FloatArray, alpha: float, delta: float
) -> tuple[float, float]:
    """(sign, threshold on sign × score) with the largest bound on these scores."""
    best = (-np.inf, 1.0, np.inf)
    if min(len(positive), len(negative)) == 0:
        return best[1:]
    for sign in (1.0, -1.0):
        thresholds, hits, false_alarms = roc_counts(sign * positive, sign * negative)
        sizes = len(positive), len(negative)
        bound = _bounds(hits, false_alarms, sizes, alpha, delta).max(axis=0)
        at = int(np.argmax(bound))
        best = max(best, (float(bound[at]), sign, float(thresholds[at])))
    return best[1:]


def _bounds(
    hits: IntArray, false_alarms: IntArray, sizes: tuple[int, int], alpha: float, delta: float
) -> FloatArray:
    """(2, k): the bound from either inequality at each threshold; −∞ where δ explains it all."""
    tpr_low = lower_limit(hits, sizes[0], alpha / 2)
    fpr_high = upper_limit(false_alarms, sizes[1], alpha / 2)
    gains = np.stack([tpr_low - delta, 1.0 - fpr_high - delta])
    losses = np.stack([fpr_high, 1.0 - tpr_low])
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(gains, 0.0) / losses))
