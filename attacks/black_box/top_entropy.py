"""RFA-LoRA's attack on language models: a fitted attack on the entropy of the top predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.special import entr

from attacks.black_box._attackers import Fit, fit_logistic
from attacks.black_box._crossfit import SvcAttack
from attacks.black_box._parameters import require_flag
from attacks.black_box._shadow_parts import require_choice
from attacks.black_box._texts import token_chunks
from unaudit.evidence import LANGUAGE_MODELING, PROBES, FloatArray, ProbeCard, SplitName
from unaudit.token_outputs import TOP, TokenOutputs
from unaudit.views import BlackBox


@PROBES.register("top-entropy")
@dataclass(frozen=True)
class TopEntropyAttack(SvcAttack):
    """Share of forget texts that an attacker calls members by the entropy of their top predictions.

    RFA-LoRA trains the attacker on retain (1) and test (0) and takes, for text generation, the
    entropy of the ten largest probabilities. It leaves open

    - whether the ten are divided by their sum first. Here they are (``normalized``): without it a
      prediction that is even over 50,000 tokens has nearly no entropy and looks certain;
    - what stands for a text, which has one entropy per predicted token. Here it is their mean;
    - which attacker. "SVM and logistic regression" are named, and the SVM for the other tasks, so
      it is the one by default, with the kernel and penalty of this project's other SVM attacks;
    - on how many examples it is fitted, and whether a decision or a probability is averaged over
      the forget set. Here retain and unseen have equal shares, attackers judge what they were not
      fitted on, and decisions are averaged.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="top-entropy",
        title="Entropy of top 10 (RFA-LoRA)",
        family="membership",
        measures=(
            "Share of forget texts that an attacker, trained to tell retain from unseen by the "
            "mean entropy of the ten likeliest next tokens, takes for training texts. It never "
            "looks at which token follows."
        ),
        source="RFA-LoRA, §V-C (MIA of text generation), Table X; SalUn (Fan et al. 2024), SVC",
        cost="no forward pass beyond the shared one; two fits of a 2,000-example SVC, about 0.3 s",
        blind_spots=(
            "Refitting the output layer alone can fool it (IDI §3.1, for classifiers).",
            "Blind when the original did not overfit: retain and unseen then look alike.",
            "A model that is sure of a wrong word counts as one that remembers.",
            "Temperature alone moves it, with nothing forgotten.",
        ),
        needs=frozenset({"retain", "unseen"}),
        tasks=LANGUAGE_MODELING,
    )

    attack: Literal["svm", "logistic"] = "svm"
    """A support vector classifier, or a logistic regression."""
    normalized: bool = True
    """Whether the ten probabilities are divided by their sum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "attack", ("svm", "logistic"))
        require_flag(self, "normalized")

    def signal(self, view: BlackBox, split: SplitName) -> FloatArray:
        tokens = view.tokens(split)
        return tokens.per_text(top_entropy(tokens, normalized=self.normalized))

    def span(self, n_classes: int) -> float:
        return math.log(TOP)

    def attacker(self, n_classes: int) -> Fit:
        return fit_logistic if self.attack == "logistic" else super().attacker(n_classes)


def top_entropy(tokens: TokenOutputs, *, normalized: bool) -> FloatArray:
    """(tokens,) entropy in nats of each prediction's largest probabilities, at most log TOP."""
    found = np.empty(len(tokens.top))
    for part in token_chunks(*tokens.top.shape):
        p = np.asarray(tokens.top[part], np.float64)
        if normalized:
            p = p / p.sum(axis=1, keepdims=True)
        found[part] = entr(p).sum(axis=1)
    return found
