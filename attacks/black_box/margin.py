"""The true-label margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attacks.black_box._threshold import ThresholdAttack
from unaudit.evidence import PROBES, FloatArray, ProbeCard, SplitName
from unaudit.views import BlackBox


@PROBES.register("margin")
@dataclass(frozen=True)
class MarginAttack(ThresholdAttack):
    """The true label's logit minus the largest other logit.

    The limit of the logit-scaled confidence log p − log(1 − p) for one strong rival; unlike the
    loss it does not saturate where the model is sure.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="margin",
        title="Margin attack",
        family="membership",
        measures=(
            "AUC of forget against unseen examples of the same classes by the margin of the true "
            "label: 0.5 = cannot be told apart, higher = forget examples sit deeper in their class."
        ),
        source="Yeom et al. 2018 (threshold attack); Carlini et al. 2022, §IV-C (why logits)",
        cost="no forward pass beyond the shared one; one pass over the logits",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "Compares within the forget classes, so a class that is still known but not "
            "memorized example by example goes unseen.",
        ),
        needs=frozenset({"unseen"}),
    )

    def score(self, view: BlackBox, split: SplitName) -> FloatArray:
        return view.outputs(split).margin
