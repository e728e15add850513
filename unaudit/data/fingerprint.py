"""A digest of what an example shows, independent of the file format that it is stored in."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = 16
"""Bytes of a fingerprint."""


def fingerprints_of(examples: npt.NDArray[Any], *, channels_last: bool) -> npt.NDArray[np.uint8]:
    """(k, 16) BLAKE2b digests of a stack of decoded examples (k, …), before preprocessing.

    The canonical form of an example is its shape, channels first and axes of size 1 left out,
    followed by its values: one byte each if all of them are whole numbers from 0 to 255, else
    little-endian float32, the precision that a model is fed. So neither the stored type nor the
    order of bytes and axes matters; pixels divided by 255 are other values than the pixels.
    """
    moved = np.moveaxis(examples, -1, 1) if channels_last and examples.ndim > 1 else examples
    shape = repr(tuple(size for size in moved.shape[1:] if size != 1))
    prints = np.empty((len(moved), SIZE), dtype=np.uint8)
    if moved.dtype == np.uint8 or moved.dtype == np.bool_:
        small = np.ones(len(moved), dtype=np.bool_)
        exact = moved
    else:
        flat = moved.reshape(len(moved), -1)
        with np.errstate(invalid="ignore", over="ignore"):
            small = ((flat >= 0) & (flat <= 255) & (flat == np.rint(flat))).all(axis=1)
            # + 0: -0 equals 0, but not in bytes
            exact = moved.astype("<f4", order="C") + np.float32(0)
    as_bytes = exact.astype(np.uint8, order="C", copy=False) if small.all() else None
    for row, is_small in enumerate(small):
        digest = hashlib.blake2b(f"{'u1' if is_small else 'f4'}{shape}".encode(), digest_size=SIZE)
        if as_bytes is not None:
            values: npt.NDArray[np.generic] = as_bytes[row]
        else:
            values = exact[row].astype(np.uint8) if is_small else exact[row]
        digest.update(np.ascontiguousarray(values).data)
        prints[row] = np.frombuffer(digest.digest(), dtype=np.uint8)
    return prints
