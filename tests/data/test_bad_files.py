"""Files that are no data at all, and files that change or vanish."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.data.complaints import complaint_about, folder_of, use
from tests.data.conftest import Opener
from unaudit.data import Dataset
from unaudit.errors import InputError

Encode = Callable[..., bytes]
X = np.arange(24, dtype=np.float32).reshape(4, 6)
Y = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("d.npz", b"", "the file is empty"),
        ("d.npz", b"<!DOCTYPE html><html>", "HTML or XML"),
        ("d.npz", pickle.dumps({"x": 1}), "this is a pickle, which is not opened"),
        ("d.parquet", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("d.csv.gz", b"\x1f\x8b\x08\0", "compressed with gzip"),
        ("d.csv", b"a,label\0\n", "not a known kind of data"),
        ("d.txt", b"a,label\n1,0\n", "not a known kind of data; give npz"),
        ("d.bin", b"\xde\xad\xbe\xef", "not a known kind of data"),
    ],
)
def test_other_content(
    tmp_path: Path, opened: Opener, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert complaint in complaint_about(opened, tmp_path / name)


def test_a_single_array(tmp_path: Path, opened: Opener) -> None:
    out = io.BytesIO()
    np.save(out, X)
    (tmp_path / "x.npy").write_bytes(out.getvalue())
    assert "np.savez(x=…, y=…)" in complaint_about(opened, tmp_path / "x.npy")


def test_paths_that_lead_nowhere(tmp_path: Path, opened: Opener) -> None:
    assert "no such file or folder" in complaint_about(opened, tmp_path / "none.npz")
    assert "cannot be read" in complaint_about(opened, str(tmp_path / ("x" * 300)))
    with pytest.raises(InputError):
        opened("a\0b")


def test_messages_hold_the_folder_but_the_name_does_not(tmp_path: Path, opened: Opener) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    assert opened(tmp_path / "d.npz").name == "d.npz"
    assert opened(f"{tmp_path}/./d.npz").name == "d.npz"


def test_a_file_that_changes_while_in_use(tmp_path: Path, opened: Opener) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=X, y=Y)
    dataset = opened(path)
    np.savez(path, x=X + 1, y=Y, extra=X)
    with pytest.raises(InputError, match="changed while it was being read"):
        dataset.fingerprints()
    with pytest.raises(InputError, match="changed while it was being read"):
        list(dataset.batches(np.arange(4, dtype=np.int64), 4))


def test_an_image_that_changes_while_in_use(tmp_path: Path, opened: Opener, encode: Encode) -> None:
    root = folder_of(tmp_path / "d", encode)
    dataset = opened(root)
    (root / "class 1" / "1.png").write_bytes(encode(np.zeros((5, 6, 3), dtype=np.uint8)))
    with pytest.raises(InputError, match=r"'class 1/1.png' changed"):
        use(dataset)
    (root / "class 1" / "1.png").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        use(dataset)


def values(dataset: Dataset) -> npt.NDArray[np.float32]:
    rows = np.arange(len(dataset), dtype=np.int64)
    return np.concatenate([batch.numpy() for batch in dataset.batches(rows, 3)])


def test_a_deleted_store_does_no_harm(tmp_path: Path, opened: Opener) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=X, y=Y)
    dataset = opened(tmp_path / "d.npz")
    shutil.rmtree(tmp_path / "store")
    assert np.array_equal(values(dataset), X)
    assert np.array_equal(values(opened(tmp_path / "d.npz")), X)
