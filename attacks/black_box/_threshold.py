"""Attacks without training: one score per example, and any threshold on it is an attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from attacks.black_box._selection import (
    MIN_EXAMPLES,
    absent,
    rows_of_forget_classes,
    score_like_forget,
    too_few,
)
from unaudit.evidence import Evidence, FloatArray, ProbeCard, Scores, SplitName
from unaudit.views import BlackBox


@dataclass(frozen=True)
class ThresholdAttack(ABC):
    """Scores forget against unseen examples of the same classes; the AUC needs no threshold.

    For a model that never saw the forget set the AUC is 0.5 in every scenario, since both sides
    then come from the same distribution.
    """

    card: ClassVar[ProbeCard]

    @abstractmethod
    def score(self, view: BlackBox, split: SplitName) -> FloatArray:
        """(n,) of a whole split; higher = more like a member."""

    def detail(self, scores: Scores, rng: np.random.Generator) -> Mapping[str, Any]:
        """Extras for the report; none unless a subclass has some."""
        return {}

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        unseen = rows_of_forget_classes(view, "unseen")
        if len(unseen) < MIN_EXAMPLES:
            return too_few(len(unseen), "unseen examples of the forget classes")
        scores = score_like_forget(view, lambda split: self.score(view, split), "auc")
        return replace(scores, detail=self.detail(scores, rng))
