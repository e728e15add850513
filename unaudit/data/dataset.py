"""Examples with ids and labels, read in a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from unaudit.evidence import IntArray


class Dataset(ABC):
    """Labeled examples in a fixed order.

    Ids and labels are in memory; inputs are read, decoded and preprocessed batch by batch.
    """

    name: str
    """File or folder name for messages and reports, without the folders above it."""
    labels: IntArray
    """(n,) int64."""
    ids: npt.NDArray[np.str_] | None
    """(n,) unique strings, or None where examples are known by position only."""
    groups: npt.NDArray[np.str_] | None = None
    """(n,) whose record each example is, or None where the data do not say. Decides no batch, so it
    is not part of the digest."""
    input_shape: tuple[int, ...]
    """Shape of one example after preprocessing."""
    default_id_type: Literal["index", "key"]
    classes: tuple[str, ...] | None = None
    """Class names in label order, where labels are stored as names; None where as numbers."""
    digest: str
    """Digest of the stored bytes, labels, ids and the preprocessing: what decides every batch."""
    input_dtype: np.dtype[Any] = np.dtype(np.float32)
    """Of the inputs in a batch: float32, or int64 for token ids."""
    notes: tuple[str, ...] = ()
    """What a reader of a report must know of how inputs came about."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        """Preprocessed inputs of ``rows``, in that order: (≤ size, *input_shape).

        Raises:
            InputError: an example cannot be decoded or has another shape; names its id.
        """

    def cheapest_order(self, rows: IntArray) -> IntArray:
        """(n,) places in ``rows``, in an order in which these cost a network the least."""
        return np.arange(len(rows), dtype=np.int64)

    @abstractmethod
    def fingerprints(self) -> npt.NDArray[np.uint8]:
        """(n, 16) digest of each example's decoded input before preprocessing, labels left out.

        Equal rows mean equal inputs, whatever file format they are stored in.
        """
