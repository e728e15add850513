"""MIA-I: forget against unseen by the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from attacks.black_box._attackers import fit_logistic
from attacks.black_box._crossfit import cross_fit
from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import MIN_EXAMPLES
from attacks.black_box._threshold import ThresholdAttack
from unaudit.evidence import ANY_TASK, PROBES, FloatArray, ProbeCard, Scores, SplitName
from unaudit.views import BlackBox


@PROBES.register("loss")
@dataclass(frozen=True)
class LossAttack(ThresholdAttack):
    """Minus the cross-entropy loss, forget against unseen examples of the forget classes.

    SCRUB reports the accuracy of a logistic regression on the loss, balanced, over five shuffled
    splits, ideal 0.5. Its decision is a threshold on the loss, so the AUC says the same over all
    thresholds; the regression's own accuracy, cross-fitted on halves, is in the detail where both
    sides have enough examples.

    The loss of a text is that per token, averaged over it: published attacks on language models
    take the log-perplexity, which is the same.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="loss",
        title="Loss attack (MIA-I)",
        family="membership",
        measures=(
            "AUC of forget against unseen examples of the same classes by loss: 0.5 = cannot be "
            "told apart, higher = forget examples have the lower loss of examples trained on."
        ),
        source=(
            "Kurmanji et al. 2024 (SCRUB), basic MIA; SURE (2025), MIA-I; Yeom et al. 2018; of "
            "texts: Carlini et al. 2021, §4.2"
        ),
        cost="no forward pass beyond the shared one; two one-dimensional logistic regressions",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "Compares within the forget classes, so a class that is still known but not "
            "memorized example by example goes unseen.",
        ),
        needs=frozenset({"unseen"}),
        tasks=ANY_TASK,
    )

    clip: float = 100.0
    """Largest loss in nats, of a text per token, as in SCRUB."""
    max_fit: int = 10_000
    """Examples per side that one logistic regression is fitted on, drawn at random."""

    def __post_init__(self) -> None:
        require_positive(self, "clip")
        require_whole(self, "max_fit", MIN_EXAMPLES // 2)

    def score(self, view: BlackBox, split: SplitName) -> FloatArray:
        return np.maximum(view.predictions(split).log_confidence, -self.clip)

    def detail(self, scores: Scores, rng: np.random.Generator) -> Mapping[str, Any]:
        unseen = scores.unseen
        if unseen is None or len(scores.forget) < MIN_EXAMPLES:
            return {}
        nobody = np.empty(0)
        fitted = cross_fit(scores.forget, unseen, nobody, fit_logistic, self.max_fit, rng)
        return {"attack_accuracy": fitted.accuracy, "fitted_per_side": fitted.fitted_per_side}
