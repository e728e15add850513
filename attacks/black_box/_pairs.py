"""Distances between what two models answer to the same examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.black_box._selection import absent
from unaudit.evidence import Evidence, FloatArray, ProbeCard, Scores, Skipped
from unaudit.views import BlackBox


@dataclass(frozen=True)
class OutputDistance(ABC):
    """A distance per forget example between a model and a retrained reference.

    Two retrained models differ as well; how much they do is what the mean is held against. Other
    splits decide nothing here and are not scored: every pair of models would pay for them.
    """

    card: ClassVar[ProbeCard]

    @abstractmethod
    def distance(self, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
        """(n,) distances from two (n, n_classes) arrays of log-probabilities."""

    def __call__(self, view: BlackBox, reference: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view, reference)) is not None:
            return skip
        if view.n_classes != reference.n_classes:
            return Skipped(
                f"the reference has {reference.n_classes} classes, the model {view.n_classes}"
            )
        own, other = view.outputs("forget"), reference.outputs("forget")
        parts = [
            self.distance(own.log_probabilities(rows), other.log_probabilities(rows))
            for rows in own.chunks()
        ]
        return Scores(np.concatenate(parts), statistic="mean")
