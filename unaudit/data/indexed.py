"""What is known of a data set before its inputs are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from unaudit.data.dataset import Dataset
from unaudit.data.source import Source
from unaudit.evidence import IntArray
from unaudit.text import quote


@dataclass(frozen=True, eq=False)
class Index:
    """What is known of the examples without reading their inputs."""

    labels: IntArray
    """(n,) int64."""
    ids: npt.NDArray[np.str_] | None
    """(n,) unique."""
    classes: tuple[str, ...] | None
    """Class names in label order, if labels were names."""
    content: str
    """Digest of the stored bytes and of the columns chosen from them."""
    groups: npt.NDArray[np.str_] | None = None
    """(n,) whose record each example is."""

    def describe(self, row: int) -> str:
        """An example's name in a message."""
        return f"example {row}" if self.ids is None else f"example {quote(self.ids[row])}"


class IndexedDataset(Dataset):
    """Labels, ids, groups and classes as an index has them."""

    def __init__(self, source: Source, index: Index) -> None:
        """
        Raises:
            InputError: there are no examples.
        """
        self.source = source
        self.name = source.name
        self.labels = index.labels
        self.ids = index.ids
        self.groups = index.groups
        self.classes = index.classes
        self.default_id_type: Literal["index", "key"] = "index" if index.ids is None else "key"
        self.index = index
        if not len(self.labels):
            raise source.error("holds no examples; give data with at least one")
