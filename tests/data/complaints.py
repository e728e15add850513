"""What every test of unusable data needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.conftest import Opener, is_one_line
from unaudit.data import Dataset
from unaudit.errors import InputError, UnauditError, UsageError


def use(dataset: Dataset) -> None:
    """Read everything, as an audit would."""
    dataset.fingerprints()
    for _ in dataset.batches(np.arange(len(dataset), dtype=np.int64), 2):
        pass


def complaint_about(
    opened: Opener, spec: str | Path, data: dict[str, Any] | None = None, **preprocess: Any
) -> str:
    with pytest.raises(UnauditError) as error:
        use(opened(spec, data, preprocess))
    message = str(error.value)
    assert type(error.value) in (InputError, UsageError)
    assert is_one_line(message)
    assert message.startswith(str(spec))
    return message


def kept_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def folder_of(root: Path, encode: Callable[..., bytes], *sizes: tuple[int, int]) -> Path:
    rng = np.random.default_rng(3)
    for number, size in enumerate(sizes or ((5, 6), (5, 6))):
        path = root / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rng.integers(0, 256, (*size, 3), dtype=np.uint8)))
    return root
