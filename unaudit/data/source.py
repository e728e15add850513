"""Where a data set comes from, and the formats that can read it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unaudit.data.dataset import Dataset
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.plan import DataSection, PreprocessSection
from unaudit.registry import Registry, did_you_mean
from unaudit.text import listed, plain

if TYPE_CHECKING:
    from unaudit.loading import TextInput

HEAD_BYTES = 512
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file, a folder or a named set, as the user wrote it."""

    spec: str
    """As given, for messages."""
    path: Path
    """The spec without a format's prefix."""
    head: bytes = b""
    """The first bytes of a file; empty for anything else."""
    is_folder: bool = False
    label: str = ""
    """What to call it in reports; default: the file's or folder's name."""
    stamp: tuple[int, ...] = field(default=(), repr=False)
    """Inode, size and time of change when the source was first looked at."""

    @classmethod
    def at(cls, spec: str, path: Path) -> Source:
        """Look at what lies at ``path``.

        Raises:
            InputError: nothing is there, or it cannot be read.
        """
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                return cls(spec, path, is_folder=True)
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{plain(spec, 400)}: not a regular file; give a file or a folder")
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
        except FileNotFoundError:
            raise InputError(
                f"{plain(spec, 400)}: no such file or folder; check the path"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{plain(spec, 400)}: cannot be read ({reason})") from None
        if not head:
            raise InputError(f"{plain(spec, 400)}: the file is empty; give a data file")
        return cls(spec, path, head, stamp=_stamp(found))

    @property
    def name(self) -> str:
        """File or folder name without the folders above it."""
        return plain(self.label or self.path.resolve().name)

    def error(self, complaint: str) -> InputError:
        """An error about this source."""
        return InputError(f"{plain(self.spec, 400)}: {complaint}")

    def sha256(self) -> str:
        """Of the file's bytes."""
        return sha256_of(self.path).hex()

    def check_unchanged(self) -> None:
        """Refuse a file that was replaced or written to since it was hashed.

        Raises:
            InputError: it was.
        """
        if not self.stamp:
            return
        try:
            now = _stamp(self.path.stat())
        except OSError:
            now = ()
        if now != self.stamp:
            raise self.error("the file changed while it was being read; run again")


@dataclass(frozen=True, eq=False)
class Reading:
    """How a source is to be read."""

    data: DataSection
    preprocess: PreprocessSection
    store: Store
    classes: tuple[str, ...] | None = None
    """Class names in label order, where the training data has fixed them already."""
    text: TextInput | None = None
    """How the model is fed with texts, where it is one of texts."""


@dataclass(frozen=True)
class Format:
    """One kind of data source; plug-ins register one in the group ``unaudit.formats``."""

    recognizes: Callable[[Source], bool]
    """Whether the content is of this format. Asked in order of registration."""
    open: Callable[[Source, Reading], Dataset]


FORMATS: Registry[Format] = Registry("data format", "unaudit.formats")


def pick_column(
    source: Source,
    columns: list[str],
    wanted: str | None,
    defaults: tuple[str, ...],
    option: str,
) -> str | None:
    """The column or array that the config names, else the one that bears a usual name, else None.

    Raises:
        UsageError: the named one is missing, or several bear a usual name.
    """
    where = plain(source.spec, 400)
    if wanted is not None:
        if wanted not in columns:
            raise UsageError(
                f"{where}: no column or array '{plain(wanted, 60)}' (data.{option})"
                f"{plain(did_you_mean(wanted, columns), 200)}"
            )
        return wanted
    usual = [name for name in defaults if name in columns]
    if len(usual) > 1:
        raise UsageError(f"{where}: both '{usual[0]}' and '{usual[1]}' exist; set data.{option}")
    return usual[0] if usual else None


def need_column(
    source: Source,
    columns: list[str],
    wanted: str | None,
    defaults: tuple[str, ...],
    option: str,
) -> str:
    """The same where the data is of no use without it.

    Raises:
        UsageError: as above, or none is there.
    """
    found = pick_column(source, columns, wanted, defaults, option)
    if found is None:
        raise UsageError(
            f"{plain(source.spec, 400)}: no column or array called "
            f"{' or '.join(defaults)} (found: {listed(columns, 8) or 'none'}); set data.{option}"
        )
    return found


def group_column(source: Source, columns: list[str], reading: Reading) -> str | None:
    """The column or array of groups that the config names; None where it names none, and where
    data besides the training data have none of that name.

    Raises:
        UsageError: the training data have none of that name.
    """
    wanted = reading.data.group_column
    if wanted is None or wanted in columns:
        return wanted
    if reading.classes is not None:
        return None
    raise UsageError(
        f"{plain(source.spec, 400)}: no column or array '{plain(wanted, 60)}' (found: "
        f"{listed(columns, 8) or 'none'}); correct data.group_column or take it out"
    )


ID_NAMES = ("id", "ids")
INPUT_NAMES = ("image", "images", "img", "x", "inputs", "features", "data")
LABEL_NAMES = ("label", "labels", "y")
TEXT_NAMES = ("text",)


def sha256_of(path: Path) -> bytes:
    """Digest of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.digest()


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns
