"""MIA-II: an attacker trained to tell training from test data judges the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.black_box._attackers import Fit, fit_logistic
from attacks.black_box._crossfit import FittedAttack
from unaudit.evidence import PROBES, FloatArray, ProbeCard, SplitName
from unaudit.views import BlackBox, Outputs


@PROBES.register("train-vs-test")
@dataclass(frozen=True)
class TrainVersusTestAttack(FittedAttack):
    """Share of forget examples that an attacker on the prediction's confidence calls training data.

    SURE trains on all of D, which contains D_f unless it is taken out; here it is out, else the
    attacker is shown its own test data as members. SURE names neither the form of the confidence
    nor the attacker; both are ours: the probability of the *predicted* class (its "confidence in
    its predictions"; the true label is not used, unlike in C-MIA) and a logistic regression, which
    SURE calls usual. SURE's figure is the share called test, so 1 minus this.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="train-vs-test",
        title="Train-vs-test (MIA-II)",
        family="membership",
        measures=(
            "Share of forget examples that an attacker, trained to tell retain from unseen by the "
            "model's confidence in its own prediction, takes for training data. SURE prints 1 "
            "minus this."
        ),
        source="SURE (2025), related work, MIA-II; attacker and feature are this project's choice",
        cost="no forward pass beyond the shared one; two one-dimensional logistic regressions",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit: retain and unseen then look alike.",
            "A confident wrong answer counts as a sign of membership.",
            "The attacker's cut is sharp: where it barely beats chance it jumps between models.",
        ),
        needs=frozenset({"retain", "unseen"}),
    )

    max_fit: int = 10_000
    """Examples per side that one attacker is fitted on, drawn at random."""

    def signal(self, view: BlackBox, split: SplitName) -> FloatArray:
        outputs = view.outputs(split)
        return np.exp(Outputs(outputs.logits, outputs.predicted).log_confidence)

    def attacker(self, n_classes: int) -> Fit:
        return fit_logistic
