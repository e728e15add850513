"""NumPy archives (``np.savez``, ``np.savez_compressed``): inputs, labels and, if there, ids.

Nothing in the archive is unpickled. Uncompressed inputs in C order are read where they lie;
others are decoded once, in a stream, into an array of the store.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from unaudit.data.array_dataset import ArrayDataset
from unaudit.data.dataset import Dataset
from unaudit.data.ids import as_groups, as_ids
from unaudit.data.indexed import Index
from unaudit.data.labels import as_labels
from unaudit.data.preprocess import Preprocessor
from unaudit.data.rows import FileRows, Rows, rows_of
from unaudit.data.source import (
    CHUNK_BYTES,
    FORMATS,
    ID_NAMES,
    INPUT_NAMES,
    LABEL_NAMES,
    Format,
    Reading,
    Source,
    group_column,
    need_column,
    pick_column,
)
from unaudit.engine.store import content_key
from unaudit.text import plain, quote

BOMB_BYTES = 1 << 30
BOMB_RATIO = 100
"""A member that inflates to more than 1 GiB and by more than a factor of 100 is refused."""


@dataclass(frozen=True)
class Member:
    """One array of an archive."""

    name: str
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    header_bytes: int


def open_npz(source: Source, reading: Reading) -> Dataset:
    """The data set in a ``.npz`` file.

    Raises:
        InputError: the archive is damaged, or an array is missing or of the wrong kind.
    """
    data = reading.data
    with _archive(source) as archive:
        members = _members(source, archive)
        names = list(members)
        inputs = need_column(source, names, data.input_column, INPUT_NAMES, "input_column")
        labels = need_column(source, names, data.label_column, LABEL_NAMES, "label_column")
        ids = pick_column(source, names, data.id_column, ID_NAMES, "id_column")
        group = group_column(source, names, reading)
        x, y = members[inputs], members[labels]
        _check_inputs(source, x)
        for part in (y, *(members[name] for name in (ids, group) if name)):
            if part.shape not in ((x.shape[0],), (x.shape[0], 1)):
                raise source.error(
                    f"array {quote(part.name)} has shape {part.shape}, but {quote(x.name)} holds "
                    f"{x.shape[0]} examples; give one value per example"
                )
        keys = as_ids(_values(source, archive, members[ids]), source.spec) if ids else None
        persons = _values(source, archive, members[group]) if group else None
        numbers, classes = as_labels(
            _values(source, archive, y), source.spec, keys, reading.classes
        )
        content = content_key("npz", file=source.sha256(), inputs=inputs, labels=labels, ids=ids)
        rows = _rows(source, archive, x, content, reading)
    index = Index(numbers, keys, classes, content, as_groups(persons, source.spec))
    return ArrayDataset(
        source, index, rows, Preprocessor(reading.preprocess, "array"), reading.store
    )


FORMATS.register("npz")(
    Format(recognizes=lambda source: source.head.startswith(b"PK"), open=open_npz)
)


@contextmanager
def _archive(source: Source) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(source.path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise source.error(
            f"damaged or truncated npz ({plain(error, 80)}); write or copy it again"
        ) from None


def _members(source: Source, archive: zipfile.ZipFile) -> dict[str, Member]:
    """The arrays of the archive by name, read as far as their headers."""
    members: dict[str, Member] = {}
    for info in archive.infolist():
        if not info.filename.endswith(".npy"):
            raise source.error(
                f"{quote(info.filename)} is not an array, so this is not an npz; "
                "write the data with np.savez"
            )
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise source.error(f"two arrays are named {quote(name)}; write the file again")
        if info.flag_bits & 0x1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise source.error(
                f"array {quote(name)} is encrypted or compressed in an unusual way; "
                "write it with np.savez or np.savez_compressed"
            )
        if info.file_size > BOMB_BYTES and info.file_size > BOMB_RATIO * info.compress_size:
            raise source.error(
                f"array {quote(name)} would inflate from {info.compress_size} to {info.file_size} "
                "bytes; if that is meant, write it uncompressed with np.savez"
            )
        members[name] = _header(source, archive, info, name)
    return members


def _header(source: Source, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    try:
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            elif version == (2, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
            else:
                raise ValueError(f"npy version {version[0]}.{version[1]}")
            header_bytes = stream.tell()
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise source.error(
            f"array {quote(name)} has a bad header ({plain(error, 80)}); write the file again"
        ) from None
    if dtype.hasobject:
        raise source.error(
            f"array {quote(name)} holds Python objects, which only unpickling could read; save "
            "plain numbers or strings (one dtype, one shape)"
        )
    if dtype.names is not None or dtype.subdtype is not None or any(size < 0 for size in shape):
        raise source.error(
            f"array {quote(name)} has dtype {plain(dtype, 40)} and shape {plain(shape, 40)}; save "
            "plain numbers or strings"
        )
    stored = info.compress_type == zipfile.ZIP_STORED
    if (
        stored and info.compress_size != info.file_size
    ) or info.file_size != header_bytes + dtype.itemsize * math.prod(shape):
        raise source.error(f"array {quote(name)} is truncated; write or copy the file again")
    return Member(name, info, shape, dtype, fortran and len(shape) > 1, header_bytes)


def _check_inputs(source: Source, member: Member) -> None:
    if member.dtype.kind not in "biuf":
        raise source.error(
            f"array {quote(member.name)} has dtype {plain(member.dtype, 40)}, not numbers"
        )
    if len(member.shape) < 2 or not math.prod(member.shape):
        raise source.error(
            f"array {quote(member.name)} has shape {member.shape}; inputs need the shape "
            "(examples, …) and at least one example"
        )


def _values(
    source: Source, archive: zipfile.ZipFile, member: Member
) -> npt.NDArray[np.generic] | list[object]:
    """A one-dimensional array, whole; bytes become text."""
    array = np.empty(member.shape, dtype=member.dtype)
    _fill(source, archive, member, array)
    values = array.reshape(-1)
    if member.dtype.kind == "S":
        try:
            return [value.decode("utf-8") for value in values.tolist()]
        except UnicodeDecodeError:
            raise source.error(f"array {quote(member.name)} is not UTF-8 text") from None
    if member.dtype.kind not in "biufU":
        raise source.error(
            f"array {quote(member.name)} has dtype {plain(member.dtype, 40)}; save whole numbers "
            "or strings"
        )
    try:
        return values if member.dtype.kind in "biuf" else list(values.tolist())
    except ValueError:
        raise source.error(f"array {quote(member.name)} is not valid Unicode") from None


def _rows(
    source: Source, archive: zipfile.ZipFile, member: Member, content: str, reading: Reading
) -> Rows:
    if member.info.compress_type == zipfile.ZIP_STORED and not member.fortran:
        _verify(archive, member)
        return FileRows(source.path, _data_offset(source, member), member.shape, member.dtype)
    native = member.dtype.newbyteorder("=")
    key = content_key("npz inputs", content=content)
    array = reading.store.array(
        key, member.shape, native, lambda target: _fill(source, archive, member, target)
    )
    return rows_of(array)


def _verify(archive: zipfile.ZipFile, member: Member) -> None:
    """Read the member to its end, where zipfile compares its checksum."""
    with archive.open(member.info) as stream:
        while stream.read(CHUNK_BYTES):
            pass


def _data_offset(source: Source, member: Member) -> int:
    """Where the values of an uncompressed member begin in the file."""
    with source.path.open("rb") as file:
        file.seek(member.info.header_offset)
        # local file header, APPNOTE.TXT 4.3.7: its own name and extra field, not the directory's
        local = struct.unpack("<4s22xHH", file.read(30))
    if local[0] != b"PK\x03\x04":
        raise source.error("damaged npz (no local file header); write or copy it again")
    skipped: int = local[1] + local[2] + member.header_bytes
    return member.info.header_offset + 30 + skipped


def _fill(
    source: Source, archive: zipfile.ZipFile, member: Member, target: npt.NDArray[Any]
) -> None:
    """Write the member's values into ``target``, piece by piece."""
    try:
        with archive.open(member.info) as stream:
            stream.read(member.header_bytes)
            if member.fortran:  # the C order of the transpose
                for position in np.ndindex(target.shape[:0:-1]):
                    target.T[position] = _take(source, stream, member, target.shape[0])
            else:
                flat = target.reshape(-1)
                step = max(1, CHUNK_BYTES // max(1, member.dtype.itemsize))
                for start in range(0, len(flat), step):
                    count = min(step, len(flat) - start)
                    flat[start : start + count] = _take(source, stream, member, count)
            stream.read(1)  # at its end zipfile compares the checksum
    except (OSError, EOFError) as error:
        raise source.error(f"cannot be read ({plain(error, 80)})") from None


def _take(source: Source, stream: IO[bytes], member: Member, count: int) -> npt.NDArray[Any]:
    data = stream.read(count * member.dtype.itemsize)
    if len(data) != count * member.dtype.itemsize:
        raise source.error(f"array {quote(member.name)} is truncated; write or copy it again")
    return np.frombuffer(data, dtype=member.dtype)
