"""A real Hugging Face parquet file against plain Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.data.conftest import Opener
from unaudit.data import locate

CIFAR = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "cifar10" / "test.parquet"

pytestmark = pytest.mark.skipif(not CIFAR.exists(), reason="shared/data/cifar10 is not here")


def test_rows_decode_as_with_plain_pillow(opened: Opener) -> None:
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    dataset = opened(CIFAR, preprocess={"mean": mean, "std": std})
    assert len(dataset) == 10_000
    assert dataset.input_shape == (3, 32, 32)
    assert np.bincount(dataset.labels).tolist() == [1000] * 10
    table = pq.read_table(CIFAR)
    rows = np.random.default_rng(0).permutation(10_000)[:300].astype(np.int64)
    found = torch.cat(list(dataset.batches(rows, 64)))
    for position, row in enumerate(rows.tolist()):
        stored = table.column("img")[row].as_py()["bytes"]
        pixels = np.array(Image.open(io.BytesIO(stored)).convert("RGB"))
        expected = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
        expected = (expected - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        assert torch.equal(found[position], expected)
    keys = [table.column("id")[row].as_py() for row in rows.tolist()]
    assert locate(keys, dataset).tolist() == rows.tolist()
    assert len(np.unique(dataset.fingerprints(), axis=0)) > 9_900
