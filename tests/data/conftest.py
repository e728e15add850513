"""A tiny labeled set of images and the ways to store it."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unaudit.data import Dataset, open_dataset
from unaudit.engine.store import Store
from unaudit.plan import DataSection, PreprocessSection

Opener = Callable[..., Dataset]


@dataclass(frozen=True)
class Tiny:
    """Twelve 6×5 RGB images in three classes, ordered by class and id."""

    images: npt.NDArray[np.uint8]
    """(12, 6, 5, 3)."""
    labels: npt.NDArray[np.int64]
    """(12,)."""
    ids: tuple[str, ...]
    """``c0/00.png`` and so on: what an image folder would call them."""


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    rng = np.random.default_rng(7)
    labels = np.repeat([0, 1, 2], 4).astype(np.int64)
    return Tiny(
        images=rng.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8),
        labels=labels,
        ids=tuple(f"c{label}/{row:02}.png" for row, label in enumerate(labels)),
    )


def is_one_line(message: str) -> bool:
    """Fit for a terminal: no line breaks, no control characters, not endless."""
    return len(message) < 600 and not any(
        unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp") for mark in message
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def opened(store: Store) -> Opener:
    """``opened(path, {data section}, {preprocess section}, classes=…)``."""

    def open_it(
        spec: str | Path,
        data: dict[str, Any] | None = None,
        preprocess: dict[str, Any] | None = None,
        **options: Any,
    ) -> Dataset:
        return open_dataset(
            str(spec),
            DataSection(**(data or {})),
            PreprocessSection(**(preprocess or {})),
            store,
            **options,
        )

    return open_it


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """An array as the bytes of an image file."""

    def encode_it(pixels: npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind, **options)
        return out.getvalue()

    return encode_it


@pytest.fixture(scope="session")
def everything() -> Callable[[Dataset], npt.NDArray[np.float32]]:
    """All inputs of a data set, in order."""

    def read(dataset: Dataset, size: int = 5) -> npt.NDArray[np.float32]:
        rows = np.arange(len(dataset), dtype=np.int64)
        return np.concatenate([batch.numpy() for batch in dataset.batches(rows, size)])

    return read
