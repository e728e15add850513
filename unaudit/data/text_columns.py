"""Columns of texts in tables: csv, jsonl and parquet alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unaudit.data.dataset import Dataset
from unaudit.data.ids import as_groups, as_ids
from unaudit.data.indexed import Index
from unaudit.data.labels import as_labels
from unaudit.data.source import (
    LABEL_NAMES,
    TEXT_NAMES,
    Reading,
    Source,
    need_column,
    pick_column,
)
from unaudit.data.text_dataset import TextDataset
from unaudit.data.tokenize import Tokenization
from unaudit.engine.store import content_key
from unaudit.errors import UnauditError, UsageError
from unaudit.evidence import IntArray
from unaudit.text import listed, plain, quote

Values = Sequence[object] | npt.NDArray[np.generic]


def label_column(source: Source, columns: list[str], reading: Reading) -> str | None:
    """The column of labels; None where a language model is fed and there is none.

    Raises:
        UsageError: it is missing, or several bear a usual name.
    """
    wanted = reading.data.label_column
    if not feeds_language_model(reading):
        return need_column(source, columns, wanted, LABEL_NAMES, "label_column")
    try:
        return pick_column(source, columns, wanted, LABEL_NAMES, "label_column")
    except UsageError as error:
        if wanted is None or wanted in columns:
            raise
        raise UsageError(
            f"{error}; correct it, or take it out: texts for a language model need no labels"
        ) from None


def feeds_language_model(reading: Reading) -> bool:
    """Whether the texts are for a language model: they may come without labels then."""
    return reading.text is not None and reading.text.causal


def text_column(
    source: Source, columns: list[str], reading: Reading, holds_text: Callable[[str], bool]
) -> str | None:
    """The column of texts; None if the inputs are something else, as those of a language model
    never are.

    Args:
        source: for messages.
        columns: names of all columns.
        reading: says which is meant, if somebody said it.
        holds_text: whether a column holds texts.

    Raises:
        UsageError: the named column is missing or holds no texts; a model of texts gets none.
    """
    data = reading.data
    if data.text_column is not None and data.input_column is not None:
        raise UsageError("data.text_column and input_column exclude each other; take one out")
    usual = [name for name in columns if name in TEXT_NAMES and holds_text(name)]
    # a classifier may be fed with token ids, if somebody says so
    feeds_texts = feeds_language_model(reading) or data.input_column is None
    if reading.text is not None and feeds_texts and data.text_column is None:
        _need_texts(source, columns, usual, reading)
    if data.input_column is not None:
        return None
    if data.text_column is None:
        return pick_column(source, usual, None, TEXT_NAMES, "text_column")
    named = need_column(source, columns, data.text_column, (), "text_column")
    if not holds_text(named):
        raise source.error(f"column '{plain(named, 60)}' holds no texts; set data.text_column")
    return named


def _need_texts(source: Source, columns: list[str], usual: list[str], reading: Reading) -> None:
    """Refuse data without texts for a model of texts."""
    kind = "a language model" if feeds_language_model(reading) else "the model"
    where = f"{plain(source.spec, 400)}: {kind} reads texts"
    if reading.data.input_column is not None:
        raise UsageError(f"{where}; name their column with data.text_column, not input_column")
    if not usual:
        raise UsageError(
            f"{where}, and no column of texts is called {' or '.join(TEXT_NAMES)} (found: "
            f"{listed(columns, 8) or 'none'}); set data.text_column"
        )


def open_texts(
    source: Source,
    reading: Reading,
    *,
    columns: tuple[str, str | None, str | None],
    labels: Values,
    keys: Values | None,
    groups: Values | None,
    texts: Callable[[], Iterator[Sequence[object]]],
) -> Dataset:
    """The data set of a table with texts.

    Args:
        source, reading: of the table.
        columns: names of the columns of texts, labels and ids.
        labels, keys, groups: of all examples; labels are zeros where there is no column of them.
        texts: reads them from the beginning.

    Raises:
        UsageError: there is no tokenizer, or the settings do not fit the data or the model.
        InputError: a label, id or text cannot be used.
    """
    ids = None if keys is None else as_ids(keys, source.spec)
    numbers, classes, notes = _numbered(source, reading, labels, ids)
    text, label, key = columns
    content = content_key(
        "texts",
        file=source.sha256(),
        text=text,
        label=label,
        id=key,
        suffix=source.path.suffix.lower(),
    )
    try:
        tokenization = Tokenization(reading.preprocess, reading.text)
    except UnauditError as error:
        raise type(error)(f"{plain(source.spec, 400)}: {error}") from None
    index = Index(numbers, ids, classes, content, as_groups(groups, source.spec))
    return TextDataset(
        source, index, texts, tokenization, reading.store, notes, labeled=label is not None
    )


def open_text_rows(
    source: Source,
    reading: Reading,
    columns: tuple[str, str | None, str | None],
    rows: Callable[[], Iterator[Mapping[str, object]]],
    group: str | None = None,
) -> Dataset:
    """The same from rows of named values, as files of text hold them; ``group`` names the column of
    groups.

    Raises:
        UsageError, InputError: see :func:`open_texts`; a row lacks a column.
    """
    text, label, key = columns

    def read(name: str) -> Iterator[object]:
        for number, row in enumerate(rows()):
            if name not in row:
                raise source.error(f"example {number} has no {quote(name)}; give it in each line")
            yield row[name]

    return open_texts(
        source,
        reading,
        columns=columns,
        labels=_zeros(source, rows()) if label is None else list(read(label)),
        keys=None if key is None else list(read(key)),
        groups=None if group is None else list(read(group)),
        texts=lambda: ([value] for value in read(text)),
    )


def _zeros(source: Source, rows: Iterator[Mapping[str, object]]) -> IntArray:
    """A label for each row of which none has one."""
    count = 0
    for row in rows:
        named = [name for name in LABEL_NAMES if name in row]
        if named:
            raise source.error(
                f"example {count} has {quote(named[0])}, but the first has none; give it in each "
                "line or in none"
            )
        count += 1
    return np.zeros(count, dtype=np.int64)


def _numbered(
    source: Source, reading: Reading, labels: Values, ids: npt.NDArray[np.str_] | None
) -> tuple[IntArray, tuple[str, ...] | None, tuple[str, ...]]:
    """Labels as numbers, class names, and what was assumed of them.

    Names are numbered as the training data's, else as the model names its outputs, else by their
    alphabet.
    """
    if reading.classes is not None:
        return *as_labels(labels, source.spec, ids, reading.classes), ()
    numbers, classes = as_labels(labels, source.spec, ids)
    if classes is None:
        return numbers, None, ()
    if feeds_language_model(reading):  # no output stands for a class
        return numbers, classes, ()
    outputs = None if reading.text is None else reading.text.labels
    if outputs is None:
        note = (
            f"{source.name}: class names were numbered by their alphabet, for the model does not "
            "name its outputs (id2label)"
        )
        return numbers, classes, (note,) if reading.text is not None else ()
    unknown = sorted(set(classes) - set(outputs))
    if unknown:
        raise source.error(
            f"labels {listed(unknown)} are none of the model's ({listed(outputs, 8)}, id2label in "
            "config.json); correct one of them, or give numbers"
        )
    return *as_labels(labels, source.spec, ids, outputs), ()
