"""What shadow models say of the examples whose membership is in question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unaudit.evidence import IntArray, SplitName


@dataclass(frozen=True, eq=False)
class ShadowScores:
    """Of k examples of one split under m shadow models and q queries of each example.

    Every number is a logit-scaled confidence, log p_y − log(1 − p_y) (Carlini et al. 2022, §IV-C);
    arrays may be memory-mapped.
    """

    rows: IntArray
    """(k,) int64: which examples, as positions in the split, ascending."""
    scores: npt.NDArray[np.float32]
    """(m, q, k) of the shadow models as trained."""
    member: npt.NDArray[np.bool_]
    """(m, k): whether the model was trained on the example."""
    unlearned: npt.NDArray[np.float32] | None = None
    """(m, q, k) of the same models after they unlearned; None: nothing was unlearned."""
    erased: npt.NDArray[np.bool_] | None = None
    """(m, k): whether the example was in the forget set of that unlearning; a part of ``member``.
    Three states: never in; in and kept; in and unlearned."""


@dataclass(frozen=True, eq=False)
class Shadows:
    """Shadow models of one case, by what they say of its splits."""

    splits: Mapping[SplitName, ShadowScores]
    """Forget and unseen, and retain where some of it was left out of models as well."""
    queries: tuple[str, ...] = ("plain",)
    """How the q queries alter an example: ``plain``, ``flip``, ``shift dx,dy``; the first is
    plain."""
    unlearner: str | None = None
    """The registered name of the method that unlearned."""
    train_size: int = 0
    """Examples that each shadow model was trained on."""
    notes: tuple[str, ...] = ()
    """What was reached and what was given up, one sentence each."""

    @property
    def models(self) -> int:
        """How many there are."""
        return len(next(iter(self.splits.values())).scores)
