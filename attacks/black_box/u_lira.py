"""U-LiRA: was the example unlearned, or never there? Both worlds went through the unlearner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.black_box._likelihood import (
    EPSILON,
    MIN_MODELS,
    Center,
    Mask,
    Scored,
    Variance,
    fit,
    log_ratios,
    posterior,
)
from attacks.black_box._parameters import require_positive
from attacks.black_box._shadow_parts import compared_parts, counted, require_choice
from unaudit.evidence import ANY_TASK, PROBES, Evidence, ProbeCard, Skipped
from unaudit.shadows import ShadowScores
from unaudit.views import BlackBox


@PROBES.register("u-lira")
@dataclass(frozen=True)
class UnlearningLikelihoodRatio:
    """p_in/(p_in + p_out) of an example: 'trained on, then unlearned' against 'never trained on'.

    Every shadow model is unlearned by the method that the subject is said to have gone through. Per
    example, one normal distribution is fitted to the answers of those models that unlearned it, and
    one to those of models that never saw it and unlearned other examples; models that saw and kept
    it stand in neither arm. So what unlearning does to every answer cancels, and what it leaves of
    this example remains.

    Hayes et al. unlearn 40 forget sets from each of 128 models. Here each of m models unlearns
    once, a random half of the examples in question that it contains, and is in one of three states
    towards every example: never in, in and kept, in and unlearned. So all examples are served by m
    runs. On arrays of either design, :func:`attacks.black_box._likelihood.likelihood_ratios` takes
    the arms as masks.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="u-lira",
        title="Unlearning LiRA (U-LiRA)",
        family="membership",
        measures=(
            "Probability, in a balanced bet, that an example was trained on and unlearned rather "
            "than never there: mean over forget minus mean over unseen examples of the same "
            "classes. 0 = cannot be told apart, higher = unlearning left a trace of its own."
        ),
        source="Hayes et al. 2024 (U-LiRA); IDI (2024), appendix C.1; three-state design: own",
        cost="the shadow models, each unlearned once; then about 1.2 µs per example at 64 of them",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Believes the stated unlearner: a subject made by another method lies in neither arm.",
            "Blind where unlearned and never-trained shadow models answer alike, whatever the "
            "subject holds.",
        ),
        needs=frozenset({"unseen"}),
        tasks=ANY_TASK,
        shadows="unlearned",
    )

    center: Center = "median"
    """Of an arm: its median or its mean."""
    variance: Variance = "auto"
    """``per-example``, as published; ``pooled`` over examples; ``global``; or ``auto``: pooled
    while the smaller arm has fewer than 32 models per example on average."""
    epsilon: float = EPSILON
    """Added to every standard deviation."""

    def __post_init__(self) -> None:
        require_choice(self, "center", ("median", "mean"))
        require_choice(self, "variance", ("auto", "per-example", "pooled", "global"))
        require_positive(self, "epsilon")

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if view.shadows is not None and not view.shadows.unlearner:
            return Skipped("needs the unlearning method that was used; add --unlearner METHOD")
        parts = compared_parts(self.card, view, _arms, MIN_MODELS)
        if isinstance(parts, Skipped):
            return parts
        spread, gaussians = fit(parts.examples, self.center, self.variance, self.epsilon)
        scores = {
            split: posterior(log_ratios(part.examples.own, *arms))
            for (split, part), arms in zip(parts.splits.items(), gaussians, strict=True)
        }
        shadows = parts.shadows
        erased, never = parts.models_per_arm()
        detail = {
            "variant": (
                f"{self.center}, {spread} variance, {counted(shadows.models, 'shadow')}, "
                f"{counted(len(shadows.queries), 'query')}"
            ),
            "statistic": "p_in / (p_in + p_out)",
            "unlearner": shadows.unlearner,
            "arms": ["trained on and unlearned", "never trained on, unlearner run on others"],
            "models_per_arm": [erased, never],
            "accuracy": float(
                (np.mean(scores["forget"] > 0.5) + np.mean(scores["unseen"] <= 0.5)) / 2
            ),
        }
        return parts.scores(view, scores, "mean-difference", detail)


def _arms(of_split: ShadowScores) -> tuple[Scored, tuple[Mask, ...]] | None:
    if of_split.unlearned is None or of_split.erased is None:
        return None
    return of_split.unlearned, (of_split.erased, ~np.asarray(of_split.member))
