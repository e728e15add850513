"""NumPy archives that cannot be used, and those that would do harm."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.complaints import complaint_about, use
from tests.data.conftest import Opener
from unaudit.data import npz

X = np.arange(24, dtype=np.float32).reshape(4, 6)
Y = np.array([0, 1, 0, 1])


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": X}, "called label or labels or y (found: 'x'); set data.label_column"),
        ({"y": Y}, "set data.input_column"),
        ({"x": X, "data": X, "y": Y}, "both 'x' and 'data' exist; set data.input_column"),
        ({"x": X, "y": Y, "label": Y}, "both 'label' and 'y' exist; set data.label_column"),
        ({"x": X, "y": Y[:3]}, "'y' has shape (3,), but 'x' holds 4 examples"),
        ({"x": X, "y": Y, "id": np.arange(5)}, "'id' has shape (5,)"),
        ({"x": X, "y": np.eye(2)[Y]}, "'y' has shape (4, 2)"),
        ({"x": X[0, 0], "y": Y}, "'x' has shape ()"),
        ({"x": X[:, 0], "y": Y}, "'x' has shape (4,)"),
        ({"x": X[:0], "y": Y[:0]}, "at least one example"),
        ({"x": X[:, :0], "y": Y}, "'x' has shape (4, 0)"),
        ({"x": X.astype(np.complex64), "y": Y}, "dtype complex64, not numbers"),
        ({"x": X.astype("U3"), "y": Y}, "dtype <U3, not numbers"),
        ({"x": X, "y": Y.astype("M8[s]")}, "'y' has dtype datetime64[s]"),
        ({"x": X.view([("a", "f4"), ("b", "f4")]), "y": Y}, "save plain numbers"),
        ({"x": X, "y": Y - 1}, "example 0 is -1; labels count from 0"),
        ({"x": X, "y": Y + 0.5}, "example 0 is 0.5, not a class index"),
        ({"x": X, "y": Y / np.array([1, 1, 1, np.nan])}, "example 3 is nan"),
        ({"x": X, "y": Y, "id": ["a", "b", "a", "c"]}, "examples 0 and 2 have the same id 'a'"),
        ({"x": X, "y": Y, "id": ["a", "", "b", "c"]}, "id of example 1 is missing"),
        ({"x": X, "y": Y, "id": [0.5, 1, 2, 3]}, "id of example 0 is '0.5'"),
        ({"x": X, "y": Y, "id": np.array([b"\xff", b"a", b"b", b"c"])}, "not UTF-8"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_npz_arrays(tmp_path: Path, opened: Opener, arrays: dict[str, Any], complaint: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    assert complaint in complaint_about(opened, tmp_path / "d.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_values_that_are_not_finite(
    tmp_path: Path, opened: Opener, value: float, save: Callable[..., None]
) -> None:
    x = X.astype(np.float64)
    x[2, 3] = value
    save(tmp_path / "d.npz", x=x, y=Y, id=["a", "b", "c", "d"])
    message = complaint_about(opened, tmp_path / "d.npz")
    assert message.endswith("example 'c' holds NaN or infinite values; repair or remove it")


@pytest.mark.parametrize("name", ["x", "y", "id"])
def test_object_arrays_are_refused_and_never_unpickled(
    tmp_path: Path, opened: Opener, name: str
) -> None:
    arrays: dict[str, Any] = {"x": X, "y": Y, "id": np.arange(4)}
    arrays[name] = np.array([Touch(tmp_path / "touched")] * 4, dtype=object)
    np.savez(tmp_path / "d.npz", **arrays)
    assert "holds Python objects" in complaint_about(opened, tmp_path / "d.npz")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_cut_short_anywhere(tmp_path: Path, opened: Opener, save: Callable[..., None]) -> None:
    save(tmp_path / "whole.npz", x=X, y=Y)
    whole = (tmp_path / "whole.npz").read_bytes()
    for length in range(1, len(whole), 37):
        path = tmp_path / f"cut{length}.npz"
        path.write_bytes(whole[:length])
        complaint_about(opened, path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_a_flipped_byte_in_the_values(
    tmp_path: Path, opened: Opener, save: Callable[..., None]
) -> None:
    rng = np.random.default_rng(0)
    save(tmp_path / "d.npz", x=rng.random((4, 600)), y=Y)
    whole = bytearray((tmp_path / "d.npz").read_bytes())
    whole[5000] ^= 0x10
    (tmp_path / "d.npz").write_bytes(whole)
    assert "damaged or truncated npz" in complaint_about(opened, tmp_path / "d.npz")


def npy(shape: tuple[int, ...], dtype: str = "<f4", body: bytes = b"", version: int = 1) -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header + body


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        (npy((4, 6)), "'x' is truncated"),
        (npy((4, 6), body=b"\0" * 95), "'x' is truncated"),
        (npy((4, 6), body=b"\0" * 97), "'x' is truncated"),
        (npy((10**12, 10**6)), "'x' is truncated"),
        (npy((-4, -6), body=b"\0" * 96), "save plain numbers"),
        (npy((4, 6), "|O"), "holds Python objects"),
        (npy((4, 6), version=9), "bad header (npy version 9.0)"),
        (b"\x93NUMPY\x01\x00\x08\x00garbage!", "bad header"),
        (b"not an array", "bad header"),
        (b"", "bad header"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_members(
    tmp_path: Path, opened: Opener, member: bytes, complaint: str, compression: int
) -> None:
    np.savez(tmp_path / "d.npz", y=Y)
    with zipfile.ZipFile(tmp_path / "d.npz", "a", compression) as archive:
        archive.writestr("x.npy", member)
    assert complaint in complaint_about(opened, tmp_path / "d.npz")


def test_npz_that_inflates_out_of_proportion(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((4, 100_000)), y=Y)
    use(opened(tmp_path / "d.npz"))
    monkeypatch.setattr(npz, "BOMB_BYTES", 1 << 20)
    assert "would inflate from" in complaint_about(opened, tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 100_000)), y=Y)
    use(opened(tmp_path / "d.npz"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_archives_of_another_kind(tmp_path: Path, opened: Opener) -> None:
    np.savez(tmp_path / "twice.npz", x=X, y=Y)
    with zipfile.ZipFile(tmp_path / "twice.npz", "a") as archive:
        archive.writestr("x.npy", npy((4, 6), body=b"\0" * 96))
    assert "two arrays are named 'x'" in complaint_about(opened, tmp_path / "twice.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("\x1b[2J" + "é" * 300, b"hello")
    assert "is not an array" in complaint_about(opened, tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "bz.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", npy((4, 6), body=b"\0" * 96))
    assert "compressed in an unusual way" in complaint_about(opened, tmp_path / "bz.npz")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    assert "set data.input_column" in complaint_about(opened, tmp_path / "empty.npz")


def test_a_column_that_does_not_exist(tmp_path: Path, opened: Opener) -> None:
    np.savez(tmp_path / "d.npz", features=X, y=Y)
    for option in ("input_column", "label_column", "id_column"):
        message = complaint_about(opened, tmp_path / "d.npz", {option: "featrues"})
        assert f"'featrues' (data.{option})" in message
        assert "did you mean 'features'?" in message
