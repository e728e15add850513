"""Forget sets that are named by what their examples have in common, instead of listed by id.

class:4, class:cat      all training examples of a class, by number or name
keyword:comedy          all training texts in which a word occurs (RFA-LoRA §V-A.4)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from unaudit.data.dataset import Dataset
from unaudit.data.labels import class_number
from unaudit.data.text_dataset import TextDataset
from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray
from unaudit.text import plain


def selects(spec: str) -> bool:
    """Whether ``spec`` names a selection, and not a file of ids."""
    kind, separator, _ = spec.partition(":")
    return bool(separator) and kind in _KINDS and not Path(spec).exists()


def by_content(spec: str | None) -> bool:
    """Whether examples are selected by what they say, so that others are not of their kind."""
    return spec is not None and selects(spec) and spec.startswith("keyword:")


def selected_rows(spec: str, train: Dataset) -> IntArray:
    """Rows of the training data that a selection names, ascending: (k,) int64.

    Raises:
        UsageError: the data have no such classes, or no texts.
        InputError: no example is selected.
    """
    kind, _, what = spec.partition(":")
    if not what.strip():
        example = _KINDS[kind][0]
        raise UsageError(f"--forget {plain(spec, 80)} names nothing; write {kind}:{example}")
    rows = _KINDS[kind][1](what.strip(), train)
    if not len(rows):
        raise InputError(
            f"--forget {plain(spec, 80)}: no example of {train.name} is one of these; "
            f"check the {kind}"
        )
    return rows


def has_word(word: str) -> Callable[[str], bool]:
    """Whether a text holds ``word`` as a whole word or words, whatever the case, the blanks between
    words and the Unicode form."""
    parts = (re.escape(part) for part in unicodedata.normalize("NFC", word).split())
    found = re.compile(r"(?<!\w)" + r"\s+".join(parts) + r"(?!\w)", re.IGNORECASE)
    return lambda text: found.search(unicodedata.normalize("NFC", text)) is not None


def _of_class(name: str, train: Dataset) -> IntArray:
    if isinstance(train, TextDataset) and not train.labeled:
        raise UsageError(
            f"--forget class: is for labeled data, and the texts of {train.name} have no labels; "
            "use keyword:WORD or a list of ids"
        )
    return np.flatnonzero(train.labels == class_number(train, name, "--forget"))


def _with_word(word: str, train: Dataset) -> IntArray:
    if not isinstance(train, TextDataset):
        raise UsageError(f"--forget keyword: is for texts, and {train.name} holds none; list ids")
    return train.matching(has_word(word))


_KINDS: Mapping[str, tuple[str, Callable[[str, Dataset], IntArray]]] = {
    "class": ("4", _of_class),
    "keyword": ("comedy", _with_word),
}
