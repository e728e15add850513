"""The data of a case: opened, and the rows in it that the request names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from unaudit.data import Dataset, locate, open_dataset
from unaudit.data.ids import ForgetList, read_forget_list
from unaudit.data.recorded import RecordedDataset
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray, SplitName
from unaudit.loading import Model, RecordedModel
from unaudit.plan import AuditPlan

IdType = Literal["index", "key"]


def open_data(
    plan: AuditPlan, subject: Model, store: Store
) -> tuple[Dataset, dict[SplitName, Dataset]]:
    """Training data, and what else there is by split.

    Raises:
        UsageError: no training data is named.
        InputError: a file cannot be used, or examples differ in shape.
    """
    data = plan.data
    if data.train is None and isinstance(subject, RecordedModel):
        return _recorded_data(subject)
    if data.train is None:
        raise UsageError(
            "no training data given; add --train DATA or data.train in unaudit.toml "
            "(the data set that the forget ids refer to)"
        )

    def read(spec: str, classes: tuple[str, ...] | None = None) -> Dataset:
        return open_dataset(spec, data, plan.preprocess, store, classes=classes)

    train = read(data.train)
    named: tuple[tuple[SplitName, str | None], ...] = (
        ("unseen", data.unseen),
        ("validation", data.validation),
    )
    # named classes keep their training numbers, also where some of them are absent
    classes = train.classes or ()
    extra = {name: read(spec, classes) for name, spec in named if spec is not None}
    for name, dataset in extra.items():
        if dataset.input_shape != train.input_shape:
            raise InputError(
                f"{dataset.name}: {name} examples have shape {dataset.input_shape}, training "
                f"examples {train.input_shape}; set preprocess.resize or give matching data"
            )
    return train, extra


def _recorded_data(subject: RecordedModel) -> tuple[Dataset, dict[SplitName, Dataset]]:
    recorded = subject.splits

    def dataset(*names: str) -> Dataset:
        parts = [recorded[name] for name in names]
        return RecordedDataset(
            subject.provenance.name,
            tuple(example for part in parts for example in part.ids),
            np.concatenate([part.labels for part in parts]),
            hashlib.sha256(f"{subject.digest}:{names}".encode()).hexdigest(),
        )

    train = dataset("train") if "train" in recorded else dataset("forget", "retain")
    others: tuple[SplitName, ...] = ("unseen", "validation")
    return train, {name: dataset(name) for name in others if name in recorded}


def forget_rows(
    plan: AuditPlan, train: Dataset, subject: Model
) -> tuple[IntArray, IdType, ForgetList]:
    """Positions of the forget examples in the training data, ascending, and their list.

    Raises:
        UsageError: no forget ids are given.
        InputError: an id is not in the training data, or all of it is to be forgotten.
    """
    id_type: IdType = plan.data.id_type or train.default_id_type
    recorded = subject.splits if isinstance(subject, RecordedModel) else {}
    if plan.request.forget is None:
        if isinstance(train, RecordedDataset) and "forget" in recorded:
            rows = np.arange(len(recorded["forget"].labels), dtype=np.int64)
            return rows, "key", ForgetList(recorded["forget"].ids)
        raise UsageError(
            "no forget ids given; add --forget IDS or request.forget in unaudit.toml "
            "(one id per line)"
        )
    listed = read_forget_list(plan.request.forget)
    rows = np.sort(locate(listed.ids, train, id_type))
    if len(rows) == len(train):
        raise InputError(
            f"{plan.request.forget}: the forget ids cover all {len(train)} training examples; "
            "nothing would be left to retain"
        )
    return rows, id_type, listed


def canary_rows(
    plan: AuditPlan, listed: ForgetList, train: Dataset, extra: Mapping[SplitName, Dataset]
) -> dict[SplitName, IntArray]:
    """Rows of the planted canaries in the training data and of the others in the unseen data.

    Raises:
        UsageError: canaries were held out, and there are no unseen data.
        InputError: a canary is in neither.
    """
    found: dict[SplitName, IntArray] = {}
    if listed.canaries:
        found["forget"] = locate(listed.canaries, train, plan.data.id_type)
    if listed.held_out:
        if "unseen" not in extra:
            raise UsageError(
                f"{plan.request.forget}: lists canaries that were held out, but there are no "
                "unseen examples among which they would be; add --unseen"
            )
        unseen = extra["unseen"]
        id_type = plan.data.id_type or unseen.default_id_type
        found["unseen"] = locate(
            listed.held_out, unseen, id_type, what="held-out canary", where="unseen"
        )
    return found
