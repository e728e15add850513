"""Rows of an array, from memory or straight from the part of a file that holds it."""

from __future__ import annotations

import io
import math
import os
import threading
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unaudit.evidence import IntArray


class Rows(Protocol):
    """An array of examples that need not be in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, rows: IntArray) -> npt.NDArray[Any]:
        """(len(rows), *shape[1:]) the examples at ``rows``, in that order."""
        ...


class MemoryRows:
    """Rows of an array in memory."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype

    def read(self, rows: IntArray) -> npt.NDArray[Any]:
        if _is_run(rows):
            return self.array[int(rows[0]) : int(rows[-1]) + 1]
        return self.array[rows]


class FileRows:
    """Rows of an array stored in C order from byte ``offset`` of a file.

    The file is read, not mapped: a mapping would count as the process's memory page by page, and
    a file cut short meanwhile would kill the process instead of raising OSError. It is opened
    once, so that it can be renamed or deleted while in use.
    """

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._offset = offset
        self._row_bytes = dtype.itemsize * math.prod(shape[1:])
        self._lock = threading.Lock()
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, handle)
        self._file = io.FileIO(handle, closefd=False)

    def read(self, rows: IntArray) -> npt.NDArray[Any]:
        """As promised by :class:`Rows`.

        Raises:
            OSError: the file has become too short or cannot be read.
        """
        result = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        if not result.size:
            return result
        target = result.reshape(-1).view(np.uint8).data
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        bounds = [0, *breaks.tolist(), len(rows)]
        size = self._row_bytes
        with self._lock:
            for first, last in pairwise(bounds):
                self._read_into(target[first * size : last * size], int(rows[first]))
        return result

    def _read_into(self, target: memoryview, row: int) -> None:
        self._file.seek(self._offset + row * self._row_bytes)
        while len(target):
            count = self._file.readinto(target)
            if not count:
                raise OSError("the file ends too early")
            target = target[count:]


def rows_of(array: npt.NDArray[Any]) -> Rows:
    """Rows of an array from the store, read from its file where it has one."""
    if isinstance(array, np.memmap) and array.filename is not None and array.flags.c_contiguous:
        return FileRows(Path(str(array.filename)), array.offset, array.shape, array.dtype)
    return MemoryRows(array)


def _is_run(rows: IntArray) -> bool:
    return len(rows) > 0 and bool((np.diff(rows) == 1).all())
