"""Whose record an example is: read alike from every format that has columns, never an input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.complaints import complaint_about
from tests.data.conftest import Opener, Tiny
from tests.data.writers import Encode, write_folder
from tests.hugging_face import trained_tokenizer, words
from unaudit.case_data import open_data
from unaudit.data.ids import as_groups
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.plan import AuditPlan

X = np.arange(10, dtype=np.float32).reshape(5, 2)
PEOPLE = ("ann", "bob", "ann", "cy", "bob")
NUMBERS = (7, 30, 7, 1, 30)
NAMED = {"group_column": "person"}
Table = dict[str, Sequence[Any]]
Writer = Callable[[Path, Table], Path]


def table_of(people: Iterable[Any] = PEOPLE, **more: Sequence[Any]) -> Table:
    """A column of groups in the midst of the inputs."""
    return {"a": X[:, 0].tolist(), "person": list(people), "b": X[:, 1].tolist(),
            "label": [0, 1, 0, 1, 0], **more}  # fmt: skip


def write_npz(folder: Path, table: Table) -> Path:
    columns: dict[str, Any] = {name: table[name] for name in table if name not in ("a", "b")}
    np.savez(folder / "d.npz", x=X, **columns)
    return folder / "d.npz"


def write_parquet(folder: Path, table: Table) -> Path:
    pq.write_table(pa.table(dict(table)), folder / "d.parquet", row_group_size=2)
    return folder / "d.parquet"


def write_csv(folder: Path, table: Table) -> Path:
    with (folder / "d.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    return folder / "d.csv"


def write_jsonl(folder: Path, table: Table) -> Path:
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    (folder / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / "d.jsonl"


every_format = pytest.mark.parametrize(
    "write", [write_npz, write_parquet, write_csv, write_jsonl], ids=lambda write: write.__name__
)


@every_format
@pytest.mark.parametrize("people", [PEOPLE, NUMBERS], ids=["texts", "numbers"])
def test_groups_are_read_and_are_no_inputs(
    write: Writer, people: tuple[Any, ...], tmp_path: Path, opened: Opener, everything: Any
) -> None:
    found = opened(write(tmp_path, table_of(people)), NAMED)
    assert found.groups is not None
    assert found.groups.tolist() == [str(one) for one in people]
    np.testing.assert_array_equal(everything(found), X)


@every_format
def test_without_the_key_nothing_is_read_as_groups(
    write: Writer, tmp_path: Path, opened: Opener, everything: Any
) -> None:
    found = opened(write(tmp_path, table_of(NUMBERS)))
    assert found.groups is None
    if write is not write_npz:
        assert found.input_shape == (3,), "a column like any other"


@every_format
def test_missing_groups_are_refused(write: Writer, tmp_path: Path, opened: Opener) -> None:
    path = write(tmp_path, table_of(("ann", "bob", "", "cy", "bob")))
    complaint = complaint_about(opened, path, NAMED)
    assert "the group of example 2 is missing; check data.group_column" in complaint


@every_format
def test_a_column_that_is_not_there_is_refused_with_what_is(
    write: Writer, tmp_path: Path, opened: Opener
) -> None:
    path = write(tmp_path, table_of())
    complaint = complaint_about(opened, path, {"group_column": "patient"})
    assert "no column or array 'patient' (found: " in complaint
    assert "'person'" in complaint
    assert "correct data.group_column" in complaint


@every_format
def test_further_data_may_lack_it(write: Writer, tmp_path: Path, opened: Opener) -> None:
    table = table_of()
    del table["person"]
    found = opened(write(tmp_path, table), NAMED, classes=())
    assert found.groups is None
    assert found.input_shape == (2,)


def test_groups_that_are_no_names_are_refused(tmp_path: Path, opened: Opener) -> None:
    path = write_npz(tmp_path, table_of((0.5, 1.0, 2.0, 1.0, 2.0)))
    assert "group of example 0 is '0.5', neither text nor" in complaint_about(opened, path, NAMED)
    np.savez(path, x=X, label=[0, 1, 0, 1, 0], person=["ann"] * 4)
    assert "array 'person' has shape (4,)" in complaint_about(opened, path, NAMED)
    with pytest.raises(InputError, match=r"d: the group of example 1 holds control characters"):
        as_groups(["ann", "b\tob"], "d")


def test_a_line_without_the_key_is_refused(tmp_path: Path, opened: Opener) -> None:
    path = write_jsonl(tmp_path, table_of())
    path.write_text(path.read_text().replace(', "person": "cy"', ""))
    assert "example 3 has no 'person'" in complaint_about(opened, path, NAMED)


@pytest.mark.parametrize("write", [write_parquet, write_csv, write_jsonl])
def test_texts_have_groups(write: Writer, tmp_path: Path, opened: Opener) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    trained_tokenizer(words()).save(str(tokenizer))
    table: Table = {"text": ["w1", "w2", "w3", "w1 w2", "w4"], "label": [0, 1, 0, 1, 0]}
    path = write(tmp_path, {**table, "person": PEOPLE})
    found = opened(path, NAMED, {"tokenizer": str(tokenizer), "max_length": 8})
    assert found.groups is not None
    assert found.groups.tolist() == list(PEOPLE)
    assert len(found.input_shape) == 1


@pytest.mark.parametrize("key", ["input_column", "text_column"])
def test_groups_cannot_be_inputs(key: str) -> None:
    with pytest.raises(UsageError, match="group_column names the inputs"):
        AuditPlan.build({"data": {"group_column": "a", key: "a"}})


def test_groups_decide_no_batch(tmp_path: Path, opened: Opener) -> None:
    path = write_npz(tmp_path, table_of())
    assert opened(path).digest == opened(path, NAMED).digest


def data_of(folder: Path, train: Path, unseen: Path | None = None, **data: Any) -> Any:
    given = {"train": str(train), **data}
    if unseen is not None:
        given["unseen"] = str(unseen)
    plan = AuditPlan.build({"data": given})
    return open_data(plan, cast(Any, object()), Store(folder / "store"))


def test_unseen_examples_may_go_without_groups(tmp_path: Path) -> None:
    train = write_npz(tmp_path, table_of())
    np.savez(tmp_path / "unseen.npz", x=X + 100, label=[0, 1, 0, 1, 0])
    found, extra = data_of(tmp_path, train, tmp_path / "unseen.npz", **NAMED)
    assert found.groups is not None
    assert extra["unseen"].groups is None


def test_training_data_without_columns_have_no_groups(
    tmp_path: Path, tiny: Tiny, encode: Encode
) -> None:
    folder = write_folder(tmp_path, tiny, encode)
    with pytest.raises(UsageError, match=r"^d: data.group_column is 'person', but such data"):
        data_of(tmp_path, folder, **NAMED)
    train, _ = data_of(tmp_path, folder)
    assert train.groups is None
