"""What an entry is on disk: an ordinary array file or bytes, sealed; older forms stay readable."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unaudit.engine import entries
from unaudit.engine.entries import DamagedError
from unaudit.engine.store import Store, content_key

KEY = content_key("logits", model="m")
SHAPE = (7, 3)
VALUES = np.arange(21, dtype=np.float32).reshape(SHAPE)


def path_of(root: Path, suffix: str = ".npy") -> Path:
    return root / KEY[:2] / f"{KEY}{suffix}"


def write(array: npt.NDArray[Any]) -> None:
    array[...] = VALUES


def never(*_: object) -> Any:
    raise AssertionError("computed although it is there")


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def test_an_array_is_a_file_that_numpy_reads(tmp_path: Path) -> None:
    """Workers open arrays by path, without this package's help."""
    made = Store(tmp_path).array(KEY, SHAPE, np.float32, write)
    path = path_of(tmp_path)
    assert isinstance(made, np.memmap)
    assert Path(str(made.filename)) == path
    again = Store(tmp_path).array(KEY, SHAPE, np.float32, never)
    assert isinstance(again, np.memmap)
    assert Path(str(again.filename)) == path
    for mode in (None, "r", "c"):
        assert np.array_equal(np.load(path, mmap_mode=mode), VALUES)
    assert not again.flags.writeable


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "?", "u1", "<U5", [("a", "<i4"), ("b", "?")]])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)], ids=str)
def test_headers_are_those_of_numpy(shape: tuple[int, ...], dtype: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(shape, dtype))
    assert buffer.getvalue().startswith(entries.array_header(shape, dtype))
    for compute in (lambda array: None, never):
        found = Store(tmp_path).array(KEY, shape, dtype, compute)
        assert (found.shape, found.dtype) == (shape, np.dtype(dtype))


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="pickle"):
        Store(tmp_path).array(KEY, (3,), object, never)


def test_a_seal_tells_kind_and_time(tmp_path: Path) -> None:
    before = int(time.time())
    store = Store(tmp_path)
    store.blob(KEY, lambda: b"abc")
    store.array(KEY, SHAPE, np.float32, write)
    for suffix, size in ((".blob", 3), (".npy", 128 + VALUES.nbytes)):
        with path_of(tmp_path, suffix).open("rb") as file:
            seal = entries.read_seal(file)
        assert seal is not None
        assert (seal.kind, seal.payload) == ("logits", size)
        assert seal.created is not None
        assert before <= seal.created <= time.time()


@pytest.mark.parametrize("content", [b"", b"x", bytes(100_000)], ids=len)
def test_bytes_come_back(tmp_path: Path, content: bytes) -> None:
    assert Store(tmp_path).blob(KEY, lambda: content) == content
    assert Store(tmp_path).blob(KEY, never) == content
    assert Store(tmp_path).find(KEY) == content


def test_every_bit_of_an_entry_is_covered(tmp_path: Path) -> None:
    path = tmp_path / "entry.blob"
    entries.write_blob(path, b"content", "kind")
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DamagedError):
            entries.read_blob(path)
        path.write_bytes(whole[:at])
        with pytest.raises(DamagedError):
            entries.read_blob(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedError):
        entries.read_blob(path)


def test_entries_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    path.parent.mkdir()
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(np.float32), shape=SHAPE)
    array[:] = VALUES
    array.flush()
    path.with_suffix(".sum").write_text(digest(VALUES.tobytes()).hex(), encoding="ascii")
    path_of(tmp_path, ".blob").write_bytes(digest(b"old") + b"old")
    store = Store(tmp_path)
    assert np.array_equal(store.array(KEY, SHAPE, np.float32, never), VALUES)
    assert store.find(KEY) == b"old"
    with path.open("rb") as file:
        assert entries.check(file, path) is None


def break_value(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def drop_sum(path: Path) -> None:
    path.with_suffix(".sum").unlink()


def garble_sum(path: Path) -> None:
    path.with_suffix(".sum").write_text("no digest", encoding="ascii")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9])


@pytest.mark.parametrize("harm", [break_value, drop_sum, garble_sum, cut])
def test_damaged_entries_of_earlier_versions_are_replaced(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = path_of(tmp_path)
    path.parent.mkdir()
    np.save(path, VALUES)
    path.with_suffix(".sum").write_text(digest(VALUES.tobytes()).hex(), encoding="ascii")
    harm(path)
    made = Store(tmp_path).array(KEY, SHAPE, np.float32, lambda array: array.fill(2))
    assert (made == 2).all()
    assert (Store(tmp_path).array(KEY, SHAPE, np.float32, never) == 2).all()
    assert not path.with_suffix(".sum").exists()
    assert (tmp_path / "damaged" / path.name).is_file()
