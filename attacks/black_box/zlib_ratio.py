"""Likelihood of texts beside their size after zlib."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from attacks.black_box._shadow_parts import require_choice
from attacks.black_box._texts import TextAttack
from unaudit.evidence import LANGUAGE_MODELING, PROBES, FloatArray, ProbeCard
from unaudit.token_outputs import TokenOutputs


@PROBES.register("zlib")
@dataclass(frozen=True)
class ZlibRatio(TextAttack):
    """Log-likelihood of a text over its bytes after zlib: nats per byte, at most 0.

    A text that repeats itself is likely to any model, and small after zlib; one that is likely to
    the model and not small was probably seen. The paper divides the log-perplexity, which is a mean
    per token, of texts of 256 tokens each; there mean and sum give one order. Texts here differ in
    length, and bytes grow with it, so over the mean a text looks the more like a member the longer
    it is. The sum has the same growth as the bytes; ``likelihood = "mean"`` is the published form.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="zlib",
        title="Likelihood per zlib byte",
        family="membership",
        measures=(
            "AUC of forget against unseen texts of the same classes by log-likelihood over bytes "
            "after zlib: 0.5 = cannot be told apart, higher = forget texts are likelier than their "
            "redundancy explains."
        ),
        source="Carlini et al. 2021, §5.2 (zlib entropy); sum instead of mean per token: own",
        cost="no forward pass beyond the shared one; milliseconds",
        blind_spots=(
            "Refitting the output layer alone can fool it (IDI §3.1, for classifiers).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "Of short texts the size after zlib is mostly their length: it then adds nothing, and "
            "texts of unlike length are not quite on one scale.",
            "Texts that preprocess.max_length cut look like members: their bytes count whole.",
        ),
        needs=frozenset({"unseen"}),
        tasks=LANGUAGE_MODELING,
    )

    likelihood: Literal["sum", "mean"] = "sum"
    """Of the log-probabilities of a text's tokens: their sum, or their mean as published."""

    def __post_init__(self) -> None:
        require_choice(self, "likelihood", ("sum", "mean"))

    def score(self, tokens: TokenOutputs) -> FloatArray:
        factor = np.asarray(tokens.counts) if self.likelihood == "sum" else 1
        return np.asarray(tokens.log_confidence * factor / np.asarray(tokens.compressed))
