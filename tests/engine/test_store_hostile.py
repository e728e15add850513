"""A store that somebody else has written is data: it runs nothing, and takes no memory by lying."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unaudit.engine import entries
from unaudit.engine.housekeeping import clean, damaged_entries, entries_of
from unaudit.engine.store import Store, content_key
from unaudit.errors import InputError

KEY = content_key("logits", model="m")
SHAPE = (7, 3)
posix = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes")


class Bomb:
    """Tells when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def sealed(path: Path, content: bytes) -> None:
    """A file whose checksum is right: whoever writes a store can do that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries.write_blob(path, content, "logits")


def of_objects(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(path.parents[1] / "mark")], dtype=object), allow_pickle=True)
    sealed(path, buffer.getvalue())


def as_long_as_wanted_but_a_pickle(path: Path) -> None:
    content = pickle.dumps(Bomb(path.parents[1] / "mark"))
    size = len(entries.array_header(SHAPE, np.float32)) + 4 * 21
    sealed(path, content.ljust(size, b"\0"))


def huge(path: Path) -> None:
    sealed(path, header("'<f4'", "(1000000000, 1000000)") + bytes(84))


def of_another_type(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(SHAPE, np.int32))
    sealed(path, buffer.getvalue())


def with_a_value_less(path: Path) -> None:
    sealed(path, entries.array_header(SHAPE, np.float32) + bytes(80))


def with_a_value_more(path: Path) -> None:
    sealed(path, entries.array_header(SHAPE, np.float32) + bytes(88))


def nested(path: Path) -> None:
    sealed(path, header("(" * 50 + ")" * 50, "(7, 3)") + bytes(84))


def cut(path: Path) -> None:
    of_another_type(path)
    path.write_bytes(path.read_bytes()[:-40])


def link(path: Path) -> None:
    outside = path.parents[1].with_name("outside.npy")
    np.save(outside, np.ones(SHAPE, np.float32))
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)


def pipe(path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir(parents=True)


def garbage_at_the_end(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(os.urandom(500) + entries._LENGTH.pack(65535) + bytes(16) + entries._MAGIC)


HOSTILE = [
    of_objects,
    as_long_as_wanted_but_a_pickle,
    huge,
    of_another_type,
    with_a_value_less,
    with_a_value_more,
    nested,
    cut,
    garbage_at_the_end,
    pytest.param(link, marks=posix),
    pytest.param(pipe, marks=posix),
    folder,
]


def fill(array: npt.NDArray[np.float32]) -> None:
    array[:] = 2.0


@pytest.mark.parametrize("plant", HOSTILE)
def test_a_hostile_array_is_computed_anew(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    root = tmp_path / "store"
    path = root / KEY[:2] / f"{KEY}.npy"
    plant(path)
    list(entries_of(root))
    list(damaged_entries(root))
    tracemalloc.start()
    found = Store(root).array(KEY, SHAPE, np.float32, fill)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found == 2.0).all()
    assert found.dtype == np.float32
    assert path.is_file()
    assert not path.is_symlink()
    assert peak < 20e6
    assert not (root / "mark").exists()


@pytest.mark.parametrize("plant", [cut, *HOSTILE[-4:]])
def test_hostile_bytes_are_computed_anew(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    root = tmp_path / "store"
    plant(root / KEY[:2] / f"{KEY}.blob")
    assert Store(root).find(KEY) is None
    assert Store(root).blob(KEY, lambda: b"new") == b"new"
    assert Store(root).find(KEY) == b"new"


@posix
def test_what_a_link_points_to_stays_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "store"
    link(root / KEY[:2] / f"{KEY}.npy")
    Store(root).array(KEY, SHAPE, np.float32, fill)
    assert (np.load(tmp_path / "outside.npy") == 1.0).all()
    assert (root / "damaged" / f"{KEY}.npy").is_symlink()


@posix
def test_folders_that_are_links_are_neither_read_nor_written_nor_cleaned(tmp_path: Path) -> None:
    root, outside = tmp_path / "store", tmp_path / "outside"
    sealed(outside / f"{KEY}.blob", b"theirs")
    root.mkdir()
    (root / KEY[:2]).symlink_to(outside)
    (root / "damaged").symlink_to(outside)
    store = Store(root)
    assert store.find(KEY) is None
    with pytest.raises(InputError, match=r"a folder in it is a link.*--store"):
        store.blob(KEY, lambda: b"ours")
    assert list(entries_of(root)) == []
    clean(root, max_size=0)
    assert [path.name for path in outside.iterdir()] == [f"{KEY}.blob"]


@posix
def test_a_store_may_itself_be_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = Store(tmp_path / "link")
    assert store.blob(KEY, lambda: b"ours") == b"ours"
    assert [entry.key for entry in entries_of(tmp_path / "link")] == [KEY]


def test_a_giant_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / KEY[:2] / f"{KEY}.blob"
    sealed(path, bytes(600_000))
    assert Store(tmp_path).find(KEY) == bytes(600_000)
    monkeypatch.setattr(entries, "_memory", lambda: 1_000_000)
    monkeypatch.setattr(entries, "_digest", None)
    with pytest.raises(InputError, match=r"586\.. KiB.*memory.*--store"):
        Store(tmp_path).find(KEY)
    assert path.exists()


def test_memory_is_known() -> None:
    assert 1 << 28 < entries._memory() < 1 << 50


@pytest.mark.parametrize(
    "about",
    [
        b"",
        b"[]",
        b"not json",
        b'{"kind": 3, "created": "today"}',
        b'{"kind": "", "created": -1}',
        b'{"kind": "x", "created": 1e999}',
        b'{"kind": "x", "created": ' + b"9" * 4000 + b"}",
        b"[" * 4000,
        json.dumps({"kind": "\x1b[31m\n" + "k" * 3000, "created": 2**40}).encode(),
    ],
    ids=range(9),
)
def test_what_a_seal_says_of_itself_is_not_believed(tmp_path: Path, about: bytes) -> None:
    path = tmp_path / KEY[:2] / f"{KEY}.blob"
    path.parent.mkdir(parents=True)
    covered = b"content" + about + entries._LENGTH.pack(len(about))
    with path.open("w+b") as file:
        file.write(covered)
        digest = entries._digest(file, 0, len(covered))
        file.seek(0, os.SEEK_END)
        file.write(entries._TAIL.pack(digest, entries._MAGIC))
    (entry,) = entries_of(tmp_path)
    assert len(entry.kind) <= 100
    assert entry.created is None
    assert Store(tmp_path).find(KEY) == b"content"
