"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from unaudit.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, then rename it into place; folders are made as needed.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full; whatever was at
            ``path`` before is still there.
    """
    private = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # not tempfile: its files are private to the user whatever the umask says
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(private, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            private.unlink()
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: cannot be written ({reason}); free space or choose another folder with --out"
        ) from None
