"""Which examples a probe looks at: decided by labels, sizes and the generator, not by the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from unaudit.evidence import IntArray, Skipped, SplitName

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox


def unlabeled(view: WhiteBox) -> Skipped | None:
    """The reason to skip what needs classes: texts of language models may have none."""
    if not view.predicts_tokens:
        return None
    found = np.unique(np.concatenate([view.labels(split) for split in view.splits]))
    if len(found) > 1:
        return None
    return Skipped("the texts have no labels" if not found.any() else "all texts have one label")


def of_forget_classes(view: WhiteBox, split: SplitName) -> IntArray:
    """(k,) positions of the examples whose class occurs in the forget set, ascending."""
    return np.flatnonzero(np.isin(view.labels(split), view.forget_classes)).astype(np.int64)


def some(rows: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """At most ``most`` of ``rows``, drawn without replacement, ascending."""
    if len(rows) <= most:
        return rows
    return np.sort(rng.choice(rows, most, replace=False))


def proportional(strata: IntArray, most: int, rng: np.random.Generator, least: int = 1) -> IntArray:
    """At most about ``most`` positions, each stratum with its share of them, ascending.

    Args:
        strata: (n,) the stratum of each example.
        least: examples to take of every stratum that has them, whatever its share.
    """
    if len(strata) <= most:
        return np.arange(len(strata), dtype=np.int64)
    chosen = []
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        share = round(most * len(rows) / len(strata))
        chosen.append(some(rows, max(share, least), rng))
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def deal(strata: IntArray, hands: int, rng: np.random.Generator) -> IntArray:
    """(n,) a hand from 0 to ``hands`` − 1 for each example, evenly within each stratum."""
    dealt = np.empty(len(strata), dtype=np.int64)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        # each stratum starts elsewhere: else small ones would all go to the first hands
        start = rng.integers(hands)
        dealt[rng.permutation(rows)] = (start + np.arange(len(rows))) % hands
    return dealt


def partial(view: WhiteBox, rows: Mapping[SplitName, IntArray]) -> dict[SplitName, IntArray]:
    """``Scores.rows``: the splits that were not scored whole."""
    return {
        split: chosen for split, chosen in rows.items() if len(chosen) < len(view.labels(split))
    }
