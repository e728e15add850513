"""Splits of the data: cut, disjoint, and what scenario they amount to.

forget       to be removed
retain       the rest of the training data
unseen       never trained on by anyone
validation   never trained on, but an unlearner may have used it; no metric's non-members
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unaudit.data import Dataset
from unaudit.data.recorded import RecordedDataset
from unaudit.errors import InputError
from unaudit.evidence import IntArray, Scenario, SplitName
from unaudit.stats import same_mix_p

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
    set is a part of one class, else ``sample``."""
    classes = np.unique(forget)
    if not np.isin(classes, retain).any():
        return "class"
    return "partial-class" if len(classes) == 1 else "sample"


def mix_differs(forget: Split, unseen: Split) -> bool:
    """Whether unseen examples of the forget classes are mixed otherwise than the forget set.

    Then forget against unseen tells classes apart, not members from non-members, and the null value
    of AUC ½ does not hold.
    """
    classes = np.unique(forget.labels)
    counts = np.array([[(s.labels == c).sum() for c in classes] for s in (forget, unseen)])
    return bool((counts[1] == 0).any()) or same_mix_p(counts) < MIX_P


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
