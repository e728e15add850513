"""Splits of the data: cut, disjoint, and what scenario they amount to.

forget       to be removed
retain       the rest of the training data
unseen       never trained on by anyone
validation   never trained on, but an unlearner may have used it; no metric's non-members
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from unaudit.data import Dataset
from unaudit.data.labels import class_number
from unaudit.data.recorded import RecordedDataset
from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray, Scenario, SplitName
from unaudit.stats import same_mix_p
from unaudit.text import quote

MIX_P = 0.001
"""Below this p-value of homogeneity, two mixes of classes are taken to differ."""

MAX_COPIES_IN_UNSEEN = 0.01
"""Share of unseen examples that may repeat a training example; they are left out and counted. More
than that is an overlap of the data sets, not an accident."""


@dataclass(frozen=True, eq=False)
class Split:
    """Some examples of a data set, in its order."""

    name: SplitName
    dataset: Dataset
    rows: IntArray
    """(n,) int64, ascending positions in the data set."""
    canaries: npt.NDArray[np.bool_] | None = None
    """(n,) which are canaries: planted ones in forget, held-out ones in unseen. None: none are."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> IntArray:
        """(n,) int64."""
        return np.asarray(self.dataset.labels[self.rows])

    @property
    def digest(self) -> str:
        """Of content, labels, order and preprocessing."""
        own = hashlib.sha256(self.dataset.digest.encode())
        own.update(np.ascontiguousarray(self.rows, dtype="<i8").tobytes())
        return own.hexdigest()

    def id_of(self, position: int) -> str:
        """The id of the example at ``position`` of this split."""
        row = int(self.rows[position])
        return str(row) if self.dataset.ids is None else str(self.dataset.ids[row])


@dataclass(frozen=True)
class Copies:
    """Examples whose input content occurs on both sides."""

    forget_retain: int
    forget_unseen: int
    retain_unseen: int


def detect_scenario(forget: IntArray, retain: IntArray) -> Scenario:
    """``class`` if no class of the forget set is left in retain, ``partial-class`` if the forget
    set is a part of one class among others, else ``sample``: also where all examples are of one
    class, as texts without labels are."""
    classes = np.unique(forget)
    if not np.isin(classes, retain).any():
        return "class"
    several = len(np.union1d(classes, retain)) > 1
    return "partial-class" if several and len(classes) == 1 else "sample"


def mix_differs(forget: Split, unseen: Split) -> bool:
    """Whether unseen examples of the forget classes are mixed otherwise than the forget set, or
    hold another share of canaries, which no model expects.

    Then forget against unseen tells classes or oddities apart, not members from non-members, and
    the null value of AUC ½ does not hold.
    """
    sides = (forget, unseen)
    classes = np.unique(forget.labels)
    by_class = [[(side.labels == label).sum() for label in classes] for side in sides]
    if forget.canaries is None or _differ(by_class):
        return _differ(by_class)
    odd = [
        0 if s.canaries is None else int(s.canaries[np.isin(s.labels, classes)].sum())
        for s in sides
    ]
    return _differ([[sum(row) - count, count] for row, count in zip(by_class, odd, strict=True)])


def _differ(counts: list[list[int]]) -> bool:
    table = np.array(counts)
    return bool(((table[0] > 0) & (table[1] == 0)).any()) or same_mix_p(table) < MIX_P


def mark(
    splits: Mapping[SplitName, Split], canaries: Mapping[SplitName, IntArray]
) -> dict[SplitName, Split]:
    """The splits with their canaries marked.

    Args:
        splits: as cut.
        canaries: by split, rows of its data set.

    Raises:
        InputError: a canary is not in its split, for a training example has the same content.
    """
    marked = dict(splits)
    for name, rows in canaries.items():
        if not len(rows):
            continue
        split = splits[name]
        lost = np.setdiff1d(rows, split.rows)
        if len(lost):
            ids = split.dataset.ids
            first = str(lost[0]) if ids is None else str(ids[lost[0]])
            raise InputError(
                f"{split.dataset.name}: {len(lost)} of {len(rows)} canaries marked as held out are "
                f"in the training data as well (first: {quote(first)}); held-out canaries must "
                "never be trained on"
            )
        marked[name] = replace(split, canaries=np.isin(split.rows, rows))
    return marked


def swapped_classes(forget: Split, named: tuple[int | str, int | str] | None) -> tuple[int, int]:
    """The two classes between which the labels of the forget set were swapped, ascending.

    Args:
        forget: the mislabeled examples.
        named: the classes by number or name; None takes those of the forget set.

    Raises:
        UsageError: not named, and the forget set does not have exactly two.
        InputError: no such class, or a forget example is labeled otherwise.
    """
    labels = forget.labels
    if named is None:
        found = np.unique(labels)
        if len(found) != 2:
            raise UsageError(
                f"the forget set of the relabeling has labels of {len(found)} "
                f"{'class' if len(found) == 1 else 'classes'}, not of two; name the two whose "
                "labels were swapped: request.swapped = [0, 1]"
            )
        return int(found[0]), int(found[1])
    first, second = sorted(class_number(forget.dataset, name, "request.swapped") for name in named)
    odd = np.flatnonzero(~np.isin(labels, (first, second)))
    if len(odd):
        raise InputError(
            f"request.swapped names the classes {named[0]} and {named[1]}, but {len(odd)} forget "
            f"examples have other labels (first: {quote(forget.id_of(int(odd[0])))}); list only "
            "examples with swapped labels"
        )
    return first, second


def cut(
    train: Dataset, forget: IntArray, extra: Mapping[SplitName, Dataset]
) -> tuple[dict[SplitName, Split], Copies | None]:
    """Cut the data into splits and enforce that they are disjoint in content."""
    kept = np.setdiff1d(np.arange(len(train), dtype=np.int64), forget)
    splits: dict[SplitName, Split] = {
        "forget": Split("forget", train, forget),
        "retain": Split("retain", train, kept),
    }
    if isinstance(train, RecordedDataset):
        for name, dataset in extra.items():
            shared = np.intersect1d(_ids(train), _ids(dataset))
            if len(shared):
                raise InputError(
                    f"{len(shared)} ids are both in training data and in {name} "
                    f"(first: '{shared[0]:.60}'); splits must not overlap"
                )
            splits[name] = Split(name, dataset, np.arange(len(dataset), dtype=np.int64))
        return splits, None
    known = _content(train)
    in_unseen = (0, 0)
    for name, dataset in extra.items():
        own = _content(dataset)
        fresh = np.flatnonzero(~np.isin(own, known)).astype(np.int64)
        repeated = len(dataset) - len(fresh)
        if repeated > MAX_COPIES_IN_UNSEEN * len(dataset):
            raise InputError(
                f"{dataset.name}: {repeated} of {len(dataset)} {name} examples are also in the "
                f"training data; give examples that no model was trained on"
            )
        splits[name] = Split(name, dataset, fresh)
        if name == "unseen":
            in_unseen = (
                int(np.isin(known[forget], own).sum()),
                int(np.isin(known[kept], own).sum()),
            )
    if "unseen" in splits and "validation" in splits:
        held = _content(extra["validation"])[splits["validation"].rows]
        twice = int(np.isin(_content(extra["unseen"])[splits["unseen"].rows], held).sum())
        if twice:
            raise InputError(
                f"{extra['validation'].name}: {twice} unseen examples are also in the validation "
                "data; an unlearner may have used those, so give disjoint data"
            )
    copies = Copies(int(np.isin(known[forget], known[kept]).sum()), *in_unseen)
    return splits, copies


def _content(dataset: Dataset) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """(n,) one comparable value per example's content."""
    prints = np.ascontiguousarray(dataset.fingerprints())
    return prints.view([("low", "<u8"), ("high", "<u8")]).reshape(-1)


def _ids(dataset: Dataset) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.arange(len(dataset)).astype(np.str_) if dataset.ids is None else dataset.ids
