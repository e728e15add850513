"""The store: whole entries or none, never stale, never a pickle."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unaudit.engine.store import Store, content_key, kind_of
from unaudit.errors import InputError

SHAPE = (5, 3)


class Counter:
    """Fills an array with its value and counts how often it was asked to."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value
        self.calls = 0

    def __call__(self, array: npt.NDArray[np.float32]) -> None:
        self.calls += 1
        array[:] = self.value


def entry(store: Store, key: str, suffix: str = ".npy") -> Path:
    return store.root / key[:2] / f"{key}{suffix}"


def left_in(folder: Path) -> list[Path]:
    """Files other than the one for locks, which stays."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "locks"]


def test_an_entry_is_computed_once(tmp_path: Path) -> None:
    store, fill = Store(tmp_path), Counter()
    first = store.array("ab12", SHAPE, np.float32, fill)
    second = store.array("ab12", SHAPE, np.float32, fill)
    assert fill.calls == 1
    assert np.array_equal(first, second)
    assert (first == 1.0).all()


def test_several_arrays_are_kept_all_or_none(tmp_path: Path) -> None:
    def fail(missing: Mapping[str, npt.NDArray[np.float32]]) -> None:
        missing["ab12"][:] = 1.0
        raise RuntimeError

    wanted = dict.fromkeys(("ab12", "cd34"), (SHAPE, np.float32))
    with pytest.raises(RuntimeError):
        Store(tmp_path).arrays(wanted, fail)
    assert left_in(tmp_path) == []


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    store, fill = Store(tmp_path), Counter()
    store.array("ab12", SHAPE, np.float32, fill)
    path = entry(store, "ab12")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged))
    again = store.array("ab12", SHAPE, np.float32, fill)
    assert fill.calls == 2
    assert (again == 1.0).all()


@pytest.mark.parametrize("keep", [0, 10, 90, 130])
def test_a_truncated_entry_is_computed_again(tmp_path: Path, keep: int) -> None:
    store, fill = Store(tmp_path), Counter()
    store.array("ab12", SHAPE, np.float32, fill)
    path = entry(store, "ab12")
    path.write_bytes(path.read_bytes()[:keep])
    store.array("ab12", SHAPE, np.float32, fill)
    assert fill.calls == 2


def test_an_entry_of_another_shape_is_computed_again(tmp_path: Path) -> None:
    store, fill = Store(tmp_path), Counter()
    store.array("ab12", SHAPE, np.float32, fill)
    assert store.array("ab12", (3, 5), np.float32, fill).shape == (3, 5)
    assert fill.calls == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(array: npt.NDArray[np.float32]) -> None:
        array[0] = 1.0
        raise error

    store = Store(tmp_path)
    with pytest.raises(error):
        store.array("ab12", SHAPE, np.float32, fail)
    assert left_in(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def full(array: npt.NDArray[np.float32]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"No space left on device.*--store"):
        Store(tmp_path).array("ab12", SHAPE, np.float32, full)
    assert left_in(tmp_path) == []


def test_room_is_taken_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling a sparse map on a full disk would end in a bus error, not in an exception."""

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    fill = Counter()
    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="No space left on device"):
        Store(tmp_path).array("ab12", SHAPE, np.float32, fill)
    assert fill.calls == 0
    assert left_in(tmp_path) == []


def test_several_arrays_come_from_one_computation(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asked = []

    def fill(missing: Mapping[str, npt.NDArray[np.float32]]) -> None:
        asked.append(sorted(missing))
        for array in missing.values():
            array[:] = 2.0

    forms = dict.fromkeys(("aa", "bb"), (SHAPE, np.float32))
    store.arrays(forms, fill)
    entry(store, "bb").unlink()
    found = store.arrays(forms, fill)
    assert asked == [["aa", "bb"], ["bb"]]
    assert all((array == 2.0).all() for array in found.values())


def test_a_store_that_cannot_be_written_names_the_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="--store"):
        Store(blocked).array("ab12", SHAPE, np.float32, Counter())


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    first = Store(tmp_path).secret()
    assert len(first) == 32
    assert Store(tmp_path).secret() == first
    assert Store(tmp_path / "other").secret() != first
    assert (tmp_path / "auditor.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("found", [b"", b"short", bytes(33)], ids=len)
def test_a_damaged_key_is_refused_and_left_alone(tmp_path: Path, found: bytes) -> None:
    """An empty one would let everybody guess what was digested with it."""
    path = tmp_path / "auditor.key"
    path.write_bytes(found)
    with pytest.raises(InputError, match=r"auditor\.key: damaged .* restore it or delete it"):
        Store(tmp_path).secret()
    assert path.read_bytes() == found


def test_the_default_root_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNAUDIT_STORE", str(tmp_path / "here"))
    assert Store().root == tmp_path / "here"


inputs = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=4)


@given(inputs, inputs)
def test_keys_differ_exactly_when_inputs_do(
    a: dict[str, int | str], b: dict[str, int | str]
) -> None:
    assert (content_key("job", values=a) == content_key("job", values=b)) == (a == b)
    assert content_key("job", values=a) != content_key("other", values=a)


def test_a_key_knows_its_kind() -> None:
    key = content_key("logits", model="a")
    assert (key, kind_of(key)) == (str(key), "logits")
    assert kind_of(content_key("unaudit.module:make_model", seed=1)) == "make_model"
    assert kind_of(str(key)) == kind_of("ab12") == "unknown"
    for copied in (copy.copy(key), pickle.loads(pickle.dumps(key))):
        assert (copied, kind_of(copied)) == (key, "logits")
    assert json.loads(json.dumps({key: key})) == {str(key): str(key)}
