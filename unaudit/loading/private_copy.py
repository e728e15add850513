"""One private copy of a file, hashed while it is written, gone afterwards.

Everything later reads the copy. Whoever can still write to the original can no longer change what
was hashed, so there is no gap between the check and the use.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from unaudit.errors import InputError, UnsafeModelError
from unaudit.loading.limits import Limits
from unaudit.text import size

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class PrivateCopy:
    """A file that only this process knows."""

    path: Path
    sha256: str
    size_bytes: int


@contextmanager
def private_copy(source: Path, limits: Limits) -> Iterator[PrivateCopy]:
    """Copy ``source`` into a fresh folder that only this user can enter.

    Raises:
        InputError: the file is missing, unreadable, empty or not regular, or there is no room.
        UnsafeModelError: it is larger than ``limits.file_bytes``.
    """
    with _open_regular(source) as original:
        try:
            folder = tempfile.TemporaryDirectory(prefix="unaudit-", ignore_cleanup_errors=True)
        except OSError as error:
            raise InputError(f"no private copy: {error.strerror}; set TMPDIR") from None
        with folder:
            path = Path(folder.name) / "copy"
            sha256, written = _copy(original, path, limits)
            if not written:
                raise InputError("is empty; save or download it again")
            yield PrivateCopy(path, sha256, written)


def _open_regular(source: Path) -> BinaryIO:
    # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(source, flags)
    except FileNotFoundError:
        raise InputError("no such file; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise InputError(f"cannot be opened: {reason}; check the path") from None
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise InputError("is not a regular file; give a model file")
    return file


def _copy(original: BinaryIO, path: Path, limits: Limits) -> tuple[str, int]:
    sha256, written = hashlib.sha256(), 0
    try:
        with path.open("xb") as copy:
            while block := original.read(BLOCK_BYTES):
                written += len(block)
                if written > limits.file_bytes:
                    raise UnsafeModelError(
                        f"is larger than {size(limits.file_bytes)}, the most that is opened; "
                        "save the weights alone"
                    )
                sha256.update(block)
                copy.write(block)
    except OSError as error:
        raise InputError(
            f"no private copy in {path.parent.parent}: {error.strerror}; "
            "free some space or set TMPDIR to a larger folder"
        ) from None
    return sha256.hexdigest(), written
