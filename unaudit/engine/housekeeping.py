"""What lies in a store, what of it can go, and whether it is whole.

Only files with the names of entries are ever looked at, in folders that are no links: whatever else
lies there, the auditor's key above all, is left alone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from unaudit.engine.damage import FOLDER, reason_for, set_aside
from unaudit.engine.entries import UNKNOWN, DamagedError, open_plain, read_seal
from unaudit.engine.locks import Locks
from unaudit.engine.store import LOCKS, PART

DAMAGED, UNFINISHED = "damaged", "unfinished"
"""Kinds of what was set aside, and of files that are being written or were never finished."""
ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a change after which nobody is writing a file any more."""

_FOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(r"([0-9a-f]{64})\.(?:npy|blob)")
_SUM = re.compile(r"([0-9a-f]{64})\.sum")
_PART = re.compile(
    # as tempfile.mkstemp names them
    rf"{re.escape(PART)}(?:(?:auditor|([0-9a-f]{{64}}))-)?[a-z0-9_]{{8}}(?:\.sum)?"
)


@dataclass(frozen=True)
class Stored:
    """A file of the store."""

    path: Path
    key: str
    """Of the entry; empty where nothing tells it."""
    kind: str
    """May come from a hostile file."""
    size: int
    """Bytes."""
    created: float | None
    """Seconds since 1970; None: not noted."""
    used: float
    """Seconds since 1970, to the hour."""


@dataclass(frozen=True)
class Cleaning:
    """What a cleaning removed, or would remove."""

    removed: tuple[Stored, ...]
    busy: tuple[Stored, ...]
    """They should have gone, but a running process uses or computes them."""
    kept: tuple[Stored, ...]
    abandoned: tuple[Stored, ...]
    """Removed besides: what processes left that were killed."""


@dataclass(frozen=True)
class Damage:
    """An entry that is not what was written, or cannot be read."""

    entry: Stored
    reason: str
    moved_to: Path | None = None


def entries_of(root: Path) -> Iterator[Stored]:
    """Every entry, and what was set aside; reads the ends of files and hashes nothing."""
    for file in _files(root):
        match = _ENTRY.fullmatch(file.name)
        if match and match[1][:2] == os.path.basename(os.path.dirname(file.path)):
            yield from _described(file, match[1])
    for file in () if (root / FOLDER).is_symlink() else _scan(root / FOLDER):
        if _ENTRY.fullmatch(file.name):
            yield from _described(file, "", DAMAGED)


def unfinished(root: Path) -> Iterator[Stored]:
    """Private files, and checksums of earlier versions without their array."""
    for file in (*_scan(root), *_files(root)):
        if match := _PART.fullmatch(file.name):
            yield from _described(file, match[1] or "", UNFINISHED)
        elif (match := _SUM.fullmatch(file.name)) and not _needed(Path(file.path)):
            yield from _described(file, match[1], UNFINISHED)


def clean(
    root: Path,
    *,
    older_than: float | None = None,
    max_size: int | None = None,
    kinds: Collection[str] = (),
    dry_run: bool = False,
    now: float | None = None,
) -> Cleaning:
    """Remove entries, those that were not used for longest first, and abandoned files.

    Args:
        older_than: seconds; what was not used for longer goes.
        max_size: bytes; as much goes as is needed for the rest to fit.
        kinds: only these are counted and removed, all of them if nothing else is said.
        dry_run: remove nothing.
        now: seconds since 1970.

    Raises:
        OSError: a file cannot be removed.
    """
    now = time.time() if now is None else now
    locks = Locks(root / LOCKS)
    everything = sorted(entries_of(root), key=lambda entry: entry.used)
    total = sum(entry.size for entry in everything if not kinds or entry.kind in kinds)
    removed, busy, kept = [], [], []
    for entry in everything:
        concerned = not kinds or entry.kind in kinds
        due = (
            (older_than is not None and now - entry.used > older_than)
            or (max_size is not None and total > max_size)
            or (older_than is None and max_size is None and bool(kinds))
        )
        if not (concerned and due):
            kept.append(entry)
        elif _remove(entry, locks, dry_run):
            removed.append(entry)
            total -= entry.size
        else:
            busy.append(entry)
    abandoned = [
        file
        for file in unfinished(root)
        if now - file.used > ABANDONED_AFTER and _remove(file, locks, dry_run)
    ]
    return Cleaning(tuple(removed), tuple(busy), tuple(kept), tuple(abandoned))


def damaged_entries(
    root: Path, *, repair: bool = False, on_checked: Callable[[int], None] = lambda count: None
) -> Iterator[Damage]:
    """Hash every entry anew; those that are damaged.

    Args:
        root: of the store.
        repair: set them aside, so that they are computed anew.
        on_checked: told 1 for each entry.
    """
    locks = Locks(root / LOCKS)
    for entry in entries_of(root):
        if entry.kind == DAMAGED:
            continue
        found = None
        try:
            reason = reason_for(entry.path)
            if reason is not None:
                found = _set_aside(root, entry, locks) if repair else Damage(entry, reason)
        except FileNotFoundError:
            pass  # cleaned away or replaced meanwhile
        except OSError as error:
            found = Damage(entry, f"cannot be read or moved ({error.strerror or error})")
        if found is not None:
            yield found
        on_checked(1)


def _set_aside(root: Path, entry: Stored, locks: Locks) -> Damage | None:
    """Move a damaged entry away, unless an audit has replaced it or is doing so."""
    if not locks.take(entry.key):
        return None
    try:
        reason = reason_for(entry.path)
        return None if reason is None else Damage(entry, reason, set_aside(root, entry.path))
    finally:
        locks.drop(entry.key)


def _remove(entry: Stored, locks: Locks, dry_run: bool) -> bool:
    """Whether it is gone, or would be; not if a process uses, computes or has just used it."""
    with locks.alone(entry.key or entry.path.name) as free:
        try:
            if not free or entry.path.lstat().st_mtime != entry.used:
                return False
            if not dry_run:
                entry.path.unlink()
                if entry.path.suffix == ".npy":
                    entry.path.with_suffix(".sum").unlink(missing_ok=True)
        except FileNotFoundError:
            pass
    return True


def _described(file: os.DirEntry[str], key: str, kind: str | None = None) -> Iterator[Stored]:
    """What is known of a file, unless it has just gone."""
    path, created = Path(file.path), None
    try:
        about = file.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    if kind is None:
        kind, created = _about(path)
    yield Stored(path, key, kind, about.st_size, created, about.st_mtime)


def _about(path: Path) -> tuple[str, float | None]:
    """Kind and time of writing."""
    try:
        with open_plain(path) as file:
            seal = read_seal(file)
    except (OSError, DamagedError):
        seal = None
    return (UNKNOWN, None) if seal is None else (seal.kind, seal.created)


def _needed(path: Path) -> bool:
    """Whether the array beside this checksum has no seal of its own."""
    try:
        with open_plain(path.with_suffix(".npy")) as file:
            return read_seal(file) is None
    except (OSError, DamagedError):
        return False


def _files(root: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in the folders for entries."""
    for folder in _scan(root):
        if _FOLDER.fullmatch(folder.name) and not folder.is_symlink():
            yield from _scan(Path(folder.path))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
