"""E-MIA: a fitted attack on the entropy of the prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from attacks.black_box._crossfit import SvcAttack
from unaudit.evidence import PROBES, FloatArray, ProbeCard, SplitName
from unaudit.views import BlackBox


@PROBES.register("entropy")
@dataclass(frozen=True)
class EntropyAttack(SvcAttack):
    """Share of forget examples that an attacker calls members by the entropy of their prediction.

    The same attacker as for C-MIA (IDI does not print another one; Bad-T and SSD use logistic
    regression). Entropy in nats, H(x) = −Σ p_i log p_i.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="entropy",
        title="Entropy attack (E-MIA)",
        family="membership",
        measures=(
            "Share of forget examples that an attacker, trained to tell retain from unseen by the "
            "entropy of the prediction, takes for training examples. Uses no labels."
        ),
        source="IDI (2024), appendix C.1, equation 5 (E-MIA); Chundawat et al. 2023 (Bad-T)",
        cost="no forward pass beyond the shared one; two fits of a 2,000-example SVC, about 0.3 s",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit: retain and unseen then look alike.",
            "A confident wrong answer counts as a sign of membership.",
            "Calibration alone moves it, with nothing forgotten (MUDA, appendix D.2).",
        ),
        needs=frozenset({"retain", "unseen"}),
    )

    def signal(self, view: BlackBox, split: SplitName) -> FloatArray:
        return view.outputs(split).entropy

    def span(self, n_classes: int) -> float:
        return math.log(n_classes)
