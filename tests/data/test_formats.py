"""One data set in every format: the same ids, labels, inputs and fingerprints."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.data.conftest import Opener, Tiny
from tests.data.writers import (
    PREPROCESS,
    WRITERS,
    Writer,
    chw,
    write_npz,
)

Everything = Callable[..., npt.NDArray[np.float32]]
Encode = Callable[..., bytes]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__.removeprefix("write_"))
def written(request: pytest.FixtureRequest, tmp_path: Path, tiny: Tiny, encode: Encode) -> Path:
    writer: Writer = request.param
    return writer(tmp_path, tiny, encode)


def reference_inputs(tiny: Tiny) -> npt.NDArray[np.float32]:
    """torchvision's ToTensor and Normalize, written out."""
    x = torch.from_numpy(chw(tiny)).to(torch.float32).div(255)
    mean = torch.tensor(PREPROCESS["mean"]).view(3, 1, 1)
    std = torch.tensor(PREPROCESS["std"]).view(3, 1, 1)
    return np.asarray(x.sub(mean).div(std).numpy())


def test_every_format_says_the_same(
    written: Path,
    tiny: Tiny,
    opened: Opener,
    everything: Everything,
    tmp_path: Path,
    encode: Encode,
) -> None:
    dataset = opened(written, preprocess=PREPROCESS)
    assert dataset.name == written.name
    assert len(dataset) == 12
    assert dataset.default_id_type == "key"
    assert dataset.ids is not None
    assert tuple(dataset.ids.tolist()) == tiny.ids
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == tiny.labels.tolist()
    assert dataset.input_shape == (3, 6, 5)
    assert np.array_equal(everything(dataset), reference_inputs(tiny))
    (tmp_path / "other").mkdir()
    plain = opened(write_npz(tmp_path / "other", tiny, encode))
    assert np.array_equal(dataset.fingerprints(), plain.fingerprints())
    assert dataset.fingerprints().shape == (12, 16)
    assert len(np.unique(dataset.fingerprints(), axis=0)) == 12


@pytest.mark.parametrize("rows", [[3], [11, 0, 5, 6, 7, 4], [], [2, 2, 2], list(range(12))[::-1]])
def test_rows_come_in_the_order_asked_for(
    written: Path, rows: list[int], tiny: Tiny, opened: Opener
) -> None:
    dataset = opened(written, preprocess=PREPROCESS)
    batches = list(dataset.batches(np.array(rows, dtype=np.int64), 4))
    assert [len(batch) for batch in batches] == [4] * (len(rows) // 4) + [len(rows) % 4] * (
        len(rows) % 4 > 0
    )
    for batch in batches:
        assert batch.dtype == torch.float32
        assert batch.is_contiguous()
    if rows:
        found = np.concatenate([batch.numpy() for batch in batches])
        assert np.array_equal(found, reference_inputs(tiny)[rows])


def test_rows_outside_the_data(written: Path, opened: Opener) -> None:
    dataset = opened(written, preprocess=PREPROCESS)
    for row in (-1, 12):
        with pytest.raises(IndexError):
            next(iter(dataset.batches(np.array([row]), 1)))


def test_digest_is_stable_and_covers_preprocessing_and_choice(
    written: Path, opened: Opener
) -> None:
    digest = opened(written, preprocess=PREPROCESS).digest
    assert opened(written, preprocess=PREPROCESS).digest == digest
    assert opened(written, preprocess={**PREPROCESS, "scale": 254.0}).digest != digest
    assert opened(written, preprocess={"scale": 255.0}).digest != digest


def test_any_changed_byte_changes_digest_and_fingerprint(
    written: Path, tiny: Tiny, opened: Opener, encode: Encode, request: pytest.FixtureRequest
) -> None:
    before = opened(written, preprocess=PREPROCESS)
    prints = before.fingerprints().copy()
    changed = Tiny(tiny.images.copy(), tiny.labels, tiny.ids)
    changed.images[7, 3, 2, 1] ^= 1
    root = written.parent
    writer = next(w for w in WRITERS if w.__name__.endswith(request.node.callspec.id))
    writer(root, changed, encode)
    after = opened(written, preprocess=PREPROCESS)
    assert after.digest != before.digest
    differing = (after.fingerprints() != prints).any(axis=1)
    assert np.flatnonzero(differing).tolist() == [7]


def test_flat_tables_agree(
    tmp_path: Path, tiny: Tiny, opened: Opener, everything: Everything
) -> None:
    x = tiny.images.reshape(12, -1)[:, :7] / 8
    names = [f"f{column}" for column in range(7)]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *names[:3], "label", *names[3:]])
        for row, key in enumerate(tiny.ids):
            writer.writerow([key, *x[row, :3], f"class {tiny.labels[row]}", *x[row, 3:]])
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    (tmp_path / "t.tsv").write_bytes(b"\xef\xbb\xbf" + text.replace(",", "\t").encode())
    columns = {
        name: x[:, i].astype([np.float64, np.float32][i % 2]) for i, name in enumerate(names)
    }
    pq.write_table(
        pa.table({"label": tiny.labels, **columns, "id": tiny.ids}),
        tmp_path / "t.parquet",
        row_group_size=5,
    )
    with (tmp_path / "t.jsonl").open("w", encoding="utf-8") as file:
        for row, key in enumerate(tiny.ids):
            values = dict(zip(names, x[row].tolist(), strict=True))
            file.write(json.dumps({**values, "label": int(tiny.labels[row]), "id": key}) + "\n")
    np.savez(tmp_path / "t.npz", x=x, y=tiny.labels, id=tiny.ids)
    reference = opened(tmp_path / "t.npz")
    for name in ("t.csv", "t.tsv", "t.parquet", "t.jsonl"):
        dataset = opened(tmp_path / name)
        assert dataset.input_shape == (7,)
        assert dataset.ids is not None
        assert tuple(dataset.ids) == tiny.ids
        assert dataset.labels.tolist() == tiny.labels.tolist()
        assert np.array_equal(everything(dataset), x.astype(np.float32))
        assert np.array_equal(dataset.fingerprints(), reference.fingerprints())
    assert opened(tmp_path / "t.csv").classes == ("class 0", "class 1", "class 2")
    assert opened(tmp_path / "t.npz").classes is None
