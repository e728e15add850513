"""Data sets whose inputs are read, decoded and preprocessed while the network is busy."""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from unaudit.data.fingerprint import SIZE
from unaudit.data.indexed import Index, IndexedDataset
from unaudit.data.preprocess import Preprocessor
from unaudit.data.read_ahead import read_ahead
from unaudit.data.source import Source
from unaudit.engine.store import Store, content_key
from unaudit.errors import InputError
from unaudit.evidence import IntArray

T = TypeVar("T")

BATCHES_AHEAD = 2
"""Batches that may be in the making while one is being used."""

CHUNK_BYTES = 8 << 20
"""Decoded values that one thread holds at a time."""


class StreamedDataset(IndexedDataset):
    """What all formats share; a subclass reads and decodes."""

    threads = 1
    """Threads that read and decode."""

    def __init__(
        self, source: Source, index: Index, preprocessor: Preprocessor, store: Store
    ) -> None:
        super().__init__(source, index)
        self.preprocessor = preprocessor
        self._store = store
        self.digest = self._digest()

    def batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in [0, {len(self)})")
        per_task = min(size, self._per_task) if self.threads > 1 else size
        tasks_ahead = max(self.threads, BATCHES_AHEAD * math.ceil(size / per_task))
        return self._stream(rows, size, per_task, tasks_ahead)

    def fingerprints(self) -> npt.NDArray[np.uint8]:
        key = content_key(
            "fingerprints",
            content=self.index.content,
            decoded_as=self.preprocessor.kind,
            mode=self.preprocessor.mode,
            channels_last=self.preprocessor.channels_last,
        )

        def fill(array: npt.NDArray[Any]) -> None:
            starts = range(0, len(self), self._per_task)
            chunks = (
                np.arange(first, min(first + self._per_task, len(self)), dtype=np.int64)
                for first in starts
            )
            done = 0
            for part in read_ahead(
                (partial(self._guard, self._prints, rows) for rows in chunks),
                self.threads,
                2 * self.threads,
            ):
                array[done : done + len(part)] = part
                done += len(part)
            self.source.check_unchanged()

        self.source.check_unchanged()
        return self._store.array(key, (len(self), SIZE), np.uint8, fill)

    def bad(self, row: int, reason: object) -> InputError:
        """An error about one example."""
        return self.source.error(f"{self.index.describe(row)} {reason}")

    @property
    @abstractmethod
    def _per_task(self) -> int:
        """Examples that one thread reads and decodes at a time."""

    @abstractmethod
    def _load(self, rows: IntArray, out: npt.NDArray[np.float32]) -> None:
        """Write the inputs of ``rows`` to ``out``."""

    @abstractmethod
    def _prints(self, rows: IntArray) -> npt.NDArray[np.uint8]:
        """(len(rows), 16) fingerprints."""

    def _digest(self) -> str:
        digest = hashlib.sha256(
            json.dumps([self.index.content, self.preprocessor.digest, self.classes]).encode()
        )
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        if self.ids is not None:
            digest.update("\n".join(self.ids.tolist()).encode())
        return digest.hexdigest()

    def _stream(
        self, rows: IntArray, size: int, per_task: int, tasks_ahead: int
    ) -> Iterator[torch.Tensor]:
        self.source.check_unchanged()
        for batch in read_ahead(self._tasks(rows, size, per_task), self.threads, tasks_ahead):
            if batch is not None:
                yield torch.from_numpy(batch)
        self.source.check_unchanged()

    def _tasks(
        self, rows: IntArray, size: int, per_task: int
    ) -> Iterator[Callable[[], npt.NDArray[np.float32] | None]]:
        """Pieces of work that fill one batch after the other; the last of a batch returns it."""
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = np.empty((len(part), *self.input_shape), dtype=np.float32)
            for first in range(0, len(part), per_task):
                last = first + per_task
                yield partial(
                    self._guard,
                    self._fill,
                    part[first:last],
                    batch[first:last],
                    batch if last >= len(part) else None,
                )

    def _fill(
        self,
        rows: IntArray,
        out: npt.NDArray[np.float32],
        result: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.float32] | None:
        self._load(rows, out)
        return result

    def _guard(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do the work; what goes wrong with the file becomes an error about it."""
        try:
            return work(*arguments)
        except OSError as error:
            self.source.check_unchanged()
            raise self.source.error(f"cannot be read ({error.strerror or error})") from None
