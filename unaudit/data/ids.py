"""Ids of examples: those in the data, and those on the list of what is to be forgotten.

A list has one id per line. An id may be followed by a tab and a mark:

    digit-0007                  to be forgotten
    canary-3<TAB>canary         to be forgotten, and an outlier that was planted to be traced
    canary-8<TAB>held-out       an outlier of the same kind that no model was trained on; its id is
                                one of the *unseen* data, and it is not to be forgotten

No id holds a tab, in a list or in the data, so a list without marks means what it always did.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from unaudit.data.dataset import Dataset
from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray
from unaudit.registry import did_you_mean
from unaudit.text import plain, quote

MAX_ID_CHARACTERS = 1024
MAX_LINE_BYTES = 4 * MAX_ID_CHARACTERS + 64
"""UTF-8 takes at most four bytes for a character; the rest is for blanks, a mark and the line's
end."""

CANARY, HELD_OUT = "canary", "held-out"
MARKS = (CANARY, HELD_OUT)

# ASCII only and one spelling per row: int() also takes '1_0', '+5' and digits of other scripts
_INDEX = re.compile(r"0|[1-9][0-9]*")


@dataclass(frozen=True)
class ForgetList:
    """What a file of forget ids says."""

    ids: tuple[str, ...]
    """To be forgotten, canaries among them, in the order of the file."""
    canaries: tuple[str, ...] = ()
    """Those of ``ids`` that were planted to be traced."""
    held_out: tuple[str, ...] = ()
    """Canaries that no model was trained on: ids of the unseen data."""


def read_ids(path: str | Path) -> tuple[str, ...]:
    """Forget ids in the order of the file, marks left aside; see :func:`read_forget_list`."""
    return read_forget_list(path).ids


def read_forget_list(path: str | Path) -> ForgetList:
    """Forget ids with their marks: one id per line, and after a tab ``canary`` or ``held-out``.

    Blanks around an id or a mark, blank lines, CRLF line ends and a byte order mark do no harm. A
    line whose first mark is ``#`` is a comment; a ``#`` further on belongs to the id.

    Raises:
        InputError: the file cannot be read, is not UTF-8, holds no id, repeats one, has a line that
            no id can be, or an unknown mark.
    """
    shown = plain(path, 400)
    lines: dict[str, int] = {}
    held_out: dict[str, int] = {}
    canaries: list[str] = []
    for number, line in enumerate(_lines(path, shown), start=1):
        text = line.removeprefix("\ufeff").strip() if number == 1 else line.strip()
        if not text or text.startswith("#"):
            continue
        entry, mark = _marked(text, f"{shown}: line {number}")
        problem = _problem(entry)
        if problem is not None:
            raise InputError(f"{shown}: line {number} {problem}; write one id per line")
        first = (held_out if mark == HELD_OUT else lines).setdefault(entry, number)
        if first != number:
            raise InputError(
                f"{shown}: line {number} repeats the id {quote(entry)} of line {first}; "
                "list each id once"
            )
        if mark == CANARY:
            canaries.append(entry)
    if not lines:
        raise InputError(
            f"{shown}: no forget ids in the file; write one per line (lines that start with # are "
            "comments)"
        )
    return ForgetList(tuple(lines), tuple(canaries), tuple(held_out))


def _marked(text: str, where: str) -> tuple[str, str | None]:
    """The id of a line and its mark."""
    entry, *marks = (part for field in text.split("\t") if (part := field.strip()))
    if not marks:
        return entry, None
    if len(marks) > 1:
        raise InputError(f"{where} has {len(marks)} marks; write one id, a tab and one mark")
    if marks[0] not in MARKS:
        raise InputError(
            f"{where} has the unknown mark {quote(marks[0])}{did_you_mean(marks[0], MARKS)}; "
            "write one id per line, and after a tab nothing but a mark"
        )
    return entry, marks[0]


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
        raise InputError(
            f"{shown}: no such file; check --forget (a file of ids, class:NAME or keyword:WORD)"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shown}: cannot be read ({reason}); check --forget") from None
    return lines


def locate(
    ids: Sequence[str],
    dataset: Dataset,
    id_type: Literal["index", "key"] | None = None,
    *,
    what: str = "forget",
    where: str = "training",
) -> IntArray:
    """The rows of ``ids`` in ``dataset``, in the order of ``ids``: (len(ids),) int64.

    ``id_type`` None takes the data set's default: ``key`` where it has ids, else ``index``.
    ``what`` and ``where`` are for messages: what kind of ids they are, and of which data.

    Raises:
        UsageError: keys are asked for, but the data has none that can be written on a list.
        InputError: an id is unknown, not an index, out of range or names a row twice.
    """
    if not len(ids):
        raise InputError(f"there are no {what} ids; list at least one")
    rows = (
        _by_index(ids, len(dataset), what, where)
        if (id_type or dataset.default_id_type) == "index"
        else _by_key(ids, dataset, what, where)
    )
    if len(np.unique(rows)) != len(rows):
        raise InputError(f"a {what} id is listed twice; list each id once")
    return rows


def _by_index(ids: Sequence[str], count: int, what: str, where: str) -> IntArray:
    for entry in ids:
        if not _INDEX.fullmatch(entry):
            raise InputError(
                f"{what} id {quote(entry)} is not an index (digits only, no leading zero, counted "
                "from 0); check --id-type, or name the column of ids with data.id_column"
            )
    # longer than any row number can be: int() is never asked to parse an endless line
    numbers = [int(entry) if len(entry) < 19 else count for entry in ids]
    beyond = [entry for entry, number in zip(ids, numbers, strict=True) if number >= count]
    if beyond:
        found = _count(len(beyond), f"{what} index is", f"{what} indexes are")
        raise InputError(
            f"{found} out of range (first: {plain(beyond[0], 40)}, the {where} data has rows 0 to "
            f"{count - 1}); check --id-type"
        )
    return np.array(numbers, dtype=np.int64)


def _by_key(ids: Sequence[str], dataset: Dataset, what: str, where: str) -> IntArray:
    if dataset.ids is None:
        raise UsageError(
            f"{dataset.name}: the data has no ids, so {what} ids cannot be keys; use --id-type "
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
            f"{_count(len(unknown), f'{what} id is', f'{what} ids are')} not in the {where} data "
            f"(first: {quote(unknown[0])}); check --id-type, and that these are the data"
        )
    return np.array([row_of[entry] for entry in ids], dtype=np.int64)


def as_ids(values: Iterable[object], shown: str) -> npt.NDArray[np.str_]:
    """(n,) ids of a data set; whole numbers become their decimal digits.

    Raises:
        InputError: an id is missing, repeated, too long, not text, or holds control characters.
    """
    texts = _as_names(values, shown, "id")
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


def as_groups(values: Iterable[object] | None, shown: str) -> npt.NDArray[np.str_] | None:
    """(n,) whose record each example is; whole numbers become their decimal digits. None if not
    known.

    Raises:
        InputError: as for ids, but groups may repeat.
    """
    if values is None:
        return None
    return np.array(_as_names(values, shown, "group"), dtype=np.str_)


def _as_names(values: Iterable[object], shown: str, what: Literal["id", "group"]) -> list[str]:
    names: list[str] = []
    for row, value in enumerate(values):
        if isinstance(value, (np.str_, np.integer)):
            value = value.item()
        if value is None or value == "":
            problem: str | None = "is missing"
        elif isinstance(value, bool) or not isinstance(value, (str, int)):
            problem = f"is {quote(value)}, neither text nor a whole number"
        else:
            problem = _problem(str(value))
        if problem is not None:
            raise InputError(
                f"{shown}: the {what} of example {row} {problem}; check data.{what}_column"
            )
        names.append(str(value))
    return names


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
