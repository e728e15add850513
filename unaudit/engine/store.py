"""A content-addressed folder of results: safe to delete, never stale, never half-written.

An entry is one file, an array or plain bytes, under the digest of everything that decides it (see
:mod:`unaudit.engine.entries` for its form). Writers create a private file and rename it into place,
so readers see whole entries or none, also when a writer is killed. Every entry is hashed again when
it is read; a damaged one is set aside and computed anew. Two processes that want the same entry
compute it once: the second waits (see :mod:`unaudit.engine.locks`). No entry is ever a pickle.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import platformdirs

from unaudit.engine import entries
from unaudit.engine.damage import reason_for, set_aside
from unaudit.engine.entries import UNKNOWN, DamagedError
from unaudit.engine.locks import Claims, Locks
from unaudit.errors import InputError

CODE_VERSION = "1"
"""Raise when a change of code changes what an entry would hold."""
SECRET_SIZE = 32
"""Bytes of the auditor's key."""
SECRET, LOCKS = "auditor.key", "locks"
"""Files of the store that are no entries."""
PART = ".part-"
"""Beginning of the names of private files."""
NOTED_EVERY = 3600
"""Seconds: use is noted that exactly."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Key(str):
    """The digest under which an entry lies; knows what kind of entry it is."""

    kind: str

    def __new__(cls, digest: str, kind: str = UNKNOWN) -> Key:
        key = super().__new__(cls, digest)
        key.kind = kind
        return key


def content_key(kind: str, **inputs: Any) -> Key:
    """Hex digest of a job's kind and of every input that decides its result (JSON values)."""
    text = json.dumps({"kind": kind, "code": CODE_VERSION, "inputs": inputs}, sort_keys=True)
    # of a job, which is named module:function, the function's name is enough to tell what it is
    return Key(hashlib.sha256(text.encode()).hexdigest(), kind.rpartition(":")[2])


def kind_of(key: str) -> str:
    """The kind of a key that knows it."""
    return key.kind if isinstance(key, Key) else UNKNOWN


def default_root() -> Path:
    """``UNAUDIT_STORE`` or the platform's cache folder."""
    return Path(os.environ.get("UNAUDIT_STORE") or platformdirs.user_cache_dir("unaudit"))


class Store:
    """Arrays and bytes by key.

    What it has given out counts as in use, and no cleaning deletes it, as long as it lives.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root
        self._locks = Locks(self.root / LOCKS)
        self._told: set[Path] = set()

    def array(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        fill: Callable[[npt.NDArray[Any]], None],
    ) -> npt.NDArray[Any]:
        """The array under ``key``, memory-mapped; ``fill`` writes it if it is missing or damaged.

        ``fill`` gets a writable array of ``shape``, which it may fill piece by piece: the memory
        used does not grow with the array. If it raises, nothing is left behind.

        Raises:
            InputError: the store's folder cannot be written.
        """
        return self.arrays({key: (shape, dtype)}, lambda missing: fill(missing[key]))[key]

    def arrays(
        self,
        wanted: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]],
        fill: Callable[[Mapping[str, npt.NDArray[Any]]], None],
    ) -> dict[str, npt.NDArray[Any]]:
        """Several arrays that one computation gives; like :meth:`array` otherwise.

        Args:
            wanted: shape and dtype by key.
            fill: gets those that are missing or damaged, if any; it must write them all.

        Raises:
            InputError: the store's folder cannot be written.
        """
        found = {key: self._array(key, *form) for key, form in wanted.items()}
        missing = [key for key, array in found.items() if array is None]
        if missing:
            with self.claim(*missing):
                found |= {key: self._array(key, *wanted[key]) for key in missing}
                still = {key: wanted[key] for key in missing if found[key] is None}
                if still:
                    found |= self._make_arrays(still, fill)
        return {key: array for key, array in found.items() if array is not None}

    def blob(self, key: str, compute: Callable[[], bytes]) -> bytes:
        """The bytes under ``key``; ``compute`` gives them if they are missing or damaged.

        Raises:
            InputError: the store's folder cannot be written.
        """
        known = self.find(key)
        if known is not None:
            return known
        with self.claim(key):
            known = self.find(key)
            if known is not None:
                return known
            path = self._path(key, ".blob")
            with _private_file(path):
                pass  # a folder that cannot be written is an error before the work, not after it
            content = compute()
            with _private_file(path) as private:
                entries.write_blob(private, content, kind_of(key))
                os.replace(private, path)
            self._locks.mark(key)
        return content

    def holds(self, key: str) -> bool:
        """Whether there are bytes under ``key``, damaged or not; reads nothing."""
        return self._path(key, ".blob").is_file()

    def find(self, key: str) -> bytes | None:
        """The bytes under ``key``, or None where they are missing or damaged.

        Raises:
            InputError: they are more than this machine's memory should be asked to hold.
        """
        path = self._path(key, ".blob")
        return self._read(key, path, lambda: entries.read_blob(path))

    def claim(self, *keys: str) -> contextlib.AbstractContextManager[None]:
        """Keep others from computing ``keys`` while the context lasts; waits for those who do."""
        return self._locks.claim(*keys, what=kind_of(keys[0]))

    def claim_some(self, keys: Collection[str]) -> contextlib.AbstractContextManager[Claims]:
        """Claim those of ``keys`` (at least one) that nobody else computes; waits until there is
        one. What was claimed may have been computed in the meantime: look it up again."""
        return self._locks.claim_some(keys, what=kind_of(next(iter(keys))))

    def secret(self) -> bytes:
        """A random key of this store, made on first use: for digests that others must not guess.

        Raises:
            InputError: the store's folder cannot be written, or the key is damaged.
        """
        path = self.root / SECRET
        if not path.exists():
            with _private_file(path) as private:  # made readable by its owner alone
                private.write_bytes(secrets.token_bytes(SECRET_SIZE))
                with contextlib.suppress(FileExistsError):
                    os.link(private, path)  # the first of two processes wins
        try:
            key = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        if len(key) != SECRET_SIZE:
            # an empty one would let everybody guess
            raise InputError(
                f"{path}: damaged ({len(key)} bytes, not {SECRET_SIZE}); restore it or delete it"
            )
        return key

    def _array(
        self, key: str, shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> npt.NDArray[Any] | None:
        """The entry, if it is there, whole and of this form."""
        path = self._path(key, ".npy")
        return self._read(key, path, lambda: entries.map_array(path, shape, dtype))

    def _make_arrays(
        self,
        wanted: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]],
        fill: Callable[[Mapping[str, npt.NDArray[Any]]], None],
    ) -> dict[str, npt.NDArray[Any]]:
        paths = {key: self._path(key, ".npy") for key in wanted}
        made: dict[str, npt.NDArray[Any]] = {}
        with contextlib.ExitStack() as stack:
            private = {key: stack.enter_context(_private_file(paths[key])) for key in wanted}
            new = {key: entries.create_array(private[key], *wanted[key]) for key in wanted}
            fill(new)
            for key, (shape, dtype) in wanted.items():
                array = new.pop(key)
                array.flush()
                offset = array.offset
                del array
                entries.seal_array(private[key], kind_of(key))
                os.replace(private[key], paths[key])
                paths[key].with_suffix(".sum").unlink(missing_ok=True)  # of an earlier version
                self._locks.mark(key)
                made[key] = np.memmap(paths[key], dtype, "r", offset, shape)
        return made

    def _read(self, key: str, path: Path, read: Callable[[], T | None]) -> T | None:
        """What ``read`` finds; None if it is missing or damaged, in which case it is set aside."""
        try:
            found = read()
        except DamagedError:
            self._set_aside(key, path)
            return None
        except OSError:
            return None
        return found if found is not None and self._use(key, path) else None

    def _set_aside(self, key: str, path: Path) -> None:
        """Move a damaged entry away and say so, unless somebody else is computing it anew."""
        if not self._locks.take(key):
            return
        what = f"the cache holds a damaged entry ({kind_of(key)}, {path.name[:12]}…"
        try:
            reason = reason_for(path)  # once more: it may have been replaced
            if reason is not None:
                where = set_aside(self.root, path)
                log.warning("%s: %s); it was moved to %s", what, reason, where.parent)
        except OSError as error:
            if path not in self._told:
                log.warning("%s), which cannot be moved: %s", what, error.strerror or error)
            self._told.add(path)
        finally:
            self._locks.drop(key)

    def _use(self, key: str, path: Path) -> bool:
        """Note that an entry is used; False: it has just been deleted."""
        if not self._locks.mark(key):
            return False
        try:
            known = path.stat(follow_symlinks=False).st_mtime
        except OSError:
            return False
        if abs(time.time() - known) > NOTED_EVERY:
            with contextlib.suppress(OSError):  # a store may be read without being owned
                os.utime(path)
        return True

    def _path(self, key: str, suffix: str) -> Path:
        return self.root / key[:2] / f"{key}{suffix}"


@contextlib.contextmanager
def _private_file(target: Path) -> Iterator[Path]:
    """A file beside ``target`` that vanishes unless it was renamed away."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.name != SECRET and target.parent.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "a folder in it is a link")
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{PART}{target.stem}-")
        os.close(handle)
    except OSError as error:
        raise InputError(
            f"the cache folder cannot be written ({error.strerror}); choose another with --store"
        ) from None
    private = Path(name)
    try:
        yield private
    except OSError as error:
        raise InputError(
            f"writing to the cache folder failed ({error.strerror}); "
            "free space or choose another with --store"
        ) from None
    finally:
        private.unlink(missing_ok=True)
