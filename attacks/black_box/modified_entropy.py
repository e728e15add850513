"""Modified prediction entropy: entropy that knows the true label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.black_box._threshold import ThresholdAttack
from unaudit.evidence import PROBES, FloatArray, IntArray, ProbeCard, SplitName
from unaudit.views import BlackBox, Outputs


@PROBES.register("modified-entropy")
@dataclass(frozen=True)
class ModifiedEntropyAttack(ThresholdAttack):
    """Minus the modified entropy, −(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i), in nats.

    One threshold for all classes, by AUC; the paper chooses one per class from shadow models.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="modified-entropy",
        title="Modified-entropy attack",
        family="membership",
        measures=(
            "AUC of forget against unseen examples of the same classes by modified entropy, which "
            "is low only for a confident correct answer: 0.5 = cannot be told apart, higher = "
            "forget examples look trained on."
        ),
        source="Song & Mittal 2021 (USENIX Security), modified prediction entropy",
        cost="no forward pass beyond the shared one; a few passes over the logits",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit.",
            "Compares within the forget classes, so a class that is still known but not "
            "memorized example by example goes unseen.",
        ),
        needs=frozenset({"unseen"}),
    )

    def score(self, view: BlackBox, split: SplitName) -> FloatArray:
        return -modified_entropy(view.outputs(split))


def modified_entropy(outputs: Outputs) -> FloatArray:
    """(n,) modified entropy in nats, at least 0; finite for every finite logit.

    log(1 − p) of the likeliest class comes from the other logits, since 1 − p may round to 0; every
    other probability is at most 1/2, where log1p is exact.
    """
    log_doubt_of_top = Outputs(outputs.logits, outputs.predicted).log_doubt
    parts = [
        _modified_entropy(
            outputs.log_probabilities(rows),
            outputs.labels[rows],
            outputs.predicted[rows],
            log_doubt_of_top[rows],
        )
        for rows in outputs.chunks()
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _modified_entropy(
    log_p: FloatArray, labels: IntArray, top: IntArray, log_doubt_of_top: FloatArray
) -> FloatArray:
    each = np.arange(len(log_p))
    p = np.exp(log_p)
    others = p.copy()
    others[each, top] = 0.0
    log_not_p = np.log1p(-others)
    log_not_p[each, top] = log_doubt_of_top
    terms = p * log_not_p
    log_p_y = log_p[each, labels]
    terms[each, labels] = -np.expm1(log_p_y) * log_p_y
    return np.asarray(-terms.sum(axis=1))
