"""RMIA: does an example gain more from this model than never-trained examples do?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from attacks.black_box._likelihood import LARGEST, Examples, Mask, Scored, chunks
from attacks.black_box._parameters import require_positive
from attacks.black_box._shadow_parts import compared_parts, counted, require_choice
from unaudit.errors import UsageError
from unaudit.evidence import ANY_TASK, PROBES, Evidence, FloatArray, IntArray, ProbeCard, Skipped
from unaudit.shadows import ShadowScores
from unaudit.views import BlackBox


@PROBES.register("rmia")
@dataclass(frozen=True)
class RobustMembershipAttack:
    """Share of never-trained examples z over which x gains by a factor of more than ``gamma``.

    The gain of an example is p(x|θ)/p(x): its confidence under the model over that under models at
    large. With shadow models on both sides, p(x) is the mean of the mean confidences of those that
    were and that were not trained on x; offline it is ((1 + a) p_out(x) + 1 − a)/2, which guesses
    the former from the latter. One shadow model per arm will do, since nothing has a variance.

    The population z are the unseen examples of the forget classes, treated like x: with the shadow
    models that were and were not trained on z. An unseen x is not compared with itself. The gains
    of several queries are averaged in the logarithm.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="rmia",
        title="Robust attack (RMIA)",
        family="membership",
        measures=(
            "AUC of forget against unseen examples of the same classes by the share of unseen "
            "examples over which they gain confidence from this model: 0.5 = cannot be told "
            "apart, higher = forget examples look like members. For few shadow models."
        ),
        source="Zarifzadeh et al. 2024 (RMIA): pairwise ratios, online and offline p(x)",
        cost="the shadow models, 2 or more; then about 2 µs per example at 64 of them",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Knows what shadow models of this recipe do: under another recipe it is weaker.",
            "With many shadow models the likelihood ratio (LiRA) sees more.",
        ),
        needs=frozenset({"unseen"}),
        tasks=ANY_TASK,
        shadows="trained",
    )

    variant: Literal["online", "offline"] = "online"
    """``online`` needs shadow models on both sides of an example, ``offline`` only those that were
    not trained on it."""
    gamma: float = 1.0
    """Factor by which x must gain more than z."""
    a: float = 0.3
    """Offline: slope of p_in over p_out, from 0 to 1; 0.3 is Privacy Meter's."""

    def __post_init__(self) -> None:
        require_choice(self, "variant", ("online", "offline"))
        require_positive(self, "gamma")
        is_number = isinstance(self.a, int | float) and not isinstance(self.a, bool)
        if not is_number or not 0.0 <= self.a <= 1.0:
            raise UsageError(f"probes.rmia.a must be a number from 0 to 1 (got {self.a!r:.40})")

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        parts = compared_parts(self.card, view, self._arms, 1)
        if isinstance(parts, Skipped):
            return parts
        gains = {split: self._gains(part.examples) for split, part in parts.splits.items()}
        population = gains["unseen"]
        scores = {
            split: pairwise_shares(own, population, self.gamma, same=split == "unseen")
            for split, own in gains.items()
        }
        offline = "" if self.variant == "online" else f", a = {self.a:g}"
        shadows = parts.shadows
        detail = {
            "variant": (
                f"{self.variant}{offline}, gamma = {self.gamma:g}, "
                f"{counted(shadows.models, 'shadow')}, {counted(len(shadows.queries), 'query')}"
            ),
            "models_per_arm": parts.models_per_arm(),
            "population": len(population),
        }
        return parts.scores(view, scores, "auc", detail)

    def _arms(self, of_split: ShadowScores) -> tuple[Scored, tuple[Mask, ...]]:
        never = ~np.asarray(of_split.member)
        arms = (never,) if self.variant == "offline" else (never, of_split.member)
        return of_split.scores, arms

    def _gains(self, examples: Examples) -> FloatArray:
        """(k,) log p(x|θ) − log p(x), averaged over the queries."""
        out, *trained = [
            mean_log_confidence(examples.scores, arm, columns=examples.columns)
            for arm in examples.arms
        ]
        at_large = online_mean(out, trained[0]) if trained else offline_mean(out, self.a)
        return np.asarray((log_confidence(examples.own) - at_large).mean(axis=0))


def pairwise_shares(
    gains: FloatArray, population: FloatArray, gamma: float = 1.0, *, same: bool = False
) -> FloatArray:
    """(n,) share of the population z with exp(gain of x − gain of z) > gamma.

    Strictly above, as in Privacy Meter; the paper has ≥, which differs in ties alone. Sorted once
    instead of compared pair by pair.

    Args:
        gains: (n,) log p(x|θ) − log p(x).
        population: (k,) the same of never-trained examples.
        same: whether ``gains`` are those of the population, so that each x leaves itself out.
    """
    least = gains - np.log(gamma)
    below = np.searchsorted(np.sort(population), least, side="left").astype(np.float64)
    if not same:
        return np.asarray(below / len(population))
    return np.asarray((below - (population < least)) / (len(population) - 1))


def log_confidence(scores: FloatArray) -> FloatArray:
    """log p from logit-scaled confidences log p − log(1 − p)."""
    finite = np.clip(scores, -LARGEST, LARGEST)
    return np.asarray(np.minimum(finite, 0.0) - np.log1p(np.exp(-np.abs(finite))))


def mean_log_confidence(
    scores: Scored, arm: Mask, *, columns: IntArray | None = None
) -> FloatArray:
    """(q, k) log of the mean confidence of an arm's models, a chunk of examples at a time.

    Args:
        scores: (m, q, n) logit-scaled confidences.
        arm: (m, n) which models count; each example has at least one.
        columns: (k,) which examples; None: all, in order.

    Raises:
        ValueError: a shadow model answers NaN.
    """
    m, q, n = scores.shape
    found = np.empty((q, n if columns is None else len(columns)))
    for rows, at in chunks(found.shape[1], m, columns):
        inside = np.asarray(arm[:, at])
        models = np.count_nonzero(inside, axis=0)
        for query in range(q):
            log_p = log_confidence(np.array(scores[:, query, at], np.float64, order="C"))
            if np.isnan(log_p).any():
                broken = np.flatnonzero(np.isnan(log_p).any(axis=1))
                raise ValueError(f"shadow model {broken[0] + 1} answers NaN: its training diverged")
            found[query, rows] = _log_mean(np.where(inside, log_p, -np.inf), models)
    return found


def online_mean(out: FloatArray, trained: FloatArray) -> FloatArray:
    """log p(x) = log (p_out + p_in)/2 from the logarithms of both."""
    return np.asarray(np.logaddexp(out, trained) - np.log(2.0))


def offline_mean(out: FloatArray, a: float) -> FloatArray:
    """log p(x) = log ((1 + a) p_out + 1 − a)/2 from log p_out."""
    scaled = out + np.log((1.0 + a) / 2.0)
    return scaled if a == 1.0 else np.asarray(np.logaddexp(scaled, np.log((1.0 - a) / 2.0)))


def _log_mean(log_p: FloatArray, models: IntArray) -> FloatArray:
    """(c,) log of the mean over axis 0; entries of −∞ are not counted in ``models``."""
    # an arm of answers that are all surely wrong has no larger entry than −1e308 or so
    top = np.maximum(log_p.max(axis=0), -1e308)
    return np.asarray(top + np.log(np.exp(log_p - top).sum(axis=0) / models))
