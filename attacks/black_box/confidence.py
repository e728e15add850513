"""C-MIA: a fitted attack on the confidence in the true class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.black_box._crossfit import SvcAttack
from unaudit.evidence import PROBES, FloatArray, ProbeCard, SplitName
from unaudit.views import BlackBox


@PROBES.register("confidence")
@dataclass(frozen=True)
class ConfidenceAttack(SvcAttack):
    """Share of forget examples that an attacker calls members by their true-class probability.

    The attacker is SalUn's SVC (C = 3, RBF, gamma auto). Theirs is fitted on the first |test|
    retain examples; this one draws them, and judges retain and unseen out of sample.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="confidence",
        title="Confidence attack (C-MIA)",
        family="membership",
        measures=(
            "Share of forget examples that an attacker, trained to tell retain from unseen by the "
            "probability of the true class, takes for training examples. Published 'MIA efficacy' "
            "is 1 minus this."
        ),
        source="IDI (2024), appendix C.1, equation 5 (C-MIA); SalUn (Fan et al. 2024), SVC_MIA",
        cost="no forward pass beyond the shared one; two fits of a 2,000-example SVC, about 0.3 s",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit: retain and unseen then look alike.",
            "Calibration alone moves it, with nothing forgotten (MUDA, appendix D.2).",
            "The attacker's cut is sharp: where confidences crowd near 1 it jumps between models.",
        ),
        needs=frozenset({"retain", "unseen"}),
    )

    def signal(self, view: BlackBox, split: SplitName) -> FloatArray:
        return np.exp(view.outputs(split).log_confidence)

    def span(self, n_classes: int) -> float:
        return 1.0
