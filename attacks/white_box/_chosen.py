"""What the information in a model is measured of: examples with their Y, and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attacks.black_box._selection import MIN_EXAMPLES, too_few
from attacks.white_box._rows import proportional
from unaudit.evidence import FloatArray, IntArray, Skipped, SplitName

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox
    from unaudit.white_box.tail import Tail


@dataclass(frozen=True, eq=False)
class Chosen:
    """Examples, the same for every model."""

    rows: dict[SplitName, IntArray]
    """Positions in each split; the pool is these splits one after another."""
    labels: IntArray
    """(n,) Y."""
    strata: IntArray
    """(n,)"""
    left_out: tuple[int, ...] = ()
    """Classes with too few examples."""

    def by_split(self, influence: FloatArray) -> dict[SplitName, FloatArray]:
        """(n,) influences of the pool on its mean, as those of each split's examples alone."""
        ends = np.cumsum([len(rows) for rows in self.rows.values()])
        parts = np.split(influence, ends[:-1])
        return {
            split: part * (len(part) / len(influence))
            for split, part in zip(self.rows, parts, strict=True)
        }


def choose_by_membership(
    view: WhiteBox, max_examples: int, forget_share: float, rng: np.random.Generator
) -> Chosen | Skipped:
    """Forget and retain examples; Y is 1 for the former.

    Args:
        view: shows the labels.
        max_examples: of both together.
        forget_share: of forget examples among them, unless retain examples are too few.
        rng: draws them, each class with its share.
    """
    classes = {split: view.labels(split) for split in ("forget", "retain")}
    for split, labels in classes.items():
        if len(labels) < MIN_EXAMPLES:
            return too_few(len(labels), f"{split} examples")
    most = min(max_examples * forget_share, len(classes["forget"]))
    forget = proportional(classes["forget"], max(round(most), MIN_EXAMPLES), rng)
    beside = round(len(forget) * (1.0 / forget_share - 1.0))
    retain = proportional(classes["retain"], max(beside, MIN_EXAMPLES), rng)
    y = np.repeat([1, 0], [len(forget), len(retain)])
    own = np.concatenate([classes["forget"][forget], classes["retain"][retain]])
    return Chosen({"forget": forget, "retain": retain}, y, 2 * own + y)


def choose_by_class(
    view: WhiteBox, max_examples: int, folds: int, rng: np.random.Generator
) -> Chosen | Skipped:
    """Forget examples alone; Y is their class.

    Args:
        view: shows the labels.
        max_examples: how many.
        folds: of the critics; classes with fewer than twice as many examples are left out.
        rng: draws them, each class with its share.
    """
    classes = view.labels("forget")
    present, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
    # every fit and every stop must have some of each class
    enough = counts >= 2 * folds
    kept = np.flatnonzero(enough[place])
    if enough.sum() < 2 or len(kept) < MIN_EXAMPLES:
        return Skipped(
            f"needs {2 * folds} forget examples of at least two classes, {MIN_EXAMPLES} in all"
        )
    rows = kept[proportional(classes[kept], max_examples, rng, least=2 * folds)]
    y = np.unique(classes[rows], return_inverse=True)[1].astype(np.int64)
    left_out = tuple(int(label) for label in present[~enough])
    return Chosen({"forget": rows}, y, y, left_out)


def last_blocks(view: WhiteBox, blocks: int) -> tuple[str, ...]:
    """The last layers before the features, from first to last."""
    return view.layers[-blocks:] if blocks else ()


def has_weights(tail: Tail, head: str) -> bool:
    """Whether anything but the head can be trained behind the cut."""
    # by identity: a head may share its weights with an embedding, under whose name they then are
    own = {id(parameter) for parameter in tail.module.get_submodule(head).parameters()}
    return any(id(parameter) not in own for parameter in tail.parameters())
