"""How often a model and a retrained one predict different classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._pairs import OutputDistance
from unaudit.evidence import ANY_TASK, PROBES, FloatArray, ProbeCard
from unaudit.token_outputs import TokenDistances


@PROBES.register("disagreement")
@dataclass(frozen=True)
class Disagreement(OutputDistance):
    """1 where the likeliest classes differ, else 0; a tie goes to the lower class number."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="disagreement",
        title="Prediction disagreement",
        family="output-distance",
        measures=(
            "Share of forget examples for which the model and a retrained one predict different "
            "classes, or of their tokens where other ones are the likeliest: 0 = always the same, "
            "1 = never."
        ),
        source="zero-one form of the activation distance (Golatkar et al. 2021; Goel et al. 2022)",
        cost="no forward pass beyond the shared ones; one pass over the forget logits",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Unsigned: over-unlearning and a different training recipe raise it too.",
            "Sees the winner only, not the confidence in it.",
        ),
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        return np.asarray(log_p.argmax(axis=1) != log_q.argmax(axis=1), dtype=np.float64)

    def of_texts(self, apart: TokenDistances) -> npt.NDArray[np.generic]:
        return apart.differ
