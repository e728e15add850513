"""The ROC curve as an attacker would use it: operating points, band, advantage.

Operating points are conservative: the empirical FPR never exceeds what was asked for, and nothing
is interpolated: below 1/n negatives there is no operating point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unaudit.evidence import FloatArray, IntArray
from unaudit.stats.proportion import clopper_pearson, lower_limit, upper_limit
from unaudit.stats.samples import as_sample, require_rate, split_in_half


@dataclass(frozen=True)
class OperatingPoint:
    """True-positive rate at one false-positive rate."""

    fpr: float
    """As asked for."""
    empirical_fpr: float
    """Share of the negatives above the threshold, ≤ ``fpr``; less where ties forbid more."""
    threshold: float
    """Scores above it are called positive; −∞ calls all."""
    tpr: float
    low: float
    high: float
    """Clopper–Pearson at this threshold. The negatives alone set it, so the interval is exact for
    the rate at this threshold; it does not carry the uncertainty of the FPR."""
    level: float


@dataclass(frozen=True, eq=False)
class RocBand:
    """A thinned ROC curve with pointwise Clopper–Pearson limits; all arrays are (k,)."""

    fpr: FloatArray
    """Multiples of 1/n negatives, log-spaced, increasing to 1."""
    tpr: FloatArray
    low: FloatArray
    high: FloatArray
    level: float


def roc_counts(
    positive: npt.ArrayLike, negative: npt.ArrayLike
) -> tuple[FloatArray, IntArray, IntArray]:
    """Every distinct score, falling, and how many positives and negatives reach it; all (k,)."""
    positive, negative = as_sample(positive, "positive"), as_sample(negative, "negative")
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    return thresholds, _at_least(positive, thresholds), _at_least(negative, thresholds)


def roc_curve(positive: npt.ArrayLike, negative: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """(fpr, tpr) at every distinct score, from (0, 0) to (1, 1); tied scores make one step."""
    _, hits, false_alarms = roc_counts(positive, negative)
    # the last threshold is reached by all
    return (
        np.concatenate([[0.0], false_alarms / false_alarms[-1]]),
        np.concatenate([[0.0], hits / hits[-1]]),
    )


def tpr_at_fpr(
    positive: npt.ArrayLike, negative: npt.ArrayLike, fpr: float, level: float
) -> OperatingPoint | None:
    """TPR where at most ``fpr`` (a fraction, not percent) of the negatives are called positive.

    None where ``fpr`` < 1/n negatives: the sample cannot support that rate.
    """
    require_rate(fpr, "fpr")
    positive, negative = as_sample(positive, "positive"), as_sample(negative, "negative")
    # .29 × 100 is 28.999999999999996
    allowed = math.floor(fpr * len(negative) + 1e-9)
    if allowed < 1:
        return None
    threshold = float(_thresholds(negative, np.array([allowed]))[0])
    hits = int((positive > threshold).sum())
    interval = clopper_pearson(hits, len(positive), level)
    return OperatingPoint(
        fpr=fpr,
        empirical_fpr=float((negative > threshold).mean()),
        threshold=threshold,
        tpr=interval.estimate,
        low=interval.low,
        high=interval.high,
        level=level,
    )


def band(
    positive: npt.ArrayLike, negative: npt.ArrayLike, level: float, points: int = 64
) -> RocBand:
    """The curve at up to ``points`` log-spaced FPR ≥ 1/n, for plotting. Pointwise, not uniform."""
    require_rate(level, "level")
    positive, negative = as_sample(positive, "positive"), as_sample(negative, "negative")
    allowed = np.unique(np.rint(np.geomspace(1, len(negative), points)).astype(np.int64))
    ordered = np.sort(positive)
    hits = len(positive) - np.searchsorted(ordered, _thresholds(negative, allowed), side="right")
    tail = (1.0 - level) / 2.0
    return RocBand(
        fpr=allowed / len(negative),
        tpr=hits / len(positive),
        low=lower_limit(hits, len(positive), tail),
        high=upper_limit(hits, len(positive), tail),
        level=level,
    )


def advantage(
    positive: npt.ArrayLike, negative: npt.ArrayLike, rng: np.random.Generator, splits: int = 10
) -> float:
    """Expected TPR − FPR of an attacker who calls high scores members (Yeom et al. 2018, Def. 4).

    The threshold is the best one on a random half and is evaluated on the other, both ways,
    averaged over ``splits`` random halvings: 0 on average where the scores say nothing, negative by
    chance, and without the optimism of a maximum over thresholds. With a single positive or
    negative there is nothing to choose it on, so the attacker calls nobody and gains 0.
    """
    positive, negative = as_sample(positive, "positive"), as_sample(negative, "negative")
    if min(len(positive), len(negative)) < 2:
        return 0.0
    total = 0.0
    for _ in range(splits):
        first = split_in_half(positive, rng), split_in_half(negative, rng)
        for fit, held_out in ((0, 1), (1, 0)):
            threshold = _best_threshold(first[0][fit], first[1][fit])
            called = [float((group[held_out] >= threshold).mean()) for group in first]
            total += called[0] - called[1]
    return total / (2 * splits)


def _best_threshold(positive: FloatArray, negative: FloatArray) -> float:
    """Where TPR − FPR is largest when scores ≥ threshold are called positive; ∞ calls none."""
    thresholds, hits, false_alarms = roc_counts(positive, negative)
    gain = hits / len(positive) - false_alarms / len(negative)
    best = int(np.argmax(gain))
    return float(thresholds[best]) if gain[best] > 0.0 else np.inf


def _at_least(sample: FloatArray, thresholds: FloatArray) -> IntArray:
    """How many scores reach each threshold."""
    below = np.searchsorted(np.sort(sample), thresholds, side="left")
    return (len(sample) - below).astype(np.int64)


def _thresholds(negative: FloatArray, allowed: IntArray) -> FloatArray:
    """For each count the lowest negative score that at most that many negatives exceed."""
    descending = np.append(np.sort(negative)[::-1], -np.inf)
    return descending[allowed]
