"""The data of a case: opened, and the rows in it that the request names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from unaudit.data import Dataset, locate, open_dataset
from unaudit.data.ids import ForgetList, read_forget_list
from unaudit.data.recorded import RecordedDataset
from unaudit.data.selection import selected_rows, selects
from unaudit.data.text_dataset import TextDataset, pad_alike
from unaudit.data.tokenize import tokenizer_digest
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray, SplitName
from unaudit.loading import LoadedModel, Model, RecordedModel, TextInput
from unaudit.plan import AuditPlan
from unaudit.text import plain
from unaudit.tokens import predicts_tokens

IdType = Literal["index", "key"]


def open_data(
    plan: AuditPlan, subject: Model, store: Store, text: TextInput | None = None
) -> tuple[Dataset, dict[SplitName, Dataset]]:
    """Training data, and what else there is by split.

    Args:
        plan: says where they are.
        subject: may bring outputs that were recorded.
        store: keeps what is made of them.
        text: how models of texts are fed.

    Raises:
        UsageError: no training data is named, or they lack the groups that are.
        InputError: a file cannot be used, or examples differ in shape.
    """
    data = plan.data
    if data.train is None and isinstance(subject, RecordedModel):
        recorded, others = _recorded_data(subject)
        _require_groups(recorded, data.group_column)
        return recorded, others
    if data.train is None:
        raise UsageError(
            "no training data given; add --train DATA or data.train in unaudit.toml "
            "(the data set that the forget ids refer to)"
        )

    def read(spec: str, classes: tuple[str, ...] | None = None) -> Dataset:
        found = open_dataset(spec, data, plan.preprocess, store, classes=classes, text=text)
        if text is not None and text.causal and not isinstance(found, TextDataset):
            raise UsageError(
                f"{plain(spec, 400)}: a language model reads texts; give jsonl, csv or parquet "
                "with a column of texts (data.text_column)"
            )
        return found

    train = read(data.train)
    _require_groups(train, data.group_column)
    named: tuple[tuple[SplitName, str | None], ...] = (
        ("unseen", data.unseen),
        ("validation", data.validation),
    )
    # named classes keep their training numbers, also where some of them are absent
    classes = train.classes or ()
    extra = {name: read(spec, classes) for name, spec in named if spec is not None}
    pad_alike([train, *extra.values()])
    for name, dataset in extra.items():
        _check_labeled(name, dataset, train)
        if dataset.input_shape != train.input_shape:
            raise InputError(
                f"{dataset.name}: {name} examples have shape {dataset.input_shape}, training "
                f"examples {train.input_shape}; set preprocess.resize or give matching data"
            )
    return train, extra


def _check_labeled(name: str, dataset: Dataset, train: Dataset) -> None:
    """Refuse texts of which some have labels and some have none: no label would pass for one."""
    if not (isinstance(dataset, TextDataset) and isinstance(train, TextDataset)):
        return
    if dataset.labeled != train.labeled:
        having, lacking = (dataset, train) if dataset.labeled else (train, dataset)
        raise InputError(
            f"{lacking.name}: has no labels, but {having.name} has; give {name} and training "
            "examples both a column of labels (data.label_column) or none"
        )


def _require_groups(train: Dataset, column: str | None) -> None:
    """Refuse a column of groups in data without columns; formats that have some look themselves."""
    if column is not None and train.groups is None:
        raise UsageError(
            f"{plain(train.name)}: data.group_column is '{plain(column, 60)}', but such data have "
            "no columns, only examples and labels; take it out, or give npz, parquet, csv or jsonl"
        )


def common_text(models: Mapping[str, Model], plan: AuditPlan) -> TextInput | None:
    """How all models of texts among these are fed; None where there are none.

    Args:
        models: by label, the subject first.
        plan: may name a tokenizer for all of them.

    Raises:
        UsageError: two of them read texts otherwise, or name their outputs otherwise, or some are
            language models and some are not.
    """
    _check_alike(models)
    texts = {
        label: model.text
        for label, model in models.items()
        if isinstance(model, LoadedModel) and model.text is not None
    }
    if not texts:
        return None
    first, own = next(iter(texts.items()))
    read_alike = plan.preprocess.tokenizer is None
    digest = tokenizer_digest(own.tokenizer)
    for label, other in texts.items():
        if read_alike and tokenizer_digest(other.tokenizer) != digest:
            raise UsageError(
                f"{label} has another tokenizer than {first}, so that the same text is not the "
                "same input; set preprocess.tokenizer to the one that all were trained with"
            )
        if own.labels and other.labels and other.labels != own.labels:
            raise UsageError(
                f"{label} names its outputs otherwise than {first} (id2label in config.json); all "
                "models need the same classes in the same order"
            )
    contexts = [text.context for text in texts.values() if text.context is not None]
    return replace(
        own,
        vocabulary=min(text.vocabulary for text in texts.values()),
        context=min(contexts, default=None),
        labels=next((text.labels for text in texts.values() if text.labels), None),
    )


def _check_alike(models: Mapping[str, Model]) -> None:
    """Refuse language models beside others: they do not answer the same question."""
    predicts = {
        label: isinstance(model, LoadedModel) and predicts_tokens(model.module)
        for label, model in models.items()
    }
    others = [label for label, causal in predicts.items() if not causal]
    if others and len(others) < len(predicts):
        first = next(label for label, causal in predicts.items() if causal)
        raise UsageError(
            f"{first} is a language model and {others[0]} is none; give models of one kind"
        )


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
    if selects(plan.request.forget):
        rows = selected_rows(plan.request.forget, train)
        return _some_retained(rows, plan.request.forget, train), id_type, ForgetList(())
    listed = read_forget_list(plan.request.forget)
    rows = np.sort(locate(listed.ids, train, id_type))
    return _some_retained(rows, plan.request.forget, train), id_type, listed


def _some_retained(rows: IntArray, named: str, train: Dataset) -> IntArray:
    if len(rows) == len(train):
        raise InputError(
            f"{named}: the forget ids cover all {len(train)} training examples; "
            "nothing would be left to retain"
        )
    return rows


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
