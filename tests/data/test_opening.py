"""Which format, columns and classes are taken, and what is kept of the data."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.data.conftest import Opener, Tiny
from tests.data.writers import (
    chw,
    write_folder,
    write_npz,
    write_parquet_struct,
)
from unaudit.data import FORMATS, Dataset, Format, locate
from unaudit.data.source import Reading, Source
from unaudit.errors import InputError, UsageError
from unaudit.loading.torchvision_shim import import_torchvision

Everything = Callable[..., npt.NDArray[np.float32]]
Encode = Callable[..., bytes]


def test_labels_ids_and_order_change_the_digest(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode
) -> None:
    digest = opened(write_npz(tmp_path, tiny, encode)).digest
    turned = Tiny(tiny.images[::-1], tiny.labels[::-1], tiny.ids[::-1])
    other_ids = Tiny(tiny.images, tiny.labels, (*tiny.ids[:-1], "z"))
    other_labels = Tiny(tiny.images, tiny.labels[::-1], tiny.ids)
    digests = {
        opened(write_npz(tmp_path, t, encode)).digest for t in (turned, other_ids, other_labels)
    }
    assert len(digests | {digest}) == 4


def test_default_id_type_is_index_without_ids(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode
) -> None:
    np.savez(tmp_path / "a.npz", data=chw(tiny), y=tiny.labels)
    table = pa.table({"image": [encode(p) for p in tiny.images], "label": tiny.labels})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("a,b,label\n1,2,0\n3,4,1\n")
    for name in ("a.npz", "a.parquet", "a.csv"):
        dataset = opened(tmp_path / name)
        assert dataset.ids is None
        assert dataset.default_id_type == "index"
        assert locate(["1"], dataset).tolist() == [1]
        with pytest.raises(UsageError, match="has no ids"):
            locate(["1"], dataset, "key")


def test_csv_with_quotes_and_line_breaks_in_other_columns(
    tmp_path: Path, opened: Opener, everything: Everything
) -> None:
    (tmp_path / "q.csv").write_text('label,a,"b"\n"x, y","1",2\n"two\nlines",-3e0,.5\n')
    dataset = opened(tmp_path / "q.csv")
    assert dataset.classes == ("two\nlines", "x, y")
    assert dataset.labels.tolist() == [1, 0]
    assert everything(dataset).tolist() == [[1, 2], [-3, 0.5]]


def test_columns_can_be_named(tmp_path: Path, tiny: Tiny, opened: Opener) -> None:
    np.savez(
        tmp_path / "n.npz", pixels=chw(tiny), x=chw(tiny)[::-1], target=tiny.labels, key=tiny.ids
    )
    chosen = {"input_column": "pixels", "label_column": "target", "id_column": "key"}
    dataset = opened(tmp_path / "n.npz", chosen)
    assert dataset.default_id_type == "key"
    other = opened(tmp_path / "n.npz", {**chosen, "input_column": "x"})
    assert dataset.digest != other.digest
    assert np.array_equal(dataset.fingerprints(), other.fingerprints()[::-1])


def test_classes_of_the_training_data_number_the_others(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode
) -> None:
    train = opened(write_folder(tmp_path, tiny, encode))
    assert train.classes == ("c0", "c1", "c2")
    later = tmp_path / "later"
    (later / "c2").mkdir(parents=True)
    (later / "c2" / "a.png").write_bytes(encode(tiny.images[0]))
    assert opened(later).labels.tolist() == [0]
    assert opened(later, classes=train.classes).labels.tolist() == [2]
    (later / "c9").mkdir()
    (later / "c9" / "a.png").write_bytes(encode(tiny.images[0]))
    with pytest.raises(InputError, match="'c9', no class of the training data"):
        opened(later, classes=train.classes)


def test_image_folder_order_is_torchvisions(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode
) -> None:
    paths = ["10/b.png", "10/a/z.png", "10/a.png", "2/x.png", "2/Y.png", "2/y/1.png", "2/y/0.png"]
    for position, name in enumerate(paths):
        (tmp_path / "r" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r" / name).write_bytes(encode(tiny.images[position]))
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    reference = import_torchvision().datasets.ImageFolder(str(tmp_path / "r"))
    dataset = opened(tmp_path / "r")
    assert dataset.ids is not None
    expected = [
        os.path.relpath(path, tmp_path / "r").replace(os.sep, "/") for path, _ in reference.samples
    ]
    assert dataset.ids.tolist() == expected
    assert dataset.labels.tolist() == [label for _, label in reference.samples]


def test_links_inside_the_folder_are_followed_to_files(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode
) -> None:
    root = write_folder(tmp_path, tiny, encode)
    (root / "c2" / "99.png").symlink_to(root / "c0" / "00.png")
    dataset = opened(root)
    prints = dataset.fingerprints()
    assert len(dataset) == 13
    assert (prints[12] == prints[0]).all()


def test_a_format_can_be_named(tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode) -> None:
    path = write_npz(tmp_path, tiny, encode)
    assert opened(f"npz:{path}").digest == opened(path).digest
    with pytest.raises(UsageError, match=r"unknown data format 'npx'.*did you mean 'npz'"):
        opened(f"npx:{path}")


def test_a_colon_in_a_file_name_is_no_format(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path, tiny, encode).rename(tmp_path / "my:data.npz")
    monkeypatch.chdir(tmp_path)
    assert len(opened("my:data.npz")) == 12


def test_the_extension_does_not_decide(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode
) -> None:
    path = write_npz(tmp_path, tiny, encode).rename(tmp_path / "d.csv")
    assert opened(path).input_shape == (3, 6, 5)


def test_plug_ins_can_bring_formats(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = write_npz(tmp_path, tiny, encode)

    def open_it(source: Source, reading: Reading) -> Dataset:
        return opened(inner, reading.data.model_dump(), reading.preprocess.model_dump())

    kind = Format(recognizes=lambda source: source.head.startswith(b"MYFMT"), open=open_it)
    monkeypatch.setitem(FORMATS._items, "pkg/mine", kind)
    (tmp_path / "d.mine").write_bytes(b"MYFMT")
    assert len(opened(tmp_path / "d.mine")) == 12
    assert len(opened("pkg/mine:whatever")) == 12


def test_fingerprints_are_cached_in_the_store(
    tmp_path: Path, tiny: Tiny, opened: Opener, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet_struct(tmp_path, tiny, encode)
    prints = opened(path).fingerprints()
    again = opened(path)
    monkeypatch.setattr(again, "_prints", None)
    assert np.array_equal(again.fingerprints(), prints)
    # scaling and resizing happen after the fingerprint, color conversion before it
    assert np.array_equal(opened(path, preprocess={"resize": (3, 3)}).fingerprints(), prints)
    gray = opened(path, preprocess={"channels": "gray"}).fingerprints()
    assert not (gray == prints).all(axis=1).any()


def test_fingerprint_tells_shapes_and_values_apart(tmp_path: Path, opened: Opener) -> None:
    def prints(x: npt.NDArray[Any]) -> list[bytes]:
        np.savez(tmp_path / "f.npz", x=x, y=np.zeros(len(x), dtype=int))
        return [row.tobytes() for row in opened(tmp_path / "f.npz").fingerprints()]

    base = np.arange(12).reshape(1, 3, 4)
    seen = set(prints(base))
    assert set(prints(base.astype(np.uint8))) == seen
    assert set(prints(base.astype(np.float16))) == seen
    assert set(prints(base[:, None])) == seen
    others = [
        base.reshape(1, 4, 3),
        base.reshape(1, 12),
        base + 1,
        base + 0.5,
        base - 1,
        base + 300,
    ]
    for other in others:
        new = set(prints(other))
        assert not new & seen
        seen |= new
    assert len(seen) == 1 + len(others)
    assert prints(np.array([[0.0, 0.5]])) == prints(np.array([[-0.0, 0.5]]))
    mixed = prints(np.array([[1.0, 2.0], [1.5, 2.0]]))
    assert mixed == prints(np.array([[1, 2]])) + prints(np.array([[1.5, 2.0]]))


def test_nothing_is_unpickled_to_find_out_what_a_file_is(tmp_path: Path, opened: Opener) -> None:
    out = io.BytesIO()
    torch.save({"x": torch.zeros(2, 2)}, out)
    (tmp_path / "d.npz").write_bytes(out.getvalue())
    with pytest.raises(InputError, match="is not an array, so this is not an npz"):
        opened(tmp_path / "d.npz")
