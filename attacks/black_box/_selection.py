"""Which examples may be compared with the forget set.

An attack that compares the forget set with examples of other classes detects the classes, not the
training. So unseen and retain examples are compared only where their class occurs in the forget
set; where that is every class, nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from unaudit.evidence import (
    FloatArray,
    IntArray,
    ProbeCard,
    Scores,
    Skipped,
    SplitName,
    Statistic,
)
from unaudit.views import BlackBox

Usable: TypeAlias = Callable[[SplitName], npt.NDArray[np.bool_]]
"""From a split's name to (n,) whether an example can be scored at all."""

MIN_EXAMPLES = 20
"""Fewer examples on one side say nothing: the finest step of a rate would be above 5 %."""


def absent(card: ProbeCard, *views: BlackBox) -> Skipped | None:
    """The reason to skip if a view lacks a split that the probe needs."""
    needed = {"forget", *card.needs}
    missing = sorted(name for name in needed if any(name not in view.splits for view in views))
    if not missing:
        return None
    return Skipped(f"needs {' and '.join(missing)} examples, which were not handed in")


def too_few(found: int, kind: str) -> Skipped:
    """The reason to skip when a comparison lacks examples; ``kind`` says which."""
    return Skipped(f"needs at least {MIN_EXAMPLES} {kind}, found {found}")


def all_rows(view: BlackBox, split: SplitName) -> IntArray:
    """(n,) positions of all examples."""
    return np.arange(len(view.predictions(split)), dtype=np.int64)


def rows_of_forget_classes(view: BlackBox, split: SplitName) -> IntArray:
    """(k,) positions of the examples whose class occurs in the forget set, ascending."""
    return np.flatnonzero(np.isin(view.predictions(split).labels, view.forget_classes))


def rows_of_kept_classes(view: BlackBox, split: SplitName) -> IntArray:
    """(k,) positions of the examples whose class does not occur in the forget set, ascending."""
    return np.flatnonzero(~np.isin(view.predictions(split).labels, view.forget_classes))


def comparable_rows(view: BlackBox, split: SplitName, usable: Usable | None = None) -> IntArray:
    """(k,) positions of the usable examples that may be compared with the forget set, ascending:
    of the forget set all."""
    choose = all_rows if split == "forget" else rows_of_forget_classes
    rows = choose(view, split)
    return rows if usable is None else rows[usable(split)[rows]]


def partial_rows(view: BlackBox, rows: Mapping[SplitName, IntArray]) -> dict[SplitName, IntArray]:
    """``Scores.rows``: the splits that were not scored whole."""
    return {
        split: chosen
        for split, chosen in rows.items()
        if len(chosen) < len(view.predictions(split))
    }


def score_like_forget(
    view: BlackBox,
    score: Callable[[SplitName], FloatArray],
    statistic: Statistic,
    detail: Mapping[str, Any] | None = None,
    usable: Usable | None = None,
) -> Scores:
    """Score the forget set and, of unseen and retain, the examples of the forget classes.

    A split that the view lacks, or that holds fewer than ``MIN_EXAMPLES`` of them, is left out.

    Args:
        score: from a split's name to one score per example of the whole split.
        usable: which examples can be scored; None: all. At least one of forget can.
    """
    rows: dict[SplitName, IntArray] = {}
    scores: dict[SplitName, FloatArray] = {}
    candidates: tuple[SplitName, ...] = ("forget", "unseen", "retain")
    for split in candidates:
        if split not in view.splits:
            continue
        chosen = comparable_rows(view, split, usable)
        if split == "forget" or len(chosen) >= MIN_EXAMPLES:
            rows[split] = chosen
            scores[split] = score(split)[chosen]
    return Scores(
        forget=scores["forget"],
        unseen=scores.get("unseen"),
        retain=scores.get("retain"),
        statistic=statistic,
        rows=partial_rows(view, rows),
        detail=detail or {},
    )
