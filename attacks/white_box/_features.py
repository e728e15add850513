"""Features of chosen rows, and what heads make of them, a piece at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from attacks.white_box._softmax import Head, Scaling
from unaudit.evidence import FloatArray, IntArray, SplitName

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox

ROWS_AT_ONCE = 1 << 14
"""Features turned to float64 at a time: 64 MiB at 512 features."""


def of_training(view: WhiteBox, rows: IntArray) -> FloatArray:
    """(n, d) features of rows of D, which is forget and then retain."""
    n_forget = len(view.labels("forget"))
    parts = (
        view.features("forget", rows[rows < n_forget]),
        view.features("retain", rows[rows >= n_forget] - n_forget),
    )
    joined = np.empty((len(rows), parts[0].shape[1]))
    joined[rows < n_forget], joined[rows >= n_forget] = parts
    return joined


def are_right(
    view: WhiteBox, split: SplitName, rows: IntArray, scaling: Scaling, heads: Sequence[Head]
) -> npt.NDArray[np.bool_]:
    """(n, len(heads)) whether each head names the label of each example."""
    labels = view.labels(split)
    right = np.empty((len(rows), len(heads)), dtype=np.bool_)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        features = scaling(np.asarray(view.features(split, part), dtype=np.float64))
        for at, head in enumerate(heads):
            right[start : start + len(part), at] = head.predict(features) == labels[part]
    return right
