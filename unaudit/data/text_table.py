"""Tables as text: CSV with a header line, and JSON lines.

The inputs are a column of texts (see :mod:`unaudit.data.text_columns`), one column of lists (JSON
lines only, lists may be nested), or all columns besides label and id, which must then be numbers;
stored values are taken as float32. The file is parsed in a stream and the inputs are kept as an
array in the store. Ids come from an ``id`` column; without one, examples are known by their
position.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from unaudit.data.array_dataset import ArrayDataset
from unaudit.data.arrow import BadRowError, parse_numbers
from unaudit.data.dataset import Dataset
from unaudit.data.ids import as_groups, as_ids
from unaudit.data.indexed import Index
from unaudit.data.labels import as_labels
from unaudit.data.preprocess import Preprocessor
from unaudit.data.rows import rows_of
from unaudit.data.source import (
    FORMATS,
    ID_NAMES,
    INPUT_NAMES,
    Format,
    Reading,
    Source,
    group_column,
    need_column,
    pick_column,
)
from unaudit.data.text_columns import label_column, open_text_rows, text_column
from unaudit.data.text_csv import BLOCK_BYTES, csv_columns, open_separated
from unaudit.engine.store import content_key
from unaudit.text import plain, quote


@dataclass(frozen=True)
class Table:
    """Which columns of a text table are what."""

    label: str
    key: str | None
    inputs: list[str]
    shape: tuple[int, ...]
    """Of one example."""
    group: str | None = None


@dataclass(eq=False)
class Block:
    """Some rows of a text table."""

    labels: list[object] = field(default_factory=list)
    keys: list[object] = field(default_factory=list)
    inputs: list[npt.NDArray[np.float32]] = field(default_factory=list)
    """Arrays of some examples each: (…, *shape)."""
    groups: list[object] = field(default_factory=list)


def open_csv(source: Source, reading: Reading) -> Dataset:
    """The data set in a ``.csv`` or ``.tsv`` file.

    Raises:
        InputError: the text is no table, or a column is missing or of the wrong kind.
    """
    columns = csv_columns(source)
    data = reading.data
    label = label_column(source, columns, reading)
    key = pick_column(source, columns, data.id_column, ID_NAMES, "id_column")
    group = group_column(source, columns, reading)
    inputs = [name for name in columns if name not in (label, key, group)]
    text = text_column(source, inputs, reading, lambda _: True)
    if text is not None:
        return open_text_rows(
            source, reading, (text, label, key), lambda: _csv_rows(source, columns), group
        )
    assert label is not None  # only texts may lack labels
    if data.input_column is not None:
        # not pick_column's usual names: in a CSV, a column called x is one feature of several
        inputs = [need_column(source, columns, data.input_column, (), "input_column")]
    if not inputs:
        raise source.error("no columns besides label and id; there are no inputs")
    table = Table(label, key, inputs, (len(inputs),), group)
    return _dataset(source, reading, table, lambda: _csv_blocks(source, table, columns))


def open_jsonl(source: Source, reading: Reading) -> Dataset:
    """The data set in a ``.jsonl`` file: one JSON object per line.

    Raises:
        InputError: a line is no JSON object, or a key is missing or of the wrong kind.
    """
    first = next(_json_objects(source), None)
    if first is None:
        raise source.error("holds no examples; give data with at least one")
    data = reading.data
    columns = list(first)
    label = label_column(source, columns, reading)
    key = pick_column(source, columns, data.id_column, ID_NAMES, "id_column")
    group = group_column(source, columns, reading)
    rest = [name for name in columns if name not in (label, key, group)]
    text = text_column(source, rest, reading, lambda name: isinstance(first[name], str))
    if text is not None:
        return open_text_rows(
            source, reading, (text, label, key), lambda: _json_objects(source), group
        )
    assert label is not None  # only texts may lack labels
    lists = columns if data.input_column else [n for n in rest if isinstance(first[n], list)]
    found = pick_column(source, lists, data.input_column, INPUT_NAMES, "input_column")
    inputs = rest if found is None else [found]
    for name in inputs:
        if not isinstance(first[name], (int, float, *((list,) if found else ()))):
            raise source.error(
                f"column {quote(name)} holds {quote(first[name], 30)}, not numbers; name the "
                "inputs with data.input_column, or take the column out"
            )
    if not inputs:
        raise source.error("no columns besides label and id; there are no inputs")
    try:
        shape = _json_inputs(first, inputs).shape
    except ValueError as error:
        raise source.error(f"example 0 {error}; check data.input_column") from None
    table = Table(label, key, inputs, shape, group)
    return _dataset(source, reading, table, lambda: _json_blocks(source, table))


def _has_suffix(source: Source, *suffixes: str) -> bool:
    """Text of two kinds looks alike; only here does a file's name decide."""
    return b"\0" not in source.head and source.path.suffix.lower() in suffixes


FORMATS.register("csv")(
    Format(recognizes=lambda source: _has_suffix(source, ".csv", ".tsv"), open=open_csv)
)
FORMATS.register("jsonl")(
    Format(recognizes=lambda source: _has_suffix(source, ".jsonl", ".ndjson"), open=open_jsonl)
)


def _dataset(
    source: Source, reading: Reading, table: Table, blocks: Callable[[], Iterator[Block]]
) -> Dataset:
    labels: list[object] = []
    keys: list[object] = []
    persons: list[object] = []
    for block in blocks():
        labels += block.labels
        keys += block.keys
        persons += block.groups
    ids = None if table.key is None else as_ids(keys, source.spec)
    numbers, classes = as_labels(labels, source.spec, ids, reading.classes)
    content = content_key(
        "text table",
        file=source.sha256(),
        inputs=table.inputs,
        label=table.label,
        id=table.key,
        suffix=source.path.suffix.lower(),
    )

    def fill(array: npt.NDArray[Any]) -> None:
        done = 0
        for block in blocks():
            for inputs in block.inputs:
                array[done : done + len(inputs)] = inputs
                done += len(inputs)
        source.check_unchanged()

    shape = (len(numbers), *table.shape)
    array = reading.store.array(
        content_key("text inputs", content=content), shape, np.float32, fill
    )
    preprocessor = Preprocessor(reading.preprocess, "array")
    groups = as_groups(None if table.group is None else persons, source.spec)
    index = Index(numbers, ids, classes, content, groups)
    return ArrayDataset(source, index, rows_of(array), preprocessor, reading.store)


def _csv_rows(source: Source, columns: list[str]) -> Iterator[dict[str, Any]]:
    with open_separated(source, columns) as reader:
        for batch in reader:
            yield from batch.to_pylist()


def _csv_blocks(source: Source, table: Table, columns: list[str]) -> Iterator[Block]:
    done = 0
    with open_separated(source, columns) as reader:
        for batch in reader:
            try:
                inputs = [
                    parse_numbers(pa.chunked_array([batch.column(name)]), name)
                    for name in table.inputs
                ]
            except BadRowError as problem:
                raise source.error(f"example {done + problem.row} {problem}") from None
            yield Block(
                labels=batch.column(table.label).to_pylist(),
                keys=[] if table.key is None else batch.column(table.key).to_pylist(),
                inputs=[np.stack(inputs, axis=1)],
                groups=[] if table.group is None else batch.column(table.group).to_pylist(),
            )
            done += batch.num_rows


def _json_blocks(source: Source, table: Table) -> Iterator[Block]:
    for number, row in enumerate(_json_objects(source)):
        names = (table.label, table.key, table.group, *table.inputs)
        missing = [name for name in names if name is not None and name not in row]
        if missing:
            raise source.error(f"example {number} has no {quote(missing[0])}; give it in each line")
        try:
            inputs = _json_inputs(row, table.inputs)
        except ValueError as error:
            raise source.error(f"example {number} {error}; check data.input_column") from None
        if inputs.shape != table.shape:
            raise source.error(
                f"example {number} has inputs of shape {inputs.shape}, the first has "
                f"{table.shape}; all examples need one shape"
            )
        yield Block(
            labels=[row[table.label]],
            keys=[] if table.key is None else [row[table.key]],
            inputs=[inputs[None]],
            groups=[] if table.group is None else [row[table.group]],
        )


def _json_inputs(row: dict[str, Any], columns: list[str]) -> npt.NDArray[np.float32]:
    """One example's inputs.

    Raises:
        ValueError: they are no numbers, or lists of different length.
    """
    values = [row[name] for name in columns]
    try:
        array = np.asarray(values[0] if isinstance(values[0], list) else values)
    except ValueError:
        raise ValueError("has lists of different length") from None
    if array.dtype.kind not in "biuf" or not array.size:
        raise ValueError("has inputs that are not numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _json_objects(source: Source) -> Iterator[dict[str, Any]]:
    number = 0
    with source.path.open("rb") as file:
        while line := file.readline(BLOCK_BYTES + 1):
            number += 1
            if len(line) > BLOCK_BYTES:
                raise source.error(f"line {number} is longer than {BLOCK_BYTES >> 20} MiB")
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                row = json.loads(text.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise source.error(
                    f"line {number} is not JSON ({plain(error, 80)}); write one object per line"
                ) from None
            if not isinstance(row, dict):
                raise source.error(f"line {number} is not a JSON object; write one per line")
            yield row
