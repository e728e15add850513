"""Write canaries the way their training data is stored, so that they can be added to it."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unaudit.canaries.draw import Canaries
from unaudit.canaries.names import Names, is_image_folder
from unaudit.data import Dataset
from unaudit.data.arrow import is_image, is_list, reason_of
from unaudit.data.source import ID_NAMES, INPUT_NAMES, LABEL_NAMES, Source, pick_column
from unaudit.data.streaming import StreamedDataset
from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray
from unaudit.plan import DataSection

PLANTED, HELD_OUT = "planted", "held-out"

Values: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Part:
    """Half of the canaries, ready to be stored."""

    inputs: Values
    """(n, …) with the axes as stored."""
    labels: list[int] | list[str]
    """Class names where the data has names."""
    ids: list[str] | None
    """None where the data has none."""
    groups: list[str] | None = None
    """The same; each canary is a group of its own."""


Writer: TypeAlias = Callable[[Path, Part], Path]
"""From a path without a suffix and a part to the file or folder written."""


@dataclass(frozen=True)
class Paths:
    """What was written."""

    planted: Path
    held_out: Path
    others: tuple[Path, ...]
    """In the order of the texts."""


def write(
    folder: Path,
    canaries: Canaries,
    names: Names,
    train: Dataset,
    data: DataSection,
    texts: Callable[[Path, Path], dict[str, str]],
    *,
    overwrite: bool = False,
) -> Paths:
    """Write both halves and what belongs to them; all of it or, if something fails, nothing.

    Args:
        folder: made if it is not there.
        canaries: what to write.
        names: how they are told apart.
        train: the training data, whose way of storing is followed: npz, parquet or a folder of
            images; anything else becomes npz.
        data: which columns or arrays it was read from.
        texts: from the two halves, as they lie in a temporary folder, to further files by name.
        overwrite: whether files that are there are replaced.

    Raises:
        UsageError: a file is there, or the folder cannot be written.
        InputError: values do not fit the columns of the training data.
    """
    store = _writer(train, data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as held:
            parts = {
                name: store(Path(held) / name, _part(canaries, names, train, own))
                for name, own in ((PLANTED, canaries.planted), (HELD_OUT, ~canaries.planted))
            }
            others = []
            for name, text in texts(parts[PLANTED], parts[HELD_OUT]).items():
                others.append(Path(held) / name)
                others[-1].write_text(text, encoding="utf-8")
            moved = [_place(path, folder, overwrite) for path in [*parts.values(), *others]]
            for path, target in moved:
                if overwrite and target.is_dir():
                    shutil.rmtree(target)
                os.replace(path, target)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    targets = [target for _, target in moved]
    return Paths(targets[0], targets[1], tuple(targets[2:]))


def _place(path: Path, folder: Path, overwrite: bool) -> tuple[Path, Path]:
    target = folder / path.name
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; --force overwrites it, or choose another --out")
    return path, target


def _part(canaries: Canaries, names: Names, train: Dataset, own: npt.NDArray[np.bool_]) -> Part:
    rows = np.flatnonzero(own)
    numbers: IntArray = canaries.labels[rows]
    inputs = canaries.inputs[rows]
    preprocessor = getattr(train, "preprocessor", None)
    if preprocessor is not None and preprocessor.channels_last and inputs.ndim > 2:
        inputs = np.moveaxis(inputs, 1, -1)
    classes = train.classes
    labels = numbers.tolist() if classes is None else [classes[number] for number in numbers]
    ids, groups = (
        None if values is None else [values[row] for row in rows.tolist()]
        for values in (names.stored, names.groups)
    )
    return Part(inputs, labels, ids, groups)


def _writer(train: Dataset, data: DataSection) -> Writer:
    """How the training data is stored."""
    if not isinstance(train, StreamedDataset):
        return _npz_writer({}, ("x", "y", "id", "group"), np.dtype(np.float32))
    source = train.source
    if is_image_folder(train):
        return _write_images
    if source.head.startswith(b"PAR1"):
        return _parquet_writer(source, data)
    kind = np.dtype(np.uint8 if train.preprocessor.kind == "image" else np.float32)
    if not source.head.startswith(b"PK"):
        return _npz_writer({}, ("x", "y", "id", data.group_column or ""), kind)
    forms = _headers(source.path)
    known = list(forms)
    columns = (
        (data.input_column, INPUT_NAMES, "input_column"),
        (data.label_column, LABEL_NAMES, "label_column"),
        (data.id_column, ID_NAMES, "id_column"),
    )
    x, y, key = (pick_column(source, known, *column) or "" for column in columns)
    return _npz_writer(forms, (x, y, key, data.group_column or ""), kind)


def _headers(path: Path) -> dict[str, npt.NDArray[Any]]:
    """An empty array like each one of an npz that was opened before, none of which is read."""
    forms = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            with archive.zip.open(f"{name}.npy") as stream:
                reads = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }
                shape, _, kind = reads[np.lib.format.read_magic(stream)](stream)
                forms[name] = np.empty((0, *shape[1:]), dtype=kind)
    return forms


def _npz_writer(
    forms: dict[str, npt.NDArray[Any]], named: tuple[str, str, str, str], kind: np.dtype[Any]
) -> Writer:
    """Arrays with the names, types and shapes of the training data's.

    Args:
        forms: an empty array like each of them, by name.
        named: inputs, labels, ids and groups.
        kind: of inputs that have no form.
    """

    def write_npz(path: Path, part: Part) -> Path:
        arrays: dict[str, Any] = {
            named[0]: part.inputs.astype(forms[named[0]].dtype if forms else kind),
            named[1]: _typed(part.labels, forms.get(named[1])),
        }
        if part.ids is not None:
            arrays[named[2]] = _typed(part.ids, forms.get(named[2]))
        if part.groups is not None:
            arrays[named[3]] = _typed(part.groups, forms.get(named[3]))
        target = path.with_suffix(".npz")
        np.savez(target, **arrays)
        return target

    return write_npz


def _typed(values: list[int] | list[str], form: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Labels, ids or groups as the training data stores them; texts may be longer than its own.

    Raises:
        InputError: a number is too large for its type.
    """
    if form is None:
        return np.array(values)
    array: npt.NDArray[Any] = np.array(values)
    if form.dtype.kind in "US":
        array = array.astype(np.str_)
    if form.dtype.kind == "S":
        array = np.char.encode(array, "utf-8")
    elif form.dtype.kind != "U":
        try:
            array = array.astype(form.dtype)
        except OverflowError:
            raise InputError(
                f"canaries would need ids or groups that {form.dtype} cannot hold; write the "
                "training data with wider numbers"
            ) from None
    return array.reshape(len(values), *form.shape[1:])


def _parquet_writer(source: Source, data: DataSection) -> Writer:
    """A table with the columns of the training data; those that are not read stay empty."""
    schema = pq.read_schema(source.path)
    label = pick_column(source, schema.names, data.label_column, LABEL_NAMES, "label_column")
    key = pick_column(source, schema.names, data.id_column, ID_NAMES, "id_column")
    free = [name for name in schema.names if name not in (label, key, data.group_column)]
    rich = [n for n in free if is_image(schema.field(n).type) or is_list(schema.field(n).type)]
    found = pick_column(
        source, free if data.input_column else rich, data.input_column, INPUT_NAMES, "input_column"
    )
    inputs = free if found is None else [found]

    def write_parquet(path: Path, part: Part) -> Path:
        columns = []
        try:
            for field in schema:
                if field.name == label:
                    columns.append(_column(part.labels, field.type))
                elif field.name == key:
                    assert part.ids is not None
                    columns.append(_column(part.ids, field.type))
                elif field.name == data.group_column:
                    assert part.groups is not None
                    columns.append(_column(part.groups, field.type))
                elif field.name not in inputs:
                    columns.append(pa.nulls(len(part.labels), field.type))
                elif is_image(field.type):
                    columns.append(_image_column(part.inputs, field.type))
                else:
                    values = part.inputs if found else part.inputs[:, inputs.index(field.name)]
                    columns.append(_number_column(values, field.type))
            table = pa.Table.from_arrays(columns, schema=schema)
            pq.write_table(table, path.with_suffix(".parquet"))
        except (pa.ArrowException, ValueError) as error:
            raise InputError(
                f"{source.name}: canaries do not fit its columns ({reason_of(error)}); convert the "
                "data to npz"
            ) from None
        return path.with_suffix(".parquet")

    return write_parquet


def _column(values: list[int] | list[str], kind: pa.DataType) -> pa.Array:
    """Labels, ids or groups: numbers or texts, whichever the column holds."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    textual = pa.types.is_string(inner) or pa.types.is_large_string(inner)
    column = pa.array([str(value) if textual else int(value) for value in values]).cast(inner)
    return column if inner is kind else column.dictionary_encode().cast(kind)


def _image_column(inputs: Values, kind: pa.DataType) -> pa.Array:
    encoded = [_png(pixels) for pixels in inputs]
    if not pa.types.is_struct(kind):
        return pa.array(encoded, type=kind)
    return pa.array([{"bytes": data} for data in encoded], type=kind)


def _number_column(values: Values, kind: pa.DataType) -> pa.Array:
    inner = kind
    while is_list(inner):
        inner = inner.value_type
    return pa.array(values.astype(inner.to_pandas_dtype()).tolist(), type=kind)


def _write_images(path: Path, part: Part) -> Path:
    """One PNG per canary, at the path that is its id."""
    assert part.ids is not None
    for name, pixels in zip(part.ids, part.inputs, strict=True):
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_png(pixels))
    return path


def _png(pixels: Values) -> bytes:
    """An image from (height, width, channels) values of 0 to 255."""
    whole = pixels.astype(np.uint8)
    image = Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
