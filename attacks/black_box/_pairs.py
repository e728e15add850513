"""Distances between what two models answer to the same examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._selection import absent
from attacks.black_box._texts import token_chunks
from unaudit.evidence import Evidence, FloatArray, ProbeCard, Scores, Skipped
from unaudit.token_outputs import TokenOutputs, log_doubt_of
from unaudit.views import BlackBox


@dataclass(frozen=True)
class OutputDistance(ABC):
    """A distance per forget example between a model and a retrained reference.

    Two retrained models differ as well; how much they do is what the mean is held against. Other
    splits decide nothing here and are not scored: every pair of models would pay for them.

    Of a language model no distribution over the vocabulary is kept. What two of them say of each
    token of a text is compared as two outcomes, the token that follows or any other, and averaged
    over the text.
    """

    card: ClassVar[ProbeCard]

    @abstractmethod
    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        """(n,) distances from two (n, n_classes) arrays of log-probabilities."""

    def token_distance(self, own: TokenOutputs, other: TokenOutputs) -> FloatArray:
        """(tokens,) distances between what two language models say of each token."""
        parts = [
            self.distance(two_outcomes(own.log_p[part]), two_outcomes(other.log_p[part]))
            for part in token_chunks(len(own.log_p), 2)
        ]
        return np.concatenate(parts)

    def __call__(self, view: BlackBox, reference: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view, reference)) is not None:
            return skip
        if view.n_classes != reference.n_classes:
            return Skipped(
                f"the reference has {reference.n_classes} classes, the model {view.n_classes}"
            )
        if isinstance(view.predictions("forget"), TokenOutputs):
            return self._of_texts(view.tokens("forget"), reference.tokens("forget"))
        own, other = view.outputs("forget"), reference.outputs("forget")
        parts = [
            self.distance(own.log_probabilities(rows), other.log_probabilities(rows))
            for rows in own.chunks()
        ]
        return Scores(np.concatenate(parts), statistic="mean")

    def _of_texts(self, own: TokenOutputs, other: TokenOutputs) -> Evidence:
        if not np.array_equal(own.counts, other.counts):
            return Skipped("the reference splits the texts into other tokens than the model does")
        return Scores(own.per_text(self.token_distance(own, other)), statistic="mean")


def two_outcomes(log_p: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """(tokens, 2) finite log-probabilities of a token and of all others together."""
    own = np.asarray(log_p, np.float64)
    return np.stack([own, log_doubt_of(own)], axis=1)
