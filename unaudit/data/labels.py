"""Class labels from whatever a file holds: integers from 0, or names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from unaudit.data.dataset import Dataset
from unaudit.errors import InputError
from unaudit.evidence import IntArray
from unaudit.registry import did_you_mean
from unaudit.text import listed, plain, quote

_Complain: TypeAlias = Callable[[int, str], InputError]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII)


def as_labels(
    values: Sequence[object] | npt.NDArray[np.generic],
    shown: str,
    ids: npt.NDArray[np.str_] | None,
    classes: tuple[str, ...] | None = None,
) -> tuple[IntArray, tuple[str, ...] | None]:
    """(n,) int64 labels, and the class names in label order if the labels were names.

    Numbers, also those written as text, are class indexes: whole and at least 0. If any label is
    not a number, all of them are names, see :func:`named_labels`.

    Raises:
        InputError: a label is missing, negative, fractional, not finite or an unknown class.
    """
    complain = _complainer(shown, ids)
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return _whole(values, complain), None
    texts: list[str | int | float] = []
    for row, text in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        if text is None or (isinstance(text, str) and text.strip().lower() in ("", "nan")):
            raise complain(row, "is missing")
        if not isinstance(text, (str, int, float)):
            raise complain(row, f"is {quote(text)}, neither a number nor a name")
        texts.append(text)
    if any(isinstance(text, str) and not _NUMBER.fullmatch(text.strip()) for text in texts):
        return named_labels([str(text) for text in texts], shown, ids, classes)
    return _whole(np.array([_number(text) for text in texts]), complain), None


def named_labels(
    names: Sequence[str],
    shown: str,
    ids: npt.NDArray[np.str_] | None,
    classes: tuple[str, ...] | None = None,
) -> tuple[IntArray, tuple[str, ...]]:
    """(n,) int64 labels of class names, and all names in label order.

    ``classes`` are the training data's names, empty if its labels are numbers; None numbers the
    names sorted by code point.

    Raises:
        InputError: a name is none of ``classes``.
    """
    known = tuple(sorted(set(names))) if classes is None else classes
    index = {name: label for label, name in enumerate(known)}
    for row, name in enumerate(names):
        if name not in index:
            what = f"no class of the training data ({listed(list(known), 8)})"
            if not known:
                what = "a name, but the training data has numbers; use the same labels in both"
            raise _complainer(shown, ids)(row, f"is {quote(name)}, {what}")
    return np.array([index[name] for name in names], dtype=np.int64), known


def _complainer(shown: str, ids: npt.NDArray[np.str_] | None) -> _Complain:
    def complain(row: int, what: str) -> InputError:
        who = f"example {row}" if ids is None else f"example {quote(ids[row])}"
        return InputError(
            f"{plain(shown, 400)}: the label of {who} {what}; check data.label_column"
        )

    return complain


def _number(text: str | float) -> float | int:
    """Exact where it is an integer: float() would round labels above 2⁵³."""
    if isinstance(text, str):
        text = text.strip()
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else float(text)
    return text if isinstance(text, float) or abs(text) < 1 << 62 else float("inf")


def _whole(numbers: npt.NDArray[np.generic], complain: _Complain) -> IntArray:
    values = numbers.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values) | (values != np.rint(values)) | (values >= 2.0**62))
    if len(bad):
        raise complain(int(bad[0]), f"is {values[bad[0]]:g}, not a class index")
    negative = np.flatnonzero(values < 0)
    if len(negative):
        raise complain(int(negative[0]), f"is {values[negative[0]]:g}; labels count from 0")
    return numbers.astype(np.int64)


def class_number(dataset: Dataset, name: int | str, asked: str) -> int:
    """The number of a class by its name; where classes have no names, by its digits.

    Args:
        dataset: whose class it is.
        name: of the class, or its number.
        asked: who names it, for the message.

    Raises:
        InputError: there is no such class.
    """
    if isinstance(name, int):
        return name
    if dataset.classes is not None and name in dataset.classes:
        return dataset.classes.index(name)
    if dataset.classes is None and name.isascii() and name.isdigit() and len(name) < 10:
        return int(name)
    known = dataset.classes or [str(label) for label in sorted(set(dataset.labels.tolist()))]
    near = plain(did_you_mean(name, known), 200)
    remedy = "names of the data, or numbers" if dataset.classes is None else "names of the data"
    raise InputError(
        f"{asked}: {plain(dataset.name)} has no class {quote(name)}{near}; give {remedy}"
    )
