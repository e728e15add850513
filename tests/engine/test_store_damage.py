"""Damaged entries are set aside, told of in one line, computed anew; a store may be read-only."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unaudit.engine import damage
from unaudit.engine.store import Store, content_key
from unaudit.errors import InputError

KEY = content_key("make_model", seed=1)


def harm(root: Path, key: str = KEY) -> Path:
    path = root / key[:2] / f"{key}.blob"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))
    return path


def test_a_damaged_entry_is_moved_told_of_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Store(tmp_path).blob(KEY, lambda: b"right")
    path = harm(tmp_path)
    wrong = path.read_bytes()
    assert Store(tmp_path).blob(KEY, lambda: b"right") == b"right"
    assert (tmp_path / "damaged" / path.name).read_bytes() == wrong
    assert caplog.messages == [
        f"the cache holds a damaged entry (make_model, {KEY[:12]}…: its checksum differs); "
        f"it was moved to {tmp_path / 'damaged'}"
    ]
    assert Store(tmp_path).find(KEY) == b"right"
    assert len(caplog.messages) == 1


def test_the_warning_reaches_a_user_who_has_set_up_nothing(tmp_path: Path) -> None:
    Store(tmp_path).blob(KEY, lambda: b"right")
    harm(tmp_path)
    script = (
        "import sys; from pathlib import Path; from unaudit.engine.store import Store;"
        f"Store(Path(sys.argv[1])).blob({str(KEY)!r}, lambda: b'right')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert len(done.stderr.splitlines()) == 1
    assert "damaged entry" in done.stderr


def test_an_entry_that_was_replaced_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have made it anew after this one has seen it damaged."""
    store = Store(tmp_path)
    store.blob(KEY, lambda: b"right")
    path = tmp_path / KEY[:2] / f"{KEY}.blob"
    store._set_aside(KEY, path)
    assert store.find(KEY) == b"right"
    assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize(("most_files", "most_bytes"), [(3, 1 << 30), (100, 350)])
def test_what_is_set_aside_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_files: int, most_bytes: int
) -> None:
    monkeypatch.setattr(damage, "MOST_FILES", most_files)
    monkeypatch.setattr(damage, "MOST_BYTES", most_bytes)
    for number in range(5):
        path = tmp_path / f"entry{number}.blob"
        path.write_bytes(bytes(100))
        moved = damage.set_aside(tmp_path, path)
        os.utime(moved, (number, number))
    left = sorted(path.name for path in (tmp_path / "damaged").iterdir())
    assert left == ["entry2.blob", "entry3.blob", "entry4.blob"]


def test_the_newest_stays_however_large_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "MOST_BYTES", 10)
    for name in ("first", "second"):
        path = tmp_path / f"{name}.npy"
        path.write_bytes(bytes(100))
        path.with_suffix(".sum").write_text("00")
        damage.set_aside(tmp_path, path)
    left = sorted(path.name for path in (tmp_path / "damaged").iterdir())
    assert left == ["second.npy", "second.sum"]


@pytest.fixture(params=["locks", "no locks"])
def full(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store with a whole and a damaged entry, and an array."""
    store = Store(tmp_path / "store")
    store.blob(KEY, lambda: b"right")
    store.blob(content_key("other"), lambda: b"")
    store.array(content_key("labels"), (3,), np.int64, lambda array: array.fill(1))
    store.secret()
    harm(tmp_path / "store", content_key("other"))
    if request.param == "no locks":
        (tmp_path / "store/locks").unlink()
    return tmp_path / "store"


@pytest.fixture
def read_only(full: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The store on a file system that was mounted read-only; holds for root, too."""
    real_open = os.open
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refuse(*_: object, **__: object) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    def open_to_read(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & writing:
            refuse()
        return real_open(path, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_to_read)
        for name in ("mkdir", "replace", "rename", "unlink", "utime", "link"):
            patch.setattr(os, name, refuse)
        yield full


def test_a_read_only_store_is_read(read_only: Path) -> None:
    store = Store(read_only)
    assert store.find(KEY) == b"right"
    assert store.blob(KEY, lambda: b"never") == b"right"
    array = store.array(content_key("labels"), (3,), np.int64, lambda array: array.fill(2))
    assert (array == 1).all()
    assert len(store.secret()) == 32


def test_writing_to_a_read_only_store_is_one_line_and_no_wasted_work(
    read_only: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def compute() -> bytes:
        raise AssertionError("computed what cannot be kept")

    for key in (content_key("new"), content_key("other")):
        with pytest.raises(InputError, match=r"cannot be written \(Read-only.*--store"):
            Store(read_only).blob(key, compute)
    with pytest.raises(InputError, match=r"cannot be written \(Read-only.*--store"):
        Store(read_only).array(content_key("new"), (3,), np.int64, compute)  # type: ignore[arg-type]
    (message,) = caplog.messages
    assert "damaged entry" in message
    assert "cannot be moved: Read-only" in message
