"""Zero retrain forgetting: how random the answers to the forget set are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import absent, score_like_forget
from unaudit.evidence import PROBES, Evidence, FloatArray, ProbeCard
from unaudit.views import BlackBox, Outputs


@PROBES.register("zrf")
@dataclass(frozen=True)
class ZeroRetrainForgetting:
    """Mean Jensen–Shannon divergence from random teachers, 1 − ZRF.

    Bad-T's teacher is the subject's architecture with fresh weights. A black-box view has no
    architecture, and what an untrained network answers hardly depends on its input (for fully
    connected networks with PyTorch's default initialization its logits spread by about 0.1). So a
    teacher here is one vector of Gaussian logits, the same for every example, and the divergence is
    averaged over several draws, since a single one favors some classes by chance. The divergence is
    the true one in nats; Bad-T's code computes another (see ``jsd``), so its figures differ.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="zrf",
        title="Distance to random (1 − ZRF)",
        family="output-distance",
        measures=(
            "Mean Jensen–Shannon divergence between the model's predictions on the forget set and "
            "those of random teachers, in nats: 0 = answers like an untrained network. ZRF is 1 "
            "minus this."
        ),
        source="Chundawat et al. 2023 (Bad-T), ZRF; random teachers instead of an untrained copy",
        cost="no forward pass beyond the shared one; as many passes over the logits as teachers",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Ill suited to forgetting random examples: a retrained model is sure of most of them "
            "(IDI, appendix D).",
            "A confident wrong answer counts as much as a remembered one.",
            "Differences shrink as the number of classes grows.",
        ),
    )

    teachers: int = 8
    """Random teachers to average over."""
    teacher_scale: float = 0.5
    """Standard deviation of a teacher's logits."""

    def __post_init__(self) -> None:
        require_whole(self, "teachers", 1)
        require_positive(self, "teacher_scale")

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        logits = self.teacher_scale * rng.standard_normal((self.teachers, view.n_classes))
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        teachers = weights / weights.sum(axis=1, keepdims=True)
        scores = score_like_forget(
            view, lambda split: distance_to_teachers(view.outputs(split), teachers), "mean"
        )
        return replace(scores, detail={"zrf": 1.0 - float(scores.forget.mean())})


def distance_to_teachers(outputs: Outputs, teachers: FloatArray) -> FloatArray:
    """(n,) Jensen–Shannon divergence in nats from each of (k, n_classes) teachers, averaged.

    As H(m) − ½ H(p) − ½ H(q), one logarithm per entry; teachers must have no zero probability.
    """
    entropies = -(teachers * np.log(teachers)).sum(axis=1)
    total = np.zeros(len(outputs))
    for rows in outputs.chunks():
        p = np.exp(outputs.log_probabilities(rows))
        for teacher, entropy in zip(teachers, entropies, strict=True):
            middle = (p + teacher) / 2
            of_middle = -np.einsum("ij,ij->i", middle, np.log(middle))
            divergence = of_middle - (outputs.entropy[rows] + entropy) / 2
            total[rows] += np.clip(divergence, 0.0, math.log(2))
    return total / len(teachers)
