"""Data sets whose inputs are images in a file format such as PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
from PIL import Image

from unaudit.data.fingerprint import fingerprints_of
from unaudit.data.images import BadExampleError, decode, stack
from unaudit.data.indexed import Index
from unaudit.data.preprocess import Preprocessor
from unaudit.data.read_ahead import available_cores
from unaudit.data.source import Source
from unaudit.data.streaming import CHUNK_BYTES, StreamedDataset
from unaudit.engine.store import Store
from unaudit.errors import UsageError
from unaudit.evidence import IntArray
from unaudit.text import plain

MOST_PER_TASK = 64
THREADED_PIXELS = 128 * 128
"""From this size on, decoding frees the interpreter for long enough that several threads pay;
below it, they only get in each other's way (measured: 2 threads take 1.6 × the time of one at
32×32 JPEG)."""


class ImageDataset(StreamedDataset):
    """Examples that are stored as image files or their bytes."""

    def __init__(
        self,
        source: Source,
        index: Index,
        encoded: Callable[[IntArray], Iterable[bytes]],
        preprocessor: Preprocessor,
        store: Store,
    ) -> None:
        """``encoded`` gives the images at some rows, in that order; it may be called by threads."""
        super().__init__(source, index, preprocessor, store)
        self._encoded = encoded
        first = self._guard(lambda: list(self._decoded(np.zeros(1, dtype=np.int64))))[0]
        self._pixels = first.width * first.height
        if self._pixels >= THREADED_PIXELS:
            self.threads = min(8, available_cores())
        try:
            self._fitted_size = self._fitted(first, 0).size
            width, height = self._fitted_size
            self.input_shape = preprocessor.shape_of((height, width, len(first.getbands())))
        except UsageError as error:
            raise UsageError(f"{plain(source.spec, 400)}: {error}") from None

    @property
    def _per_task(self) -> int:
        return max(1, min(MOST_PER_TASK, CHUNK_BYTES // (4 * self._pixels)))

    def _decoded(self, rows: IntArray) -> Iterator[Image.Image]:
        for row, data in zip(rows.tolist(), self._encoded(rows), strict=True):
            yield self._decode(data, row)

    def _decode(self, data: bytes, row: int) -> Image.Image:
        try:
            return decode(data, self.preprocessor.mode)
        except BadExampleError as problem:
            raise self.bad(row, problem) from None

    def _fitted(self, image: Image.Image, row: int) -> Image.Image:
        try:
            return self.preprocessor.fit_image(image)
        except BadExampleError as problem:
            raise self.bad(row, problem) from None

    def _load(self, rows: IntArray, out: npt.NDArray[np.float32]) -> None:
        done = 0
        fitted = (
            self._checked(self._fitted(image, row), row)
            for row, image in zip(rows.tolist(), self._decoded(rows), strict=True)
        )
        while images := list(islice(fitted, self._per_task)):
            self.preprocessor.finish(stack(images), out[done : done + len(images)])
            done += len(images)

    def _checked(self, image: Image.Image, row: int) -> Image.Image:
        if image.size != self._fitted_size:
            width, height = self._fitted_size
            raise self.bad(
                row,
                f"has {image.height}×{image.width} pixels (height × width), but "
                f"{self.index.describe(0)} has {height}×{width}; set preprocess.resize",
            )
        return image

    def _prints(self, rows: IntArray) -> npt.NDArray[np.uint8]:
        parts: list[npt.NDArray[np.uint8]] = []
        alike: list[Image.Image] = []

        def flush() -> None:
            if alike:
                parts.append(fingerprints_of(stack(alike), channels_last=True))
                alike.clear()

        for image in self._decoded(rows):
            if alike and image.size != alike[0].size:
                flush()
            alike.append(image)
            if len(alike) * image.width * image.height * 4 > CHUNK_BYTES:
                flush()
        flush()
        return np.concatenate(parts)
