"""Data that users bring: examples with ids and labels, and lists of what is to be forgotten.

A format is one module that registers a :class:`~unaudit.data.source.Format`; formats are told
apart by content, and by a ``name:`` in front of the path where the user insists.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unaudit.data import (  # noqa: F401 - each registers its format
    image_folder,
    npz,
    parquet,
    text_table,
    torchvision_sets,
)
from unaudit.data.dataset import Dataset
from unaudit.data.ids import locate, read_ids
from unaudit.data.source import FORMATS, Format, Reading, Source
from unaudit.engine.store import Store
from unaudit.errors import InputError
from unaudit.plan import DataSection, PreprocessSection
from unaudit.text import plain

if TYPE_CHECKING:
    from unaudit.loading import TextInput

__all__ = ["FORMATS", "Dataset", "Format", "locate", "open_dataset", "read_ids"]

_PREFIX = re.compile(r"([A-Za-z0-9_./-]{2,}):(.+)", re.DOTALL)

_NOT_DATA: tuple[tuple[bytes, str], ...] = (
    (b"\x93NUMPY", "a single NumPy array; put inputs and labels together with np.savez(x=…, y=…)"),
    (b"\x80", "a pickle, which is not opened because that can run code; write npz or parquet"),
    (b"\x89HDF", "HDF5, which is not supported; write npz or parquet"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"<", "HTML or XML, perhaps a saved error page; get the data file itself"),
)


def open_dataset(
    spec: str,
    data: DataSection,
    preprocess: PreprocessSection,
    store: Store,
    *,
    classes: Sequence[str] | None = None,
    text: TextInput | None = None,
) -> Dataset:
    """The examples at ``spec``: a file, a folder, or ``torchvision:CIFAR10?root=…`` and the like.

    ``classes`` are the class names of the training data in label order (empty if its labels are
    numbers), so that further data numbers its class names alike; None for the training data.
    ``text`` is how the model is fed with texts, if it is one of texts.

    Raises:
        UsageError: unknown format, option or column, or settings that do not fit the examples.
        InputError: the data cannot be read or used.
    """
    known = None if classes is None else tuple(classes)
    reading = Reading(data, preprocess, store, known, text)
    named = _PREFIX.fullmatch(spec)
    try:
        if named is not None and not os.path.exists(spec):
            prefix, rest = named.groups()
            if prefix not in FORMATS:
                FORMATS.load_entry_points()
            kind = FORMATS.get(prefix)
            path = Path(rest)
            source = Source.at(spec, path) if os.path.exists(path) else Source(spec, path)
        else:
            source = Source.at(spec, Path(spec))
            kind = _recognize(source)
        return kind.open(source, reading)
    except OSError as error:
        raise InputError(
            f"{plain(spec, 400)}: cannot be read ({plain(error.strerror or error)})"
        ) from None


def _recognize(source: Source) -> Format:
    kind = _match(source)
    if kind is None:
        FORMATS.load_entry_points()
        kind = _match(source)
    if kind is not None:
        return kind
    for magic, what in _NOT_DATA:
        if source.head.startswith(magic):
            raise source.error(f"this is {what}")
    raise source.error(
        "not a known kind of data; give npz, parquet, a folder of images, .csv, .tsv or .jsonl"
    )


def _match(source: Source) -> Format | None:
    kinds = (FORMATS.get(name) for name in FORMATS)
    return next((kind for kind in kinds if kind.recognizes(source)), None)
