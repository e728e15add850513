"""Unlearning accuracy, the plainest measure of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from attacks.black_box._selection import (
    absent,
    all_rows,
    rows_of_kept_classes,
    score_like_forget,
)
from unaudit.evidence import ANY_TASK, PROBES, Evidence, ProbeCard, SplitName
from unaudit.views import BlackBox


@PROBES.register("accuracy")
@dataclass(frozen=True)
class Accuracy:
    """Share of forget examples that are classified correctly, or of their tokens that come first.

    The direction differs between papers: IDI's UA is 1 minus this (appendix C.1), SURE's a gap to
    the retrained model, others use the accuracy itself. RA and TA are in the detail, in the
    class scenario on the kept classes only, and so is the forget accuracy by class.

    Of a language model it is the share of each text's tokens that are the most probable ones after
    the true tokens before them, averaged over texts; each text counts alike, however long it is.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="accuracy",
        title="Accuracy on forget (1 − UA)",
        family="membership",
        measures=(
            "Share of forget examples that the model still classifies correctly, or of their "
            "tokens that it predicts. Retrained models say how high it may be: far above them is "
            "remembered, far below is over-unlearned."
        ),
        source=(
            "IDI (2024), appendix C.1, UA, RA and TA; Jia et al. 2023 (l1-sparse); of tokens: "
            "Tirumala et al. 2022 (exact memorization)"
        ),
        cost="no forward pass beyond the shared one; milliseconds",
        blind_spots=(
            "Refitting or masking the last layer alone changes it at will (IDI §3.1).",
            "Says nothing about examples that a model without them would classify correctly too.",
            "Sees the winner only, not the confidence in it.",
        ),
        tasks=ANY_TASK,
    )

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        forget = view.predictions("forget")
        detail: dict[str, Any] = {
            "unlearning_accuracy": 1.0 - float(forget.hit_rate.mean()),
            "by_class": {
                str(label): float(forget.hit_rate[forget.labels == label].mean())
                for label in view.forget_classes
            },
        }
        kept = rows_of_kept_classes if view.scenario == "class" else all_rows
        beside: tuple[tuple[str, SplitName], ...] = (
            ("remaining_accuracy", "retain"),
            ("testing_accuracy", "unseen"),
        )
        for name, split in beside:
            if split in view.splits and len(rows := kept(view, split)):
                detail[name] = float(view.predictions(split).hit_rate[rows].mean())
        return score_like_forget(
            view, lambda split: view.predictions(split).hit_rate, "mean", detail
        )
