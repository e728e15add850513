"""What shadow models are trained on and asked about: the data as it lies there, and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unaudit.engine.store import Store, content_key
from unaudit.evidence import IntArray, SplitName
from unaudit.shadows.design import Design
from unaudit.training.model_job import opened

CHUNK = 1024
"""Examples that are copied at a time."""
MEMBER, ERASED = 0, 1
"""Masks of each model."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Training and unseen data, numbered one after the other, and the masks of all models."""

    train: Tensor
    """(n, …) float32."""
    train_labels: Tensor
    """(n,) int64."""
    unseen: Tensor | None
    """(u, …) float32."""
    unseen_labels: Tensor | None
    """(u,) int64."""
    pool: Tensor
    """(k,) int64 positions of the examples in question, in the order of the design's columns."""
    masks: npt.NDArray[np.uint8]
    """(m, 2, ⌈(n + u)/8⌉): by model the packed bits of what it is trained on, and unlearns."""

    @classmethod
    def opened(cls, places: Mapping[str, str]) -> Examples:
        """Read as they are used.

        Args:
            places: files of ``inputs``, ``labels``, ``pool`` and ``masks``, and of
                ``unseen_inputs`` and ``unseen_labels`` where there are unseen examples.
        """
        unseen = "unseen_inputs" in places
        return cls(
            train=opened(places["inputs"]),
            train_labels=opened(places["labels"]),
            unseen=opened(places["unseen_inputs"]) if unseen else None,
            unseen_labels=opened(places["unseen_labels"]) if unseen else None,
            pool=opened(places["pool"]),
            masks=np.load(places["masks"], mmap_mode="r", allow_pickle=False),
        )

    def members(self, number: int) -> Tensor:
        """(t,) int64 positions, ascending, that a model is trained on."""
        return self._mask(number, MEMBER).nonzero().flatten()

    def erased(self, number: int) -> Tensor:
        """(t,) bool: which of its :meth:`members` a model unlearns."""
        return self._mask(number, ERASED)[self.members(number)]

    def take(
        self,
        positions: Tensor,
        device: torch.device,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> tuple[Tensor, Tensor]:
        """Copies of (t, …) inputs and (t,) labels, on a device.

        Args:
            positions: (t,) int64.
            device: where to.
            layout: of the inputs in memory.
        """
        shape = len(positions), *self.train.shape[1:]
        inputs = torch.empty(shape, dtype=self.train.dtype, memory_format=layout)
        labels = torch.empty(len(positions), dtype=torch.int64)
        late = positions >= len(self.train)
        for start in range(0, len(positions), CHUNK):
            part = slice(start, start + CHUNK)
            now, early = positions[part], ~late[part]
            inputs[part][early] = self.train[now[early]]
            labels[part][early] = self.train_labels[now[early]]
            if self.unseen is not None and self.unseen_labels is not None:
                others = now[~early] - len(self.train)
                inputs[part][~early] = self.unseen[others]
                labels[part][~early] = self.unseen_labels[others]
        return inputs.to(device), labels.to(device)

    def _mask(self, number: int, which: int) -> Tensor:
        count = len(self.train) + (0 if self.unseen is None else len(self.unseen))
        bits = np.unpackbits(self.masks[number, which], count=count)
        return torch.from_numpy(bits.astype(np.bool_))


def lay_out(
    design: Design,
    rows: Mapping[SplitName, IntArray],
    counts: tuple[int, int],
    store: Store,
) -> tuple[dict[str, str], list[str]]:
    """Write pool and masks into the store.

    Args:
        design: of positions in splits.
        rows: of each split, its positions in its data: unseen in the unseen data, the others in the
            training data.
        counts: examples of the training data and of the unseen data.
        store: keeps them.

    Returns:
        Places ``pool`` and ``masks``; for each model a digest of what it is trained on and asked.
    """
    train, unseen = counts
    where = {name: own + (train if name == "unseen" else 0) for name, own in rows.items()}
    pool = np.concatenate([where[name][at] for name, at in design.rows.items()])
    core = where["retain"][design.core]

    def pack(number: int) -> npt.NDArray[np.uint8]:
        masks = np.zeros((2, train + unseen), dtype=np.bool_)
        masks[MEMBER, core] = True
        masks[MEMBER, pool[design.member[number]]] = True
        if design.erased is not None:
            masks[ERASED, pool[design.erased[number]]] = True
        return np.packbits(masks, axis=1)

    def fill(array: npt.NDArray[Any]) -> None:
        for number in range(design.models):
            array[number] = pack(number)

    asked = hashlib.sha256(pool.astype("<i8").tobytes()).digest()
    digests = [
        hashlib.sha256(asked + pack(number).tobytes()).hexdigest()
        for number in range(design.models)
    ]
    about = {"digests": digests, "train": train, "unseen": unseen}
    form = (design.models, 2, -(-(train + unseen) // 8))
    masks = store.array(content_key("shadow-masks", **about), form, np.uint8, fill)

    def fill_pool(array: npt.NDArray[Any]) -> None:
        array[:] = pool

    kept = store.array(
        content_key("shadow-pool", pool=asked.hex()), pool.shape, np.int64, fill_pool
    )
    return {"pool": path_of(kept), "masks": path_of(masks)}, digests


def path_of(array: npt.NDArray[Any]) -> str:
    """The file of an array of the store."""
    assert isinstance(array, np.memmap)
    return str(array.filename)
