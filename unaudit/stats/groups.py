"""Evidence of several records at once, such as all records of one person.

Log-likelihood ratios of records add up to that of their group if the records are independent given
the question. Those of one person rarely are: a model that finds one of them likely by chance finds
the others likely too. How alike they are is therefore taken from groups that were never trained on,
and a sum is held against what such groups of its size would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unaudit.evidence import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Records summed up by group."""

    names: npt.NDArray[Any]
    """(g,) distinct, ascending."""
    sums: FloatArray
    """(g,) of the records' scores."""
    sizes: IntArray
    """(g,) records."""


@dataclass(frozen=True)
class GroupSpread:
    """What groups of never-trained records give, by their size n: sums of mean n · ``mean`` and
    variance n · ``within`` + n² · ``between``."""

    mean: float
    """Of a record's score."""
    within: float
    """Variance of records about their group's mean."""
    between: float
    """Variance of the groups' means that records alone do not explain; 0: records of a group are
    no more alike than others."""

    def standardized(self, groups: GroupSums) -> FloatArray:
        """(g,) distances of sums from what never-trained groups of their size give, in standard
        deviations of such sums."""
        n = groups.sizes.astype(np.float64)
        deviation = np.sqrt(n * self.within + n**2 * self.between)
        return np.asarray((groups.sums - n * self.mean) / np.where(deviation > 0, deviation, 1.0))


def group_sums(scores: FloatArray, groups: npt.ArrayLike) -> GroupSums:
    """Evidence per group: the sum of its records' scores.

    Args:
        scores: (k,), such as log-likelihood ratios in nats.
        groups: (k,) labels of any sortable type.

    Raises:
        ValueError: not one label per score.
    """
    labels = np.asarray(groups)
    if labels.shape != scores.shape:
        raise ValueError(f"{labels.size} group labels for {scores.size} scores")
    names, member_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    sums: FloatArray = np.zeros(len(names))
    np.add.at(sums, member_of, scores)
    return GroupSums(names, sums, sizes.astype(np.int64))


def group_spread(scores: FloatArray, groups: npt.ArrayLike) -> GroupSpread:
    """How alike records of a group are: the analysis of variance of a one-way random-effects model
    with unequal group sizes (Searle, Casella & McCulloch, Variance Components, 1992, chapter 3),
    negative estimates of the variance between groups set to 0.

    Groups of one record each tell nothing of that, and give 0.

    Args:
        scores: (k,) of never-trained records.
        groups: (k,) their labels.

    Raises:
        ValueError: not one label per score, or fewer than two groups.
    """
    own = group_sums(scores, groups)
    k, g = len(scores), len(own.names)
    if g < 2:
        raise ValueError(f"the spread of groups takes at least two of them, got {g}")
    n = own.sizes.astype(np.float64)
    mean = float(scores.mean())
    squares = float((n * (own.sums / n - mean) ** 2).sum())
    within_squares = max(float(((scores - mean) ** 2).sum()) - squares, 0.0)
    if k == g:
        return GroupSpread(mean, squares / (g - 1), 0.0)
    within = within_squares / (k - g)
    usual = (k - float((n**2).sum()) / k) / (g - 1)
    return GroupSpread(mean, within, max(0.0, (squares / (g - 1) - within) / usual))
