"""Distances between what two models answer to the same examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._selection import absent
from unaudit.evidence import Evidence, FloatArray, ProbeCard, Scores, Skipped
from unaudit.token_outputs import TokenDistances, TokenOutputs
from unaudit.views import BlackBox


@dataclass(frozen=True)
class OutputDistance(ABC):
    """A distance per forget example between a model and a retrained reference.

    Two retrained models differ as well; how much they do is what the mean is held against. Other
    splits decide nothing here and are not scored: every pair of models would pay for them.

    Language models are compared in their whole predictions of each token, averaged over a text.
    """

    card: ClassVar[ProbeCard]

    @abstractmethod
    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        """(n,) distances from two (n, n_classes) arrays of log-probabilities."""

    @abstractmethod
    def of_texts(self, apart: TokenDistances) -> npt.NDArray[np.generic]:
        """(n,) the same between two language models."""

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
        distances = np.asarray(self.of_texts(own.apart(other)), np.float64)
        return Scores(distances, statistic="mean")
