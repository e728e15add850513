"""Published sets in torchvision's layouts; nothing unknown is unpickled."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
from PIL import Image

from tests.data.conftest import Opener
from unaudit.data import Dataset
from unaudit.errors import InputError, UnauditError, UsageError
from unaudit.loading.torchvision_shim import import_torchvision

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
Everything = Callable[[Dataset], npt.NDArray[np.float32]]


class Touch:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write_cifar(root: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.uint8]:
    """A small CIFAR10 whose sums take the place of the published ones."""
    folder = root / kind.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 3072), dtype=np.uint8)
    sums = {}
    names = [name for name, _ in [*kind.train_list, *kind.test_list]]
    for number, name in enumerate(names):
        part = slice(2 * number, 2 * number + 2)
        entry = {"data": pixels[part], "labels": [number % 3, 9]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    for attribute in ("train_list", "test_list"):
        listed = [[name, sums[name]] for name, _ in getattr(kind, attribute)]
        monkeypatch.setattr(kind, attribute, listed)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
    return pixels.reshape(12, 3, 32, 32)


def test_cifar(
    tmp_path: Path, opened: Opener, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = write_cifar(tmp_path, import_torchvision().datasets.CIFAR10, monkeypatch)
    train = opened(f"torchvision:CIFAR10?root={tmp_path}")
    assert train.name == "CIFAR10 (train=true)"
    assert train.default_id_type == "index"
    assert train.input_shape == (3, 32, 32)
    assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 0, 9, 1, 9]
    assert np.array_equal(everything(train), pixels[:10].astype(np.float32) / np.float32(255))
    test = opened(f"torchvision:CIFAR10?root={tmp_path}&train=false")
    assert test.labels.tolist() == [2, 9]
    assert len({train.digest, test.digest}) == 2
    np.savez(tmp_path / "same.npz", x=pixels[10:], y=[2, 9])
    assert np.array_equal(test.fingerprints(), opened(tmp_path / "same.npz").fingerprints())


@pytest.mark.parametrize("hostile", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_that_is_not_the_published_one_is_not_opened(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    kind = import_torchvision().datasets.CIFAR10
    write_cifar(tmp_path, kind, monkeypatch)
    marker = tmp_path / "touched"
    (tmp_path / kind.base_folder / hostile).write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(InputError, match=f"{hostile} is not the published file"):
        opened(f"torchvision:CIFAR10?root={tmp_path}")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "SVHN"])
def test_files_that_are_not_there(tmp_path: Path, opened: Opener, name: str) -> None:
    with pytest.raises(InputError, match="put the published files there") as error:
        opened(f"torchvision:{name}?root={tmp_path}")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) in ([], [tmp_path / name])


def test_mnist(tmp_path: Path, opened: Opener, everything: Everything) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        images = struct.pack(">IIII", 0x803, 4, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 0x801, 4) + bytes([3, 1, 2, 0])
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    dataset = opened(f"torchvision:MNIST?root={tmp_path}&train=false")
    assert dataset.labels.tolist() == [3, 1, 2, 0]
    assert np.array_equal(everything(dataset)[:, 0], pixels.astype(np.float32) / np.float32(255))
    (tmp_path / "MNIST" / "processed").mkdir()
    with pytest.raises(InputError, match="old torchvision"):
        opened(f"torchvision:MNIST?root={tmp_path}")


def test_svhn(
    tmp_path: Path, opened: Opener, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = import_torchvision().datasets.SVHN
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    path = tmp_path / "test_32x32.mat"
    scipy.io.savemat(path, {"X": pixels, "y": np.array([[10], [1], [2], [3], [9]])})
    with pytest.raises(InputError, match="is not the published file"):
        opened(f"torchvision:SVHN?root={tmp_path}&split=test")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "split_list", {**kind.split_list, "test": ["", path.name, md5]})
    dataset = opened(f"torchvision:SVHN?root={tmp_path}&split=test")
    assert dataset.labels.tolist() == [0, 1, 2, 3, 9]
    expected = pixels.transpose(3, 2, 0, 1).astype(np.float32) / np.float32(255)
    assert np.array_equal(everything(dataset), expected)


def test_image_folder(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cat" / "a.png")
    dataset = opened(f"torchvision:ImageFolder?root={tmp_path}")
    assert dataset.digest == opened(tmp_path).digest
    with pytest.raises(InputError, match="no such file or folder"):
        opened(f"torchvision:ImageFolder?root={tmp_path}/none")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("torchvision:CIFAR11?root=.", "unknown set 'CIFAR11' (did you mean 'CIFAR10'"),
        ("torchvision:CIFAR10", "no root given; write torchvision:CIFAR10?root=FOLDER"),
        ("torchvision:CIFAR10?root=", "no root given"),
        ("torchvision:CIFAR10?root=.&trian=true", "unknown option 'trian' (did you mean 'train'?)"),
        ("torchvision:CIFAR10?root=.&train=yes", "train must be true or false"),
        ("torchvision:CIFAR10?root=.&split=test", "unknown option 'split'"),
        ("torchvision:CIFAR10?root=.&download=true", "unknown option 'download'"),
        ("torchvision:SVHN?root=.&split=all", "split must be train, test or extra"),
        ("torchvision:os?root=.", "unknown set 'os'"),
        ("torchvison:CIFAR10?root=.", "unknown data format 'torchvison' (did you mean"),
    ],
)
def test_specs(opened: Opener, spec: str, complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        opened(spec)
    assert complaint in str(error.value)
    assert isinstance(error.value, UnauditError)
