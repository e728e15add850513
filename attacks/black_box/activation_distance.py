"""Activation distance: how far the predicted probabilities are from a retrained model's.

For classifiers alone: what is kept of a language model's predictions does not say how far two of
them are from each other, and of the probabilities of the true tokens ``jsd`` speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.black_box._pairs import OutputDistance
from unaudit.evidence import PROBES, FloatArray, ProbeCard

_BLIND_SPOTS = (
    "Refitting or masking the last layer alone fools it (IDI §3.1).",
    "Unsigned: over-unlearning and a different training recipe raise it too.",
    "Probabilities near 0 and 1 hide differences that the logits would show.",
)
_COST = "no forward pass beyond the shared ones; one pass over the forget logits"


@PROBES.register("activation-distance-l2")
@dataclass(frozen=True)
class ActivationDistanceL2(OutputDistance):
    """Euclidean distance between probability vectors, the common form; at most √2."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="activation-distance-l2",
        title="Activation distance (L2)",
        family="output-distance",
        measures=(
            "Mean Euclidean distance between the probability vectors of the model and of a "
            "retrained one on the forget set: 0 = the same answers, at most 1.41."
        ),
        source="Chundawat et al. 2023 (Bad-T); RFA-LoRA, evaluation, Table V; TMU, Table 1",
        cost=_COST,
        blind_spots=_BLIND_SPOTS,
        comparative=True,
        unsigned=True,
    )

    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.square(np.exp(log_p) - np.exp(log_q)).sum(axis=1)))


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
            "model and of a retrained one on the forget set: 0 = the same answers, at most 2."
        ),
        source="Goel et al. 2022 (CF-k, EU-k), activation distance",
        cost=_COST,
        blind_spots=_BLIND_SPOTS,
        comparative=True,
        unsigned=True,
    )

    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        return np.asarray(np.abs(np.exp(log_p) - np.exp(log_q)).sum(axis=1))
