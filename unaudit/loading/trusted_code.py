"""Code that came with a model and that the user trusts: found, hashed, and called."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unaudit.errors import InputError, UnauditError, UsageError
from unaudit.text import plain


def first_line(error: BaseException) -> str:
    """What an error of somebody else's code says, on one line."""
    lines = str(error).strip().splitlines()
    return plain(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, 160)


def is_dotted(name: str) -> bool:
    """Whether it can name a module."""
    return all(part.isidentifier() for part in name.split("."))


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Modules in the working directory can be imported, before any others."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def source_sha256(module_name: str) -> str:
    """Digest of a module's source file; packages above it are imported, it is not.

    Raises:
        UsageError: there is no such module.
        InputError: a package above it fails.
    """
    importlib.invalidate_caches()
    found = call_trusted(f"py:{module_name}", lambda: importlib.util.find_spec(module_name))
    origin = getattr(found, "origin", None)
    if origin is None or not Path(origin).is_file():
        raise UsageError(
            f"--arch py:{module_name}: no module of that name here or installed; run unaudit in "
            "the folder that holds it"
        )
    return hashlib.sha256(Path(origin).read_bytes()).hexdigest()


def call_trusted(where: str, call: Callable[[], object]) -> object:
    """What ``call`` returns.

    Raises:
        InputError: it fails; ``where`` names it.
    """
    try:
        return call()
    except UnauditError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(f"--arch {where}: needs '{error.name}', which is not installed") from None
    except (Exception, SystemExit) as error:  # SystemExit(0) in a factory must not look like a pass
        raise InputError(f"--arch {where} failed: {first_line(error)}") from None
