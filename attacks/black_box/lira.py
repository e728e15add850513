"""LiRA: how likely a model's answer is if it was trained on an example, and if it was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from attacks.black_box._likelihood import (
    EPSILON,
    MIN_MODELS,
    Center,
    Gaussian,
    Mask,
    Scored,
    Spread,
    Variance,
    bounded,
    fit,
    log_ratios,
)
from attacks.black_box._parameters import require_positive
from attacks.black_box._shadow_parts import compared_parts, counted, require_choice
from unaudit.evidence import ANY_TASK, PROBES, Evidence, FloatArray, ProbeCard, Skipped
from unaudit.shadows import Shadows, ShadowScores
from unaudit.views import BlackBox


@PROBES.register("lira")
@dataclass(frozen=True)
class LikelihoodRatioAttack:
    """Log-likelihood ratio of 'trained on this example' against 'never trained on it'.

    Online, Algorithm 1 of the paper: two normal distributions per example, fitted to the
    logit-scaled confidence of the shadow models that were and that were not trained on it. Offline,
    the second alone: one-sided, as in the paper, Λ = Pr[Z ≤ own], of which the score is Φ⁻¹(Λ), the
    distance above the center in standard deviations; or, as in the published code, minus the log
    density, which is high on both sides, so that it takes over-unlearned examples for members.

    Several queries of an example are fitted one by one and their scores averaged, as in the
    published code; a sum would count correlated answers as if each were news. Where the published
    code sets one standard deviation for all examples, it takes that of the members for both arms by
    a slip; here each arm has its own.

    The measure is the mean over forget minus the mean over unseen examples of the score, pressed
    together beyond ``clip``; the order of the scores, and so every rate, stays what it was.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="lira",
        title="Likelihood ratio (LiRA)",
        family="membership",
        measures=(
            "Mean log-likelihood ratio in nats, 'was trained on it' against 'was not', over forget "
            "minus over unseen examples of the same classes: 0 = cannot be told apart, higher = "
            "forget examples look like members, one by one."
        ),
        source="Carlini et al. 2022, Algorithm 1, §IV-C, §V and §VI; pooled variance: own",
        cost="the shadow models; then about 1.2 µs per example at 64 of them",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Knows what shadow models of this recipe do: under another recipe it is weaker.",
            "Asks whether examples look trained on, not whether they look unlearned (U-LiRA).",
        ),
        needs=frozenset({"unseen"}),
        tasks=ANY_TASK,
        shadows="trained",
    )

    variant: Literal["online", "offline"] = "online"
    """``online`` needs shadow models that were trained on an example and others that were not,
    ``offline`` only the others."""
    center: Center = "median"
    """Of an arm: its median, as published, or its mean."""
    variance: Variance = "auto"
    """``per-example``, ``pooled`` over examples, ``global`` as the published ``fix_variance``, or
    ``auto``: pooled while the smaller arm has fewer than 32 models per example on average."""
    tail: Literal["one-sided", "density"] = "one-sided"
    """The offline score: one-sided, as in the paper, or a density, as in the published code."""
    clip: float = 5.0
    """Nats (offline and one-sided: standard deviations) up to which a score counts in full; what is
    beyond adds at most one more."""
    epsilon: float = EPSILON
    """Added to every standard deviation, as in the published code."""

    def __post_init__(self) -> None:
        require_choice(self, "variant", ("online", "offline"))
        require_choice(self, "center", ("median", "mean"))
        require_choice(self, "variance", ("auto", "per-example", "pooled", "global"))
        require_choice(self, "tail", ("one-sided", "density"))
        require_positive(self, "clip")
        require_positive(self, "epsilon")

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        parts = compared_parts(self.card, view, self._arms, MIN_MODELS)
        if isinstance(parts, Skipped):
            return parts
        spread, gaussians = fit(parts.examples, self.center, self.variance, self.epsilon)
        scores = {
            split: bounded(self._score(part.examples.own, arms), self.clip)
            for (split, part), arms in zip(parts.splits.items(), gaussians, strict=True)
        }
        detail: dict[str, Any] = {
            "variant": self.label(spread, parts.shadows),
            "models_per_arm": parts.models_per_arm(),
        }
        if self.variant == "online":
            # log-likelihood ratios: those of one person's records add up
            detail["unit"] = "nats"
        return parts.scores(view, scores, "mean-difference", detail)

    def label(self, spread: Spread, shadows: Shadows) -> str:
        """What was done in one line: scores of different variants cannot be compared."""
        offline = "" if self.variant == "online" else f", {self.tail}"
        return (
            f"{self.variant}{offline}, {self.center}, {spread} variance, "
            f"{counted(shadows.models, 'shadow')}, {counted(len(shadows.queries), 'query')}"
        )

    def _arms(self, of_split: ShadowScores) -> tuple[Scored, tuple[Mask, ...]]:
        never = ~np.asarray(of_split.member)
        arms = (of_split.member, never) if self.variant == "online" else (never,)
        return of_split.scores, arms

    def _score(self, own: FloatArray, arms: tuple[Gaussian, ...]) -> FloatArray:
        if self.variant == "online":
            trained, never = arms
            return log_ratios(own, trained, never)
        return offline_scores(own, arms[0], self.tail)


def offline_scores(
    own: FloatArray, never: Gaussian, tail: Literal["one-sided", "density"]
) -> FloatArray:
    """(k,) mean over the queries of Φ⁻¹(Λ), or of minus the log density in nats.

    Args:
        own: (q, k) answers of the model in question.
        never: the shadow models that were not trained on the example.
    """
    if tail == "one-sided":
        return np.asarray(never.standardized(own).mean(axis=0))
    return np.asarray(-never.log_density(own).mean(axis=0))
