"""Jensen–Shannon divergence from a retrained model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._pairs import OutputDistance
from unaudit.evidence import ANY_TASK, PROBES, FloatArray, ProbeCard
from unaudit.token_outputs import TokenDistances


@PROBES.register("jsd")
@dataclass(frozen=True)
class JensenShannon(OutputDistance):
    """Jensen–Shannon divergence in nats, ½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2.

    Bad-T's released code computes the reverse, KL(m‖p), averages over classes as well, and is
    infinite where a probability underflows; IDI prints values above ln 2, the largest value that
    equation 6 can take. So published figures cannot be compared with this one.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="jsd",
        title="JS divergence to retrained",
        family="output-distance",
        measures=(
            "Mean Jensen–Shannon divergence between the predictions of the model and of a "
            "retrained one on the forget set, in nats: 0 = the same answers, at most ln 2 = 0.693. "
            "Of texts, the mean over their tokens."
        ),
        source="IDI (2024), appendix C.1, equation 6; Chundawat et al. 2023 (Bad-T)",
        cost="no forward pass beyond the shared ones; a few passes over the forget logits",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Unsigned: over-unlearning and a different training recipe raise it too.",
            "Dominated by a few examples on which retrained models disagree anyway.",
        ),
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        return jensen_shannon(log_p, log_q)

    def of_texts(self, apart: TokenDistances) -> npt.NDArray[np.generic]:
        return apart.jsd


def jensen_shannon(log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    """(n,) divergence in nats, in [0, ln 2], between rows of log-probabilities.

    Log-probabilities must be finite; the probabilities themselves may underflow to 0.
    """
    log_m = np.logaddexp(log_p, log_q) - math.log(2)
    from_p = (np.exp(log_p) * (log_p - log_m)).sum(axis=1)
    from_q = (np.exp(log_q) * (log_q - log_m)).sum(axis=1)
    return np.asarray(np.clip((from_p + from_q) / 2, 0.0, math.log(2)))
