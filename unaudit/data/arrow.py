"""Arrow columns to NumPy: nothing missing, everything of one shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from unaudit.text import plain, quote


class BadRowError(Exception):
    """Why a row cannot be used; whoever knows its id turns this into an InputError."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        """Position in what was converted."""


def is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_image(kind: pa.DataType) -> bool:
    """Encoded images: bare bytes, or Hugging Face's ``struct<bytes, path>``."""
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and is_binary(kind.field(position).type)
    return is_binary(kind)


def is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def number_type(kind: pa.DataType) -> np.dtype[Any] | None:
    """NumPy type of the numbers inside (nested lists of) ``kind``, None if they are no numbers."""
    while is_list(kind):
        kind = kind.value_type
    return np.dtype(kind.to_pandas_dtype()) if is_number(kind) else None


def shape_of_first(column: pa.ChunkedArray) -> tuple[int, ...]:
    """Lengths of the nested lists in the first row; 0 where something is missing or empty."""
    array = _one_array(column.slice(0, 1))
    shape: list[int] = []
    while is_list(array.type):
        length = pc.list_value_length(array.slice(0, 1))[0].as_py() if len(array) else 0
        shape.append(length or 0)
        array = array.slice(0, 1).flatten()
    return tuple(shape)


def as_stack(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """(k, *shape) values of a column of nested lists.

    Raises:
        BadRowError: something is missing, or a row has another shape.
    """
    array = _one_array(column)
    count = len(array)
    for depth, size in enumerate(shape):
        _refuse_missing(array, math.prod(shape[:depth]), "has missing values; fill or remove it")
        lengths = np.asarray(pc.list_value_length(array))
        odd = np.flatnonzero(lengths != size)
        if len(odd):
            raise BadRowError(
                int(odd[0]) // math.prod(shape[:depth]),
                f"has a list of {lengths[odd[0]]} values where the first example has {size}; all "
                "examples need one shape",
            )
        array = array.flatten()
    _refuse_missing(array, math.prod(shape), "has missing values; fill or remove it")
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.reshape(count, *shape)


def as_matrix(table: pa.Table) -> npt.NDArray[np.float32]:
    """(k, columns) float32 values of numeric columns.

    Raises:
        BadRowError: a value is missing.
    """
    matrix = np.empty((table.num_rows, table.num_columns), dtype=np.float32)
    for position, name in enumerate(table.column_names):
        array = _one_array(table.column(position))
        _refuse_missing(array, 1, f"has no value in column {quote(name)}; fill or remove it")
        with np.errstate(over="ignore"):
            matrix[:, position] = array.to_numpy(zero_copy_only=False)
    return matrix


def parse_numbers(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float32]:
    """(k,) float32 values of a column of text.

    Raises:
        BadRowError: a text is no number.
    """
    trimmed = pc.utf8_trim_whitespace(column)
    try:
        numbers = pc.cast(trimmed, pa.float64())
    except pa.ArrowInvalid:
        texts = trimmed.to_pylist()
        row = next(row for row, text in enumerate(texts) if not _is_number(text))
        what = f"{quote(texts[row])} in column" if texts[row] else "no value in column"
        raise BadRowError(
            row, f"has {what} {quote(name)}, which must hold numbers; check the data section"
        ) from None
    with np.errstate(over="ignore"):
        return np.asarray(numbers.to_numpy(), dtype=np.float64).astype(np.float32)


def plain_values(column: pa.ChunkedArray) -> npt.NDArray[np.generic] | list[object]:
    """Values of a label or id column: numbers as an array, anything else as a list."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_number(column.type) and not column.null_count:
        return np.asarray(column.to_numpy())
    return list(column.to_pylist())


def reason_of(error: Exception) -> str:
    """Arrow's complaint as one short line; it may quote the data."""
    return plain(error, 100)


def _is_number(text: str) -> bool:
    try:
        pc.cast(pa.scalar(text, pa.string()), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _refuse_missing(array: pa.Array, per_row: int, reason: str) -> None:
    if array.null_count:
        first = int(np.flatnonzero(np.asarray(array.is_null()))[0])
        raise BadRowError(first // per_row, reason)
