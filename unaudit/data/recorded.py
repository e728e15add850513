"""Examples known only by id and label: the data set behind recorded outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from unaudit.data.dataset import Dataset
from unaudit.errors import InputError
from unaudit.evidence import IntArray


class RecordedDataset(Dataset):
    """Ids and labels of recorded outputs; there are no inputs to feed to a network."""

    def __init__(self, name: str, ids: tuple[str, ...], labels: IntArray, digest: str) -> None:
        self.name = name
        self.ids = np.array(ids, dtype=np.str_)
        self.labels = labels
        self.input_shape = ()
        self.default_id_type = "key"
        self.digest = digest

    def batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        raise InputError(
            f"{self.name}: recorded outputs hold no inputs; give the data with --train and "
            "--unseen, or recorded outputs for every model"
        )

    def fingerprints(self) -> npt.NDArray[np.uint8]:
        raise InputError(f"{self.name}: recorded outputs hold no inputs to compare")
