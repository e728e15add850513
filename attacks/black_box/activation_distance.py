"""Activation distance: how far the predicted probabilities are from a retrained model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._pairs import OutputDistance
from unaudit.evidence import ANY_TASK, PROBES, FloatArray, ProbeCard
from unaudit.token_outputs import TokenDistances

_BLIND_SPOTS = (
    "Refitting or masking the last layer alone fools it (IDI §3.1).",
    "Unsigned: over-unlearning and a different training recipe raise it too.",
    "Probabilities near 0 and 1 hide differences that the logits would show.",
)
_COST = "no forward pass beyond the shared ones; one pass over the forget logits"
_OF_TEXTS = "Of texts, the mean over their tokens."


@PROBES.register("activation-distance-l2")
@dataclass(frozen=True)
class ActivationDistanceL2(OutputDistance):
    """Euclidean distance between probability vectors, the common form; at most √2.

    RFA-LoRA says the same of its own, yet prints up to 1.80 for images (Table V) and 142 for texts
    (Table VI), which no two probability vectors reach. So published figures cannot be compared with
    this one.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="activation-distance-l2",
        title="Activation distance (L2)",
        family="output-distance",
        measures=(
            "Mean Euclidean distance between the probability vectors of the model and of a "
            "retrained one on the forget set: 0 = the same answers, at most 1.41. " + _OF_TEXTS
        ),
        source="Chundawat et al. 2023 (Bad-T); RFA-LoRA, §V-B.3, Tables V and VI; TMU, Table 1",
        cost=_COST,
        blind_spots=_BLIND_SPOTS,
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.square(np.exp(log_p) - np.exp(log_q)).sum(axis=1)))

    def of_texts(self, apart: TokenDistances) -> npt.NDArray[np.generic]:
        return apart.l2


@PROBES.register("activation-distance-l1")
@dataclass(frozen=True)
class ActivationDistanceL1(OutputDistance):
    """Sum of absolute differences between probability vectors; at most 2."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="activation-distance-l1",
        title="Activation distance (L1)",
        family="output-distance",
        measures=(
            "Mean absolute distance, summed over classes, between the probability vectors of the "
            "model and of a retrained one on the forget set: 0 = the same answers, at most 2. "
            + _OF_TEXTS
        ),
        source="Goel et al. 2022 (CF-k, EU-k), activation distance",
        cost=_COST,
        blind_spots=_BLIND_SPOTS,
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        return np.asarray(np.abs(np.exp(log_p) - np.exp(log_q)).sum(axis=1))

    def of_texts(self, apart: TokenDistances) -> npt.NDArray[np.generic]:
        return apart.l1
