"""Parquet files: texts, encoded images, Hugging Face image columns, lists of numbers, numbers.

The inputs are a column of texts (see :mod:`unaudit.data.text_columns`), of images (``struct<bytes,
path>`` or plain binary), a column of lists of one shape, or, where no such column bears a usual
name, all numeric columns besides label and id in the file's order, as float32. Ids come from an
``id`` column; without one, examples are known by their position. Row groups are read as they are
needed, and the last few are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unaudit.data.array_dataset import ArrayDataset
from unaudit.data.arrow import (
    BadRowError,
    as_matrix,
    as_stack,
    is_image,
    is_list,
    is_number,
    is_text,
    number_type,
    plain_values,
    reason_of,
    shape_of_first,
)
from unaudit.data.dataset import Dataset
from unaudit.data.ids import as_groups, as_ids
from unaudit.data.image_dataset import ImageDataset
from unaudit.data.indexed import Index
from unaudit.data.labels import as_labels
from unaudit.data.preprocess import Preprocessor
from unaudit.data.source import (
    FORMATS,
    ID_NAMES,
    INPUT_NAMES,
    Format,
    Reading,
    Source,
    group_column,
    pick_column,
)
from unaudit.data.text_columns import label_column, open_texts, text_column
from unaudit.engine.store import content_key
from unaudit.evidence import IntArray
from unaudit.plan import DataSection
from unaudit.text import plain, quote

GROUPS_KEPT = 2
"""Rows mostly ascend, so a batch needs one row group or two neighbors."""

MAX_GROUP_BYTES = 1 << 30
"""Uncompressed inputs of one row group: what has to fit in memory, times ``GROUPS_KEPT``."""

ROWS_OF_TEXT = 1024
"""Texts that are read at a time."""

MAX_EXAMPLES = 100_000_000
"""Labels and ids are held in memory; a few bytes of run-length code can claim any number."""


def open_parquet(source: Source, reading: Reading) -> Dataset:
    """The data set in a parquet file.

    Raises:
        InputError: the file is damaged, or a column is missing or of the wrong kind.
    """
    data = reading.data
    try:
        file = pq.ParquetFile(source.path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise source.error(
            f"damaged or truncated parquet ({reason_of(error)}); write or copy it again"
        ) from None
    if not 0 < file.metadata.num_rows <= MAX_EXAMPLES:
        raise source.error(
            f"holds {file.metadata.num_rows} examples; give data with 1 to {MAX_EXAMPLES}"
        )
    names = list(file.schema_arrow.names)
    if len(set(names)) != len(names):
        raise source.error("two columns have the same name; rename one")
    label = label_column(source, names, reading)
    key = pick_column(source, names, data.id_column, ID_NAMES, "id_column")
    group = group_column(source, names, reading)
    labels = _values(source, file, label) if label else np.zeros(file.metadata.num_rows, np.int64)
    keys = _values(source, file, key) if key else None
    persons = _values(source, file, group) if group else None
    rest = [name for name in names if name not in (label, key, group)]
    schema = file.schema_arrow
    text = text_column(source, rest, reading, lambda name: is_text(schema.field(name).type))
    if text is not None:
        return open_texts(
            source,
            reading,
            columns=(text, label, key),
            labels=labels,
            keys=keys,
            groups=persons,
            texts=lambda: _texts(source, file, text),
        )
    inputs = _input_columns(source, file.schema_arrow, data, {label, key, group})
    ids = None if keys is None else as_ids(keys, source.spec)
    numbers, classes = as_labels(labels, source.spec, ids, reading.classes)
    content = content_key("parquet", file=source.sha256(), inputs=inputs, label=label, id=key)
    index = Index(numbers, ids, classes, content, as_groups(persons, source.spec))
    groups = RowGroups(source, file, inputs, index)
    if is_image(file.schema_arrow.field(inputs[0]).type):
        preprocessor = Preprocessor(reading.preprocess, "image")
        return ImageDataset(source, index, groups.images, preprocessor, reading.store)
    preprocessor = Preprocessor(reading.preprocess, "array")
    return ArrayDataset(source, index, NumberRows(groups), preprocessor, reading.store)


FORMATS.register("parquet")(
    Format(recognizes=lambda source: source.head.startswith(b"PAR1"), open=open_parquet)
)


class RowGroups:
    """The input columns of a parquet file, a row group at a time."""

    def __init__(
        self, source: Source, file: pq.ParquetFile, columns: list[str], index: Index
    ) -> None:
        self.source = source
        self.file = file
        self.columns = columns
        self.index = index
        kind = file.schema_arrow.field(columns[0]).type
        self._leaves = [f"{columns[0]}.bytes"] if pa.types.is_struct(kind) else columns
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self._check_sizes()

    def pieces(self, rows: IntArray) -> Iterator[tuple[IntArray, pa.Table]]:
        """The rows of each stretch that lies in one row group, and their inputs, in order."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(rows)]
        for first, last in pairwise(bounds):
            if first < last:
                part = rows[first:last]
                group = int(groups[first])
                local = part - self._starts[group]
                table = self._group(group)
                if len(local) == local[-1] - local[0] + 1 and (np.diff(local) == 1).all():
                    yield part, table.slice(int(local[0]), len(local))
                else:
                    yield part, table.take(pa.array(local))

    def images(self, rows: IntArray) -> Iterator[bytes]:
        """The encoded images at ``rows``."""
        for part, table in self.pieces(rows):
            column = table.column(0)
            if pa.types.is_struct(column.type):
                column = pc.struct_field(column, "bytes")
            for row, data in zip(part.tolist(), column.to_pylist(), strict=True):
                if data is None:
                    raise self.source.error(
                        f"{self.index.describe(row)} has no image bytes (a path at most); embed "
                        "the images in the file"
                    )
                yield data

    def _group(self, group: int) -> pa.Table:
        with self._lock:
            if group not in self._kept:
                while len(self._kept) >= GROUPS_KEPT:
                    self._kept.popitem(last=False)
                self._kept[group] = _read(self.source, self.file, group, self._leaves)
            self._kept.move_to_end(group)
            return self._kept[group]

    def _check_sizes(self) -> None:
        heads = tuple(f"{name}." for name in self.columns)
        for group in range(self.file.num_row_groups):
            part = self.file.metadata.row_group(group)
            size = sum(
                part.column(leaf).total_uncompressed_size
                for leaf in range(part.num_columns)
                if f"{part.column(leaf).path_in_schema}.".startswith(heads)
            )
            if size > MAX_GROUP_BYTES:
                raise self.source.error(
                    f"row group {group} holds {size >> 20} MiB of inputs, which must fit in "
                    "memory; write the file with smaller row groups (row_group_size=1000)"
                )


class NumberRows:
    """Lists of numbers or plain columns as rows of an array."""

    def __init__(self, groups: RowGroups) -> None:
        self._groups = groups
        column = groups.columns[0]
        kind = groups.file.schema_arrow.field(column).type
        self._nested = is_list(kind)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        example: tuple[int, ...] = (len(groups.columns),)
        if self._nested:
            _, first = next(groups.pieces(np.zeros(1, dtype=np.int64)))
            example = shape_of_first(first.column(0))
            self.dtype = cast("np.dtype[Any]", number_type(kind))
            if 0 in example:
                raise groups.source.error(
                    f"{groups.index.describe(0)} has an empty list in column {quote(column)}; all "
                    "examples need one shape"
                )
        self.shape: tuple[int, ...] = (len(groups.index.labels), *example)

    def read(self, rows: IntArray) -> npt.NDArray[Any]:
        result = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        done = 0
        for part, table in self._groups.pieces(rows):
            try:
                values = (
                    as_stack(table.column(0), self.shape[1:])
                    if self._nested
                    else as_matrix(table.select(self._groups.columns))
                )
            except BadRowError as problem:
                who = self._groups.index.describe(int(part[problem.row]))
                raise self._groups.source.error(f"{who} {problem}") from None
            result[done : done + len(part)] = values
            done += len(part)
        return result


def _input_columns(
    source: Source, schema: pa.Schema, data: DataSection, taken: set[str | None]
) -> list[str]:
    names = [name for name in schema.names if name not in taken]
    kinds = {name: schema.field(name).type for name in names}
    rich = [name for name in names if is_image(kinds[name]) or is_list(kinds[name])]
    found = pick_column(
        source,
        names if data.input_column else rich,
        data.input_column,
        INPUT_NAMES,
        "input_column",
    )
    columns = names if found is None else [found]
    for name in columns:
        fine = is_number(kinds[name])
        if found is not None:
            fine = is_image(kinds[name]) or number_type(kinds[name]) is not None
        if not fine:
            raise source.error(
                f"column {quote(name)} holds {plain(kinds[name], 40)}, which is neither images nor "
                "numbers; set data.input_column or take it out"
                if found
                else f"column {quote(name)} holds {plain(kinds[name], 40)}, not numbers; name the "
                "inputs with data.input_column, or take the column out"
            )
    if not columns:
        raise source.error("no columns besides label and id; there are no inputs")
    return columns


def _values(
    source: Source, file: pq.ParquetFile, name: str
) -> npt.NDArray[np.generic] | list[object]:
    """A column of labels, ids or groups, whole."""
    parts = [_read(source, file, group, [name]).column(0) for group in range(file.num_row_groups)]
    values = plain_values(pa.chunked_array([chunk for part in parts for chunk in part.chunks]))
    if len(values) != file.metadata.num_rows:
        raise source.error("damaged parquet (columns of different length); write it again")
    return values


def _texts(source: Source, file: pq.ParquetFile, name: str) -> Iterator[list[object]]:
    """A column of texts, some rows at a time."""
    try:
        for batch in file.iter_batches(ROWS_OF_TEXT, columns=[name], use_threads=False):
            yield batch.column(0).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise source.error(
            f"damaged parquet ({reason_of(error)}); write or copy it again"
        ) from None


def _read(source: Source, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    try:
        return file.read_row_group(group, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise source.error(
            f"damaged parquet, row group {group} ({reason_of(error)}); write or copy it again"
        ) from None
