"""How an entry of the store lies on disk: what was computed, what that is, and a seal over both.

    payload | about | length of about | digest of all before it | magic

It is one file, so it appears and vanishes as a whole, and what was computed comes first, so that
the file of an array is an ordinary ``.npy``. Entries of earlier versions have no seal: a ``.blob``
begins with its digest, the digest of an array lies beside it as ``.sum``.

A store may come from somewhere else. Nothing here believes what a file says of itself: the caller
knows the form that it wants, an array's header is compared with the one it must have and never
parsed, links and pipes are not followed, and no claim of a file makes memory be allocated.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from unaudit import text
from unaudit.errors import InputError

DIGEST_SIZE = 16
"""Bytes of the checksum that goes with every entry."""
UNKNOWN = "unknown"
"""Kind of entries that do not say it."""

_MAGIC = b"unaudit\x01"
_TAIL = struct.Struct(f"<{DIGEST_SIZE}s{len(_MAGIC)}s")
_LENGTH = struct.Struct("<H")
_LONGEST_ABOUT = 4096
_LONGEST_KIND = 100
_CHUNK = 1 << 18


class DamagedError(Exception):
    """A file is not what it was when it was written; says why."""


@dataclass(frozen=True)
class Seal:
    """What the end of an entry says."""

    kind: str
    """May come from a hostile file."""
    created: float | None
    """Seconds since 1970."""
    payload: int
    """Bytes before it."""
    covered: int
    """Bytes from the beginning that the digest is of."""
    digest: bytes


def write_end(file: BinaryIO, kind: str) -> None:
    """Seal what the file, open for reading and writing, holds up to now."""
    about = json.dumps({"kind": kind[:_LONGEST_KIND], "created": int(time.time())}).encode()
    file.seek(0, os.SEEK_END)
    file.write(about + _LENGTH.pack(len(about)))
    digest = _digest(file, 0, file.tell())
    file.seek(0, os.SEEK_END)
    file.write(_TAIL.pack(digest, _MAGIC))


def read_seal(file: BinaryIO) -> Seal | None:
    """The seal, if there is one; whether it is broken, :func:`check` tells."""
    covered = _size(file) - _TAIL.size
    if covered < _LENGTH.size:
        return None
    file.seek(covered - _LENGTH.size)
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    digest, magic = _TAIL.unpack(file.read(_TAIL.size))
    payload = covered - _LENGTH.size - length
    if magic != _MAGIC or length > _LONGEST_ABOUT or payload < 0:
        return None
    file.seek(payload)
    kind, created = _read_about(file.read(length))
    return Seal(kind, created, payload, covered, digest)


def open_plain(path: Path) -> BinaryIO:
    """An entry's file, open for reading.

    Raises:
        DamagedError: it is a link, a pipe or anything else but a file.
        OSError: it is missing or cannot be read.
    """
    if path.parent.is_symlink():
        raise NotADirectoryError(
            errno.ENOTDIR, "the folder of an entry is a link", str(path.parent)
        )
    try:
        file = open(path, "rb", opener=_follow_nothing)  # noqa: SIM115
    except OSError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DamagedError("it is not a plain file") from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or path.is_symlink():
        file.close()
        raise DamagedError("it is not a plain file")
    return file


def check(file: BinaryIO, path: Path) -> Seal | None:
    """Hash an entry anew; its seal, None for one of an earlier version.

    Raises:
        DamagedError: it is not as it was written.
        OSError: it cannot be read.
    """
    seal = read_seal(file)
    if seal is not None:
        expected, found = seal.digest, _digest(file, 0, seal.covered)
    elif path.suffix == ".npy":
        try:
            with open_plain(path.with_suffix(".sum")) as beside:
                expected = bytes.fromhex(beside.read(2 * DIGEST_SIZE).decode("ascii"))
        except (OSError, ValueError):
            raise DamagedError("its end is missing") from None
        found = _digest(file, _header_size(file), _size(file))
    else:
        file.seek(0)
        expected = file.read(DIGEST_SIZE)
        found = _digest(file, DIGEST_SIZE, _size(file))
    if found != expected:
        raise DamagedError("its checksum differs" if seal else "its end or beginning is missing")
    return seal


def read_blob(path: Path) -> bytes:
    """What a ``.blob`` holds.

    Raises:
        DamagedError, OSError: as :func:`open_plain` and :func:`check`.
        InputError: this machine's memory should not be asked to hold it.
    """
    with open_plain(path) as file:
        size, limit = _size(file), _memory() // 2
        if size > limit:
            raise InputError(
                f"{path}: holds {text.size(size)}, more than half of this machine's memory; delete "
                "it, or choose another cache with --store"
            )
        seal = check(file, path)
        file.seek(0 if seal else DIGEST_SIZE)
        return file.read(seal.payload if seal else -1)


def write_blob(path: Path, content: bytes, kind: str) -> None:
    """Write a sealed ``.blob``."""
    with path.open("w+b") as file:
        file.write(content)
        write_end(file, kind)


def map_array(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> np.memmap[Any, np.dtype[Any]] | None:
    """The array in a ``.npy``, memory-mapped for reading; None if it has another form.

    Raises:
        DamagedError, OSError: as :func:`open_plain` and :func:`check`.
    """
    header = array_header(shape, dtype)
    size = len(header) + math.prod(shape) * np.dtype(dtype).itemsize
    with open_plain(path) as file:
        seal = read_seal(file)
        if seal is not None and seal.payload != size:
            return None  # before it is hashed: it may be huge
        check(file, path)
        file.seek(0)
        if file.read(len(header)) != header or (seal is None and _size(file) != size):
            return None
        return np.memmap(file, dtype, "r", len(header), shape)


def create_array(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> np.memmap[Any, np.dtype[Any]]:
    """A writable map of a new ``.npy``, yet without a seal."""
    header = array_header(shape, dtype)
    path.write_bytes(header)
    array = np.memmap(path, dtype, "r+", len(header), shape)
    if hasattr(os, "posix_fallocate"):
        # a full disk is an error here; met while the map is filled, it would kill the process
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def seal_array(path: Path, kind: str) -> None:
    """Seal the ``.npy`` of :func:`create_array`; nothing may be mapped for writing any more."""
    with path.open("r+b") as file:
        write_end(file, kind)


def array_header(shape: tuple[int, ...], dtype: npt.DTypeLike) -> bytes:
    """What the ``.npy`` file of such an array begins with."""
    form = np.dtype(dtype)
    if form.hasobject:
        raise TypeError("an array of Python objects would need a pickle")
    buffer = io.BytesIO()
    header: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(form),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 35  # not known on Windows


def _follow_nothing(path: str, flags: int) -> int:
    # a pipe that nobody writes to would block for ever without O_NONBLOCK
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _digest(file: BinaryIO, start: int, stop: int) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    chunk = memoryview(bytearray(_CHUNK))
    file.seek(start)
    while start < stop and (count := file.readinto(chunk[: stop - start])):  # type: ignore[attr-defined]
        digest.update(chunk[:count])
        start += count
    return digest.digest()


def _read_about(written: bytes) -> tuple[str, float | None]:
    """Kind and time, if they are there; it may be anything."""
    try:
        about = json.loads(written)
        kind, created = about["kind"], about["created"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return UNKNOWN, None
    known = isinstance(kind, str) and kind != ""
    dated = isinstance(created, int) and 0 <= created < 1 << 40
    return kind[:_LONGEST_KIND] if known else UNKNOWN, float(created) if dated else None


def _header_size(file: BinaryIO) -> int:
    """Bytes before the values of an ``.npy`` file (numpy.lib.format)."""
    file.seek(0)
    start = file.read(12)
    if len(start) < 12:
        raise DamagedError("its beginning is missing")
    if start[6] == 1:
        return 10 + int(struct.unpack_from("<H", start, 8)[0])
    return 12 + int(struct.unpack_from("<I", start, 8)[0])
