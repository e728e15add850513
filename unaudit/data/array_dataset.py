"""Data sets whose inputs are stored as numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from unaudit.data.fingerprint import fingerprints_of
from unaudit.data.images import BadExampleError
from unaudit.data.indexed import Index
from unaudit.data.preprocess import Preprocessor
from unaudit.data.rows import Rows
from unaudit.data.source import Source
from unaudit.data.streaming import CHUNK_BYTES, StreamedDataset
from unaudit.engine.store import Store
from unaudit.errors import UsageError
from unaudit.evidence import IntArray
from unaudit.text import plain


class ArrayDataset(StreamedDataset):
    """Examples that are stored as numbers, all of one shape."""

    def __init__(
        self,
        source: Source,
        index: Index,
        rows: Rows,
        preprocessor: Preprocessor,
        store: Store,
    ) -> None:
        super().__init__(source, index, preprocessor, store)
        self._rows = rows
        first = self._guard(rows.read, np.zeros(1, dtype=np.int64))
        try:
            fitted = self._fitted(first[0], 0)
            self.input_shape = preprocessor.shape_of(fitted.shape)
        except UsageError as error:
            raise UsageError(f"{plain(source.spec, 400)}: {error}") from None

    @property
    def _per_task(self) -> int:
        example = self._rows.dtype.itemsize * math.prod(self._rows.shape[1:])
        return max(1, CHUNK_BYTES // max(1, example))

    def _load(self, rows: IntArray, out: npt.NDArray[np.float32]) -> None:
        step = self._per_task
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            examples = self._rows.read(part)
            if self.preprocessor.fits:
                examples = np.stack(
                    [
                        self._fitted(example, int(row))
                        for example, row in zip(examples, part, strict=True)
                    ]
                )
            finite = self.preprocessor.finish(examples, out[start : start + step])
            if finite is not None and not finite.all():
                row = int(part[np.flatnonzero(~finite)[0]])
                raise self.bad(row, "holds NaN or infinite values; repair or remove it")

    def _prints(self, rows: IntArray) -> npt.NDArray[np.uint8]:
        return fingerprints_of(self._rows.read(rows), channels_last=self.preprocessor.channels_last)

    def _fitted(self, example: npt.NDArray[Any], row: int) -> npt.NDArray[Any]:
        try:
            return self.preprocessor.fit_array(example)
        except BadExampleError as problem:
            raise self.bad(row, problem) from None
