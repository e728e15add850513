"""Zip archives, checked so strictly that every reader must see the same members.

A file that two zip readers understand differently could show one content to the check and another
to ``torch.load``. So: nothing before or after the archive, no comment, one directory, local headers
that agree with it, no overlaps, no names that differ in case only (torch compares without case).
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from unaudit.errors import InputError, UnsafeModelError
from unaudit.loading.limits import Limits
from unaudit.text import plain

LOCAL_HEADER = b"PK\x03\x04"
END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_ENCRYPTED = 0x1
_UTF8 = 0x800
_DAMAGED = "damaged or truncated zip archive; download or save it again"


@dataclass(frozen=True)
class _Directory:
    """Where the central directory lies."""

    offset: int
    size: int
    entries: int


def ends_like_zip(path: Path) -> bool:
    """Whether the last bytes are the end record of an archive without a comment."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 22))
        return file.read(4) == END


def read_directory(path: Path, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """The members by name, in the order of their data.

    Raises:
        InputError: no complete archive.
        UnsafeModelError: an archive that could mislead a reader.
    """
    with path.open("rb") as file:
        directory = _locate(file, limits)
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except Exception:  # zipfile raises many types on hostile input, all meaning this
            raise InputError(_DAMAGED) from None
        if len(members) != directory.entries:
            raise UnsafeModelError("its zip directory miscounts its members; save it again")
        members.sort(key=lambda member: member.header_offset)
        _check_names(members)
        _check_layout(file, members, directory)
    return {member.filename: member for member in members}


def require_stored(members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse compressed members.

    Raises:
        UnsafeModelError: a member is not stored byte for byte; torch.save never compresses.
    """
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise UnsafeModelError(
                f"its zip member '{plain(member.filename)}' is compressed and could inflate "
                "without bound; save it with torch.save or as safetensors"
            )


def _locate(file: BinaryIO, limits: Limits) -> _Directory:
    size = file.seek(0, 2)
    if size < 22:
        raise InputError(_DAMAGED)
    file.seek(size - 22)
    end = file.read(22)
    if end[:4] != END or end[20:] != b"\0\0":
        raise InputError(_DAMAGED)
    disk, first_disk, on_disk, entries, length, offset = struct.unpack("<4H2I", end[4:20])
    found, stop = _Directory(offset, length, entries), size - 22
    if size >= 98:
        file.seek(size - 42)
        locator = file.read(20)
        if locator[:4] == _LOCATOR64:
            stop = size - 98
            found = _locate64(file, locator, stop)
            narrow = (
                (offset, found.offset, 0xFFFFFFFF),
                (length, found.size, 0xFFFFFFFF),
                (entries, found.entries, 0xFFFF),
            )
            if any(value not in (wide, unset) for value, wide, unset in narrow):
                raise UnsafeModelError("its two zip directories disagree; save it again")
    if disk or first_disk or on_disk != entries:
        raise UnsafeModelError("is one part of a split zip archive; save it as one file")
    if found.offset + found.size != stop:
        raise UnsafeModelError("has bytes around its zip archive; save it again")
    if found.entries > limits.members or found.size > limits.index_bytes:
        raise UnsafeModelError(f"has more than {limits.members:,} zip members; save weights alone")
    return found


def _locate64(file: BinaryIO, locator: bytes, expected: int) -> _Directory:
    disk, position, disks = struct.unpack("<IQI", locator[4:])
    file.seek(expected)
    record = file.read(56)
    if disk or disks != 1 or position != expected or record[:4] != _END64:
        raise UnsafeModelError("has bytes around its zip archive; save it again")
    record_size, entries, size, offset = struct.unpack("<4x Q 12x 8x Q Q Q", record)
    if record_size != 44:
        raise UnsafeModelError("has bytes around its zip archive; save it again")
    return _Directory(offset, size, entries)


def _check_names(members: Iterable[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        parts = name.split("/")
        if (
            not name.isprintable()
            or "\\" in name
            or ":" in parts[0]
            or any(part in ("", ".", "..") for part in parts)
        ):
            raise UnsafeModelError(
                f"its zip member '{plain(name)}' has a name that could leave its folder; "
                "save it with torch.save"
            )
        if name.casefold() in seen:
            raise UnsafeModelError(f"holds '{plain(name)}' twice; save it again")
        seen.add(name.casefold())
        mode = member.external_attr >> 16
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise UnsafeModelError(f"its zip member '{plain(name)}' is a link; save it again")
        if member.flag_bits & _ENCRYPTED:
            raise InputError(f"its zip member '{plain(name)}' is encrypted; save it in the clear")


def _check_layout(
    file: BinaryIO, members: Iterable[zipfile.ZipInfo], directory: _Directory
) -> None:
    """Members lie one behind the other from byte 0 to the directory, so their sum fits the file."""
    free = 0
    for member in members:
        if member.header_offset < free or (free == 0 and member.header_offset != 0):
            raise UnsafeModelError("has overlapping or hidden zip members; save it again")
        file.seek(member.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != LOCAL_HEADER:
            raise InputError(_DAMAGED)
        method, name_length, extra_length = struct.unpack("<4x4xH16xHH", header)
        encoding = "utf-8" if member.flag_bits & _UTF8 else "cp437"
        if method != member.compress_type or file.read(name_length) != member.orig_filename.encode(
            encoding, "replace"
        ):
            raise UnsafeModelError(
                f"its zip member '{plain(member.filename)}' has two headers; save it again"
            )
        free = member.header_offset + 30 + name_length + extra_length + member.compress_size
    if free > directory.offset:
        raise UnsafeModelError("has overlapping or hidden zip members; save it again")
