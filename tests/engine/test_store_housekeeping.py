"""Listing, cleaning and checking a store; nothing that is no entry is ever touched."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from unaudit.engine.housekeeping import (
    ABANDONED_AFTER,
    clean,
    damaged_entries,
    entries_of,
    unfinished,
)
from unaudit.engine.locks import Locks
from unaudit.engine.store import NOTED_EVERY, PART, Store, content_key

NOW = float(int(time.time()))
DAY = 86_400.0
AGES: Mapping[str, float] = {"logits 1": 1, "logits 2": 40, "answer 1": 3, "answer 2": 50}
"""Days since the entries were used."""
SIZE = 1000


def key_of(name: str) -> str:
    return content_key(name.split()[0], name=name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two arrays and two blobs of about the same size, used as :data:`AGES` says."""
    store = Store(tmp_path)
    for name, days in AGES.items():
        if name.startswith("logits"):
            store.array(key_of(name), (SIZE,), np.uint8, lambda array: array.fill(1))
        else:
            store.blob(key_of(name), lambda: bytes(SIZE))
        use(path_of(tmp_path, name), days)
    store.secret()
    return tmp_path


def path_of(root: Path, name: str) -> Path:
    key = key_of(name)
    return root / key[:2] / f"{key}.{'npy' if name.startswith('logits') else 'blob'}"


def use(path: Path, days: float) -> None:
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))


def names(root: Path) -> set[str]:
    return {name for name in AGES if path_of(root, name).exists()}


def test_entries_tell_what_they_are(root: Path) -> None:
    (root / "ab").mkdir(exist_ok=True)
    (root / "ab" / f"{'ab' * 32}.blob").write_bytes(b"of an earlier version, or garbage")
    found = {entry.key: entry for entry in entries_of(root)}
    assert set(found) == {*map(key_of, AGES), "ab" * 32}
    assert found["ab" * 32].kind == "unknown"
    assert found["ab" * 32].created is None
    for name, days in AGES.items():
        entry = found[key_of(name)]
        assert entry.kind == name.split()[0]
        assert entry.used == NOW - days * DAY
        assert entry.path == path_of(root, name)
        assert SIZE < entry.size < SIZE + 300
        assert entry.created is not None


def test_use_is_noted_but_not_at_every_look(root: Path) -> None:
    path = path_of(root, "answer 1")
    Store(root).find(key_of("answer 1"))
    noted = path.stat().st_mtime
    assert noted != NOW - 3 * DAY
    recent = noted - NOTED_EVERY / 2
    os.utime(path, (recent, recent))
    Store(root).find(key_of("answer 1"))
    assert path.stat().st_mtime == recent
    use(path, -10)  # from a machine whose clock is wrong: it would stay for ever
    Store(root).find(key_of("answer 1"))
    assert path.stat().st_mtime < NOW + DAY


def test_what_was_not_used_for_longer_goes(root: Path) -> None:
    done = clean(root, older_than=30 * DAY, now=NOW)
    assert names(root) == {"logits 1", "answer 1"}
    assert {entry.key for entry in done.removed} == {key_of("logits 2"), key_of("answer 2")}
    assert len(done.kept) == 2


@pytest.mark.parametrize(
    ("max_size", "left"),
    [
        (10 * SIZE, set(AGES)),
        (3.6 * SIZE, {"logits 1", "logits 2", "answer 1"}),
        (2.6 * SIZE, {"logits 1", "answer 1"}),
        (0, set()),
    ],
)
def test_the_store_is_made_to_fit_by_what_was_used_longest_ago(
    root: Path, max_size: float, left: set[str]
) -> None:
    clean(root, max_size=int(max_size), now=NOW)
    assert names(root) == left


def test_only_the_kinds_that_are_named_are_counted_and_removed(root: Path) -> None:
    clean(root, kinds=["answer"], max_size=int(1.5 * SIZE), now=NOW)
    assert names(root) == {"logits 1", "logits 2", "answer 1"}
    clean(root, kinds=["logits"], older_than=30 * DAY, now=NOW)
    assert names(root) == {"logits 1", "answer 1"}
    clean(root, kinds=["logits"], now=NOW)
    assert names(root) == {"answer 1"}


def test_without_a_wish_no_entry_goes(root: Path) -> None:
    assert clean(root, now=NOW).removed == ()
    assert names(root) == set(AGES)


def test_a_rehearsal_removes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    done = clean(root, older_than=2 * DAY, now=NOW, dry_run=True)
    assert len(done.removed) == 3
    assert sorted(root.rglob("*")) == before


def test_what_was_used_since_it_was_listed_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = sorted(entries_of(root), key=lambda entry: entry.key)
    use(path_of(root, "logits 2"), 0)
    monkeypatch.setattr("unaudit.engine.housekeeping.entries_of", lambda root: listed)
    done = clean(root, older_than=30 * DAY, now=NOW)
    assert [entry.key for entry in done.busy] == [key_of("logits 2")]
    assert "logits 2" in names(root)


def test_only_what_looks_like_an_entry_is_touched(root: Path) -> None:
    """--store may name any folder by mistake."""
    foreign = [
        "auditor.key",
        "notes.txt",
        "ab/notes.txt",
        f"ab/{'cd' * 32}.npy",
        f"ab/{'ab' * 32}.txt",
        f"xy/{'ab' * 32}.npy",
        "ab/ab.npy",
        "damaged/notes.txt",
        "src/.part-of-my-work",
    ]
    for name in foreign:
        (root / name).parent.mkdir(exist_ok=True)
        if not (root / name).exists():
            (root / name).write_bytes(bytes(10))
        os.utime(root / name, (0, 0))
    clean(root, max_size=0, now=NOW)
    assert names(root) == set()
    assert [name for name in foreign if not (root / name).exists()] == []


def test_abandoned_files_go_and_those_that_are_being_written_stay(root: Path) -> None:
    busy, dead, recent = key_of("logits 1"), key_of("logits 2"), key_of("answer 1")
    folder = root / "ab"
    folder.mkdir(exist_ok=True)
    paths = {
        "being computed": folder / f"{PART}{busy}-x1y2_abc",
        "abandoned": folder / f"{PART}{dead}-x1y2_abc",
        "recent": folder / f"{PART}{recent}-x1y2_abc",
        "of an earlier version": folder / f"{PART}abc_def0",
        "its sum": folder / f"{PART}abc_def0.sum",
        "in the root": root / f"{PART}auditor-abc_def0",
        "lone sum": folder / f"{'ab' * 32}.sum",
        "needed sum": folder / f"{'ac' * 32}.sum",
    }
    np.save(folder / f"{'ac' * 32}.npy", np.ones(3))
    for name, path in paths.items():
        path.write_bytes(bytes(10))
        use(path, (0.5 if name == "recent" else 1.5) * ABANDONED_AFTER / DAY)
    assert {file.path for file in unfinished(root)} == {*paths.values()} - {paths["needed sum"]}
    locks = Locks(root / "locks")
    assert locks.take(busy)
    done = clean(root, now=NOW)
    assert {name for name, path in paths.items() if path.exists()} == {
        "being computed",
        "recent",
        "needed sum",
    }
    assert len(done.abandoned) == 5
    locks.drop(busy)


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[SIZE // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_check_finds_what_is_damaged_and_changes_nothing(root: Path) -> None:
    assert list(damaged_entries(root)) == []
    spoil(path_of(root, "logits 1"))
    path_of(root, "answer 2").write_bytes(b"")
    counted: list[int] = []
    found = {
        damage.entry.key: damage for damage in damaged_entries(root, on_checked=counted.append)
    }
    assert set(found) == {key_of("logits 1"), key_of("answer 2")}
    assert found[key_of("logits 1")].reason == "its checksum differs"
    assert all(damage.moved_to is None for damage in found.values())
    assert names(root) == set(AGES)
    assert sum(counted) == 4


def test_a_repair_sets_aside_what_is_damaged(root: Path) -> None:
    spoil(path_of(root, "logits 1"))
    (damage,) = damaged_entries(root, repair=True)
    assert damage.moved_to == root / "damaged" / path_of(root, "logits 1").name
    assert damage.moved_to.is_file()
    assert list(damaged_entries(root)) == []
    assert [entry.path for entry in entries_of(root) if entry.kind == "damaged"] == [
        damage.moved_to
    ]
    clean(root, kinds=["damaged"], now=NOW)
    assert not damage.moved_to.exists()
    assert names(root) == set(AGES) - {"logits 1"}


def test_what_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("unaudit.engine.housekeeping.reason_for", refuse)
    found = list(damaged_entries(root, repair=True))
    assert len(found) == 4
    assert all("cannot be read or moved (Permission denied)" in one.reason for one in found)


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    root = tmp_path / "none"
    assert [*entries_of(root), *unfinished(root)] == []
    assert list(damaged_entries(root)) == []
    assert clean(root, max_size=0).removed == ()
