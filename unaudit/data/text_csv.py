"""Files of separated values, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import csv

from unaudit.data.arrow import reason_of
from unaudit.data.source import Source
from unaudit.text import quote

BLOCK_BYTES = 16 << 20
"""Longest line, and how much text is parsed at a time."""
SEPARATORS = {";": "semicolons", "|": "bars", "\t": "tabs", ",": "commas"}
"""What may separate columns in a file that is called otherwise."""
_REMEDIES = {
    "UTF8": "save it as UTF-8",
    "columns, got": "put values that hold a separator in double quotes",
}
"""By what the reader says."""


def csv_columns(source: Source) -> list[str]:
    """Names in the header.

    Raises:
        InputError: two are the same, or the columns are separated otherwise.
    """
    with open_separated(source, None) as reader:
        columns = list(reader.schema.names)
    if len(set(columns)) != len(columns):
        raise source.error("two columns have the same name; rename one")
    found = [name for mark, name in SEPARATORS.items() if mark in columns[0]]
    if len(columns) == 1 and found:
        raise source.error(
            f"its header is the one column {quote(columns[0], 60)}, with {found[0]} in it; "
            "separate columns with commas (.csv) or tabs (.tsv)"
        )
    return columns


@contextmanager
def open_separated(source: Source, columns: list[str] | None) -> Iterator[csv.CSVStreamingReader]:
    """The table, some rows at a time; ``columns``, if known, are left as text."""
    delimiter = "\t" if source.path.suffix.lower() == ".tsv" else ","
    kinds = None if columns is None else dict.fromkeys(columns, pa.string())
    try:
        with csv.open_csv(
            source.path,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
        ) as reader:
            yield reader
    except (pa.ArrowException, OSError) as error:
        reason = reason_of(error)
        remedy = next((words for mark, words in _REMEDIES.items() if mark in reason), "check it")
        raise source.error(f"not a table of separated values ({reason}); {remedy}") from None
