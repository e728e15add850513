"""Claims on keys: who computes an entry, and who still needs it.

All claims of a store are locks on single bytes of one file, at positions that the keys decide. The
system drops them when their process ends, however it ends: a dead holder blocks nobody, and nothing
is left to clean up. One open file serves any number of claims. NFS passes such record locks on
between machines (version 4 in the protocol itself).

Where a file system has no locks, or the folder cannot be written, every claim is granted: then two
processes may compute the same entry twice, but since entries are renamed into place whole, they
cannot damage it.

Record locks belong to the process and go when it closes *any* handle of the file. So each process
keeps one handle per file, shared by all stores on it; nothing else may open the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import queue
import stat
import sys
import threading
import time
import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

FIRST_NAP, LONGEST_NAP = 0.001, 0.2
"""Seconds between two looks at a claim that somebody else holds."""
SAY_SO_AFTER = 5.0
"""Seconds of waiting from which on the user is told."""
HELD = (errno.EAGAIN, errno.EACCES)
"""How systems say that somebody else holds a lock (POSIX fcntl)."""

log = logging.getLogger(__name__)


class Locks:
    """Claims on the keys of one store."""

    def __init__(self, path: Path) -> None:
        """``path`` is the file that carries the locks; it is made when it is first needed."""
        self.path = path
        self._opened: _LockFile | None = None

    def take(self, key: str) -> bool:
        """Claim ``key`` if nobody else computes it; a thread may claim a key more than once."""
        return (file := self._file()) is None or file.take(_computing(key))

    def drop(self, key: str) -> None:
        """Undo one :meth:`take`."""
        if self._opened is not None:
            self._opened.drop(_computing(key))

    @contextlib.contextmanager
    def claim(self, *keys: str, what: str = "") -> Iterator[None]:
        """Claim all keys, in an order that is the same everywhere, and wait for those that others
        hold.

        Args:
            what: named to the user if it takes long.
        """
        with contextlib.ExitStack() as stack:
            for key in sorted(set(keys), key=_computing):
                for _ in _naps(what):
                    if self.take(key):
                        break
                stack.callback(self.drop, key)
            yield

    @contextlib.contextmanager
    def claim_some(self, keys: Collection[str], what: str = "") -> Iterator[Claims]:
        """Claim those keys that nobody else computes; wait until there is one.

        Args:
            keys: at least one.
            what: named to the user if it takes long.
        """
        claims = Claims(self)
        try:
            for _ in _naps(what):
                claims.held.update(
                    key for key in sorted(set(keys), key=_computing) if self.take(key)
                )
                if claims.held:
                    break
            yield claims
        finally:
            for key in list(claims.held):
                claims.drop(key)

    def mark(self, key: str) -> bool:
        """Note, for as long as this object lives, that ``key`` is in use; False: it is just being
        deleted."""
        return (file := self._file()) is None or file.mark(_using(key))

    @contextlib.contextmanager
    def alone(self, key: str) -> Iterator[bool]:
        """Whether nobody computes or uses ``key``, here or elsewhere; it stays so inside."""
        file = self._file()
        if file is None:
            yield True
            return
        spots = (_computing(key), _using(key))
        taken = [spot for spot in spots if file.take(spot, anew=True)]
        try:
            yield len(taken) == len(spots)
        finally:
            for spot in taken:
                file.drop(spot)

    def _file(self) -> _LockFile | None:
        if self._opened is None:
            self._opened = _shared(self.path)
            if self._opened is not None:
                weakref.finalize(self, _left.put, self._opened).atexit = False
        return self._opened


class Claims:
    """Keys that are claimed."""

    def __init__(self, locks: Locks) -> None:
        self.held: set[str] = set()
        self._locks = locks

    def drop(self, key: str) -> None:
        """Give one back before the others."""
        self.held.remove(key)
        self._locks.drop(key)


def _spot(key: str) -> int:
    """Even, below 2^62: file positions are signed 64-bit numbers."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 3 << 1


def _computing(key: str) -> int:
    """The byte whose exclusive lock its only writer holds."""
    return _spot(key)


def _using(key: str) -> int:
    """The byte on which readers share a lock."""
    return _spot(key) + 1


def _naps(what: str) -> Iterator[None]:
    """Give the caller a turn, again and again, with pauses that grow."""
    nap, begin, said = FIRST_NAP, time.monotonic(), False
    while True:
        yield
        if not said and time.monotonic() - begin > SAY_SO_AFTER:
            log.warning("another process is computing the same (%s); waiting for it", what)
            said = True
        time.sleep(nap)
        nap = min(2 * nap, LONGEST_NAP)


@dataclass(eq=False)
class _LockFile:
    """The one handle that this process has of a file of locks."""

    handle: int
    identity: tuple[int, int]
    users: int = 0
    """Living :class:`Locks`."""
    marks: set[int] = field(default_factory=set)
    """Positions with a shared lock of ours."""
    _holders: dict[int, list[int]] = field(default_factory=dict)
    """Thread and depth by position: the system's locks do not tell threads apart."""
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def take(self, spot: int, *, anew: bool = False) -> bool:
        """Whether it is ours now; ``anew`` grants nothing that this process has already."""
        me = threading.get_ident()
        with self._mutex:
            holder = self._holders.get(spot)
            if holder is not None:
                if anew or holder[0] != me:
                    return False
                holder[1] += 1
                return True
            if (anew and spot in self.marks) or not _lock(self.handle, spot, shared=False):
                return False
            self._holders[spot] = [me, 1]
            return True

    def drop(self, spot: int) -> None:
        with self._mutex:
            holder = self._holders.get(spot)
            if holder is None:
                return  # granted while there was no file to lock
            holder[1] -= 1
            if not holder[1]:
                del self._holders[spot]
                _unlock(self.handle, spot)

    def mark(self, spot: int) -> bool:
        with self._mutex:
            if spot in self.marks:
                return True
            if spot in self._holders or not _lock(self.handle, spot, shared=True):
                return False
            self.marks.add(spot)
            return True


_files: dict[tuple[int, int], _LockFile] = {}
_guard = threading.Lock()
_left: queue.SimpleQueue[_LockFile] = queue.SimpleQueue()
"""Files that one user less needs. Told from finalizers, which may interrupt anything, so files are
closed only when the next one is opened."""


def _shared(path: Path) -> _LockFile | None:
    """This process's handle of the file; None: there can be none."""
    with _guard:
        while not _left.empty():
            unused = _left.get()
            unused.users -= 1
            if not unused.users:
                del _files[unused.identity]
                os.close(unused.handle)
        try:
            file = _known(path) or _open(path)
        except OSError:
            return None
        if file is not None:
            file.users += 1
        return file


def _known(path: Path) -> _LockFile | None:
    """The handle there is already: a second one would cost the locks when it is closed."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return _files.get((found.st_dev, found.st_ino))


def _open(path: Path) -> _LockFile | None:
    safely = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | safely, 0o666)
    except OSError:
        handle = os.open(path, os.O_RDONLY | safely)  # enough to say what is in use
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        return None
    file = _LockFile(handle, (found.st_dev, found.st_ino))
    _files[file.identity] = file
    return file


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, spot: int, *, shared: bool) -> bool:
        if shared:
            return True  # a file that is mapped or open cannot be deleted there anyway
        os.lseek(handle, spot, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno not in (*HELD, errno.EDEADLK)
        return True

    def _unlock(handle: int, spot: int) -> None:
        os.lseek(handle, spot, os.SEEK_SET)
        with contextlib.suppress(OSError):
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(handle: int, spot: int, *, shared: bool) -> bool:
        """Whether nobody else has it; yes where the file system knows no locks."""
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(handle, how | fcntl.LOCK_NB, 1, spot)
        except OSError as error:
            return error.errno not in HELD
        return True

    def _unlock(handle: int, spot: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.lockf(handle, fcntl.LOCK_UN, 1, spot)
