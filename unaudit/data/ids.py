"""Ids of examples: those in the data, and those on the list of what is to be forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from unaudit.data.dataset import Dataset
from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray
from unaudit.text import plain, quote

MAX_ID_CHARACTERS = 1024
MAX_LINE_BYTES = 4 * MAX_ID_CHARACTERS + 64
"""UTF-8 takes at most four bytes for a character; the rest is for blanks and the line's end."""

# ASCII only and one spelling per row: int() also takes '1_0', '+5' and digits of other scripts
_INDEX = re.compile(r"0|[1-9][0-9]*")


def read_ids(path: str | Path) -> tuple[str, ...]:
    """Forget ids: one per line, in the order of the file.

    Blanks around an id, blank lines, CRLF line ends and a byte order mark do no harm. A line whose
    first mark is ``#`` is a comment; a ``#`` further on belongs to the id.

    Raises:
        InputError: the file cannot be read, is not UTF-8, holds no id, repeats one, or has a line
            that no id can be.
    """
    shown = plain(path, 400)
    lines: dict[str, int] = {}
    for number, line in enumerate(_lines(path, shown), start=1):
        entry = line.removeprefix("\ufeff").strip() if number == 1 else line.strip()
        if not entry or entry.startswith("#"):
            continue
        problem = _problem(entry)
        if problem is not None:
            raise InputError(f"{shown}: line {number} {problem}; write one id per line")
        first = lines.setdefault(entry, number)
        if first != number:
            raise InputError(
                f"{shown}: line {number} repeats the id {quote(entry)} of line {first}; "
                "list each id once"
            )
    if not lines:
        raise InputError(
            f"{shown}: no forget ids in the file; write one per line (lines that start with # are "
            "comments)"
        )
    return tuple(lines)


def _lines(path: str | Path, shown: str) -> list[str]:
    lines: list[str] = []
    try:
        with Path(path).open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise InputError(
                        f"{shown}: line {len(lines) + 1} is longer than {MAX_LINE_BYTES} bytes; "
                        "write one id per line"
                    )
                lines.append(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(
            f"{shown}: line {len(lines) + 1} is not UTF-8; save the file as UTF-8 text"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{shown}: no such file; check --forget") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shown}: cannot be read ({reason}); check --forget") from None
    return lines


def locate(
    ids: Sequence[str], dataset: Dataset, id_type: Literal["index", "key"] | None = None
) -> IntArray:
    """The rows of ``ids`` in ``dataset``, in the order of ``ids``: (len(ids),) int64.

    ``id_type`` None takes the data set's default: ``key`` where it has ids, else ``index``.

    Raises:
        UsageError: keys are asked for, but the data has none that can be written on a list.
        InputError: an id is unknown, not an index, out of range or names a row twice.
    """
    if not len(ids):
        raise InputError("there are no forget ids; list at least one")
    rows = (
        _by_index(ids, len(dataset))
        if (id_type or dataset.default_id_type) == "index"
        else _by_key(ids, dataset)
    )
    if len(np.unique(rows)) != len(rows):
        raise InputError("a forget id is listed twice; list each id once")
    return rows


def _by_index(ids: Sequence[str], count: int) -> IntArray:
    for entry in ids:
        if not _INDEX.fullmatch(entry):
            raise InputError(
                f"forget id {quote(entry)} is not an index (digits only, no leading zero, counted "
                "from 0); check --id-type"
            )
    # longer than any row number can be: int() is never asked to parse an endless line
    numbers = [int(entry) if len(entry) < 19 else count for entry in ids]
    beyond = [entry for entry, number in zip(ids, numbers, strict=True) if number >= count]
    if beyond:
        raise InputError(
            f"{_count(len(beyond), 'forget index is', 'forget indexes are')} out of range (first: "
            f"{plain(beyond[0], 40)}, the training data has rows 0 to {count - 1}); check --id-type"
        )
    return np.array(numbers, dtype=np.int64)


def _by_key(ids: Sequence[str], dataset: Dataset) -> IntArray:
    if dataset.ids is None:
        raise UsageError(
            f"{dataset.name}: the data has no ids, so forget ids cannot be keys; use --id-type "
            "index, or name the column with data.id_column"
        )
    keys = [str(key) for key in dataset.ids]
    for key in keys:
        if key.startswith("#") or key != key.strip():
            raise UsageError(
                f"{dataset.name}: the id {quote(key)} starts with # or has blanks at its "
                "ends, which a list of ids cannot express; use --id-type index"
            )
    row_of = {key: row for row, key in enumerate(keys)}
    unknown = [entry for entry in ids if entry not in row_of]
    if unknown:
        raise InputError(
            f"{_count(len(unknown), 'forget id is', 'forget ids are')} not in the training data "
            f"(first: {quote(unknown[0])}); check --id-type"
        )
    return np.array([row_of[entry] for entry in ids], dtype=np.int64)


def as_ids(values: Iterable[object], shown: str) -> npt.NDArray[np.str_]:
    """(n,) ids of a data set; whole numbers become their decimal digits.

    Raises:
        InputError: an id is missing, repeated, too long, not text, or holds control characters.
    """
    texts: list[str] = []
    for row, value in enumerate(values):
        if isinstance(value, (np.str_, np.integer)):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            what = (
                "missing" if value is None else f"{quote(value)}, neither text nor a whole number"
            )
            raise InputError(f"{shown}: the id of example {row} is {what}; check data.id_column")
        text = str(value)
        problem = _problem(text) if text else "is missing"
        if problem is not None:
            raise InputError(f"{shown}: the id of example {row} {problem}; check data.id_column")
        texts.append(text)
    if len(set(texts)) != len(texts):
        seen: dict[str, int] = {}
        for row, text in enumerate(texts):
            first = seen.setdefault(text, row)
            if first != row:
                raise InputError(
                    f"{shown}: examples {first} and {row} have the same id {quote(text)}; ids must "
                    "be unique"
                )
    return np.array(texts, dtype=np.str_)


def _problem(text: str) -> str | None:
    """Why ``text`` cannot be an id."""
    if len(text) > MAX_ID_CHARACTERS:
        return f"is longer than {MAX_ID_CHARACTERS} characters"
    if text.isprintable():  # by far the most
        return None
    if any(mark < " " or "\x7f" <= mark <= "\x9f" or mark in "\u2028\u2029" for mark in text):
        return "holds control characters"
    if any("\ud800" <= mark <= "\udfff" for mark in text):
        return "is not valid Unicode"
    return None


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
