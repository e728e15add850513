"""Where damaged entries go: set aside for whoever wants to know what happened, not for ever."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from unaudit.engine.entries import DamagedError, check, open_plain

FOLDER = "damaged"
MOST_FILES = 16
MOST_BYTES = 1 << 30
"""What the folder may hold; the newest file always stays."""


def reason_for(path: Path) -> str | None:
    """What is wrong with an entry; None: nothing, it is whole.

    Raises:
        OSError: it is missing or cannot be read.
    """
    try:
        with open_plain(path) as file:
            check(file, path)
    except DamagedError as error:
        return str(error)
    return None


def set_aside(root: Path, path: Path) -> Path:
    """Move an entry out of the way; where to. The caller holds the claim on its key.

    Raises:
        OSError: it cannot be moved.
    """
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    if folder.is_symlink():
        raise NotADirectoryError(f"{folder} is a link")
    target = folder / path.name
    os.replace(path, target)
    with contextlib.suppress(FileNotFoundError):
        os.replace(path.with_suffix(".sum"), target.with_suffix(".sum"))
    with contextlib.suppress(OSError, NotImplementedError):
        os.utime(target, follow_symlinks=False)  # since when it lies there
    _forget_the_oldest(folder, target)
    return target


def _forget_the_oldest(folder: Path, newest: Path) -> None:
    """Keep the folder within its bounds."""
    files = [path for path in folder.iterdir() if path.stem != newest.stem]
    found = sorted(((path.lstat(), path) for path in files), key=lambda pair: -pair[0].st_mtime)
    count, size = 1, newest.lstat().st_size
    for about, path in found:
        count, size = count + 1, size + about.st_size
        if count > MOST_FILES or size > MOST_BYTES:
            with contextlib.suppress(OSError):
                path.unlink()
