"""Recorded outputs: ``outputs:FILE.npz``, for models that are only reachable through an API.

The file holds ``{split}_logits``, ``{split}_labels`` and, optionally, ``{split}_ids``.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unaudit.errors import InputError, UnsafeModelError
from unaudit.loading.limits import Limits
from unaudit.loading.model import Provenance, RecordedModel, RecordedSplit
from unaudit.loading.private_copy import private_copy
from unaudit.loading.sniff import sniff
from unaudit.loading.wording import naming
from unaudit.registry import did_you_mean
from unaudit.text import listed, plain, size

SPLITS = ("train", "forget", "retain", "unseen", "validation")
_ARRAYS = tuple(f"{split}_{part}" for split in SPLITS for part in ("logits", "labels", "ids"))
MAX_INFLATION = 20
"""Uncompressed bytes per byte of the file, beyond the first :data:`FREE_BYTES`."""
FREE_BYTES = 256 << 20
PROBABILITY_TOLERANCE = 1e-4

_Array = npt.NDArray[np.generic]


def load_recorded(path: Path, limits: Limits) -> RecordedModel:
    """Read recorded outputs.

    Raises:
        InputError: arrays are missing, unknown, of another shape or type, or not finite.
        UnsafeModelError: the file would inflate beyond all measure.
    """
    with naming(plain(f"outputs:{path}", 300)), private_copy(path, limits) as copy:
        sniffed = sniff(copy.path, limits)
        if sniffed.kind != "npz":
            raise InputError("is no npz file; write it with numpy.savez")
        arrays = _read_arrays(copy.path, sniffed.members, copy.size_bytes, limits)
        splits = _splits(arrays)
        provenance = Provenance(
            plain(path.name), copy.sha256, copy.size_bytes, "recorded outputs", "T0"
        )
        return RecordedModel(splits, provenance, _digest(splits))


def _read_arrays(
    path: Path, members: Mapping[str, zipfile.ZipInfo], file_bytes: int, limits: Limits
) -> dict[str, _Array]:
    total = sum(member.file_size for member in members.values())
    most = min(limits.recorded_bytes, max(FREE_BYTES, MAX_INFLATION * file_bytes))
    if total > most:
        raise UnsafeModelError(f"would inflate to {size(total)}; write it with numpy.savez")
    names = [name.removesuffix(".npy") for name in members]
    unknown = [name for name in names if name not in _ARRAYS]
    if unknown:
        near = did_you_mean(unknown[0], _ARRAYS)
        hint = near if near.startswith(" (did") else "; arrays are named like unseen_logits"
        raise InputError(f"unknown array '{plain(unknown[0])}'{hint}")
    with zipfile.ZipFile(path) as archive:
        return {name: _read_array(archive, members[f"{name}.npy"], name) for name in names}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> _Array:
    try:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                header = np.lib.format.read_array_header_1_0(file)
            else:
                header = np.lib.format.read_array_header_2_0(file)
            shape, fortran, dtype = header
            start = file.tell()
            if dtype.hasobject:
                raise InputError(
                    f"'{name}' holds Python objects, which could run code; store plain numbers"
                )
            expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if member.file_size != start + expected or any(axis < 0 for axis in shape):
                raise InputError(f"'{name}' is damaged or truncated; write the file again")
            data = file.read()
    except InputError:
        raise
    except Exception:  # zlib, zipfile and numpy each fail in their own way on a damaged member
        raise InputError(f"'{name}' is damaged or truncated; write the file again") from None
    if len(data) != expected:
        raise InputError(f"'{name}' is damaged or truncated; write the file again")
    flat: _Array = np.frombuffer(data, dtype=dtype) if expected else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _splits(arrays: Mapping[str, _Array]) -> dict[str, RecordedSplit]:
    present = [split for split in SPLITS if any(name.startswith(f"{split}_") for name in arrays)]
    if "train" in present and ("forget" in present or "retain" in present):
        raise InputError("holds 'train' beside 'forget' or 'retain'; store either, not both")
    if "train" not in present and "forget" not in present:
        raise InputError("holds neither 'train_logits' nor 'forget_logits'; add one of them")
    splits = {split: _split(split, arrays) for split in present}
    classes = {split: read.logits.shape[1] for split, read in splits.items()}
    if len(set(classes.values())) > 1:
        counts = ", ".join(f"{split} {count}" for split, count in classes.items())
        raise InputError(f"splits have different numbers of classes ({counts}); record one model")
    if "forget" in splits and "retain" in splits:
        retained = set(splits["retain"].ids)
        shared = [key for key in splits["forget"].ids if key in retained]
        if shared:
            raise InputError(
                f"{len(shared)} ids are in both forget and retain ({listed(shared)}); "
                "each example belongs to one"
            )
    return splits


def _split(split: str, arrays: Mapping[str, _Array]) -> RecordedSplit:
    for part in ("logits", "labels"):
        if f"{split}_{part}" not in arrays:
            raise InputError(f"lacks '{split}_{part}'; store logits and labels of each split")
    logits = _logits(f"{split}_logits", arrays[f"{split}_logits"])
    count, classes = logits.shape
    labels = _labels(f"{split}_labels", arrays[f"{split}_labels"], classes)
    stored = arrays.get(f"{split}_ids")
    ids = tuple(map(str, range(count))) if stored is None else _ids(f"{split}_ids", stored)
    for part, length in (("labels", len(labels)), ("ids", len(ids))):
        if length != count:
            raise InputError(
                f"'{split}_{part}' has {length} entries, '{split}_logits' {count}; "
                "store one of each per example"
            )
    return RecordedSplit(logits, labels, ids)


def _logits(name: str, array: _Array) -> npt.NDArray[np.float32]:
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"'{name}' is {array.dtype} {array.shape}; store floating-point (examples, classes)"
        )
    if not array.shape[0]:
        raise InputError(f"'{name}' is empty; leave the split out or store its examples")
    if array.shape[1] < 2:
        raise InputError(f"'{name}' has only one class; store one logit per class, at least two")
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused below
        logits = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise InputError(
            f"'{name}' has NaN or infinite numbers in {int((~finite).sum())} rows (first: row "
            f"{int(finite.argmin())}); clip log-probabilities, for example at -100"
        )
    if logits.min() >= 0 and np.allclose(
        logits.sum(axis=1, dtype=np.float64), 1.0, rtol=0.0, atol=PROBABILITY_TOLERANCE
    ):
        raise InputError(f"'{name}' look like probabilities; store log-probabilities as logits")
    return logits


def _labels(name: str, array: _Array, classes: int) -> npt.NDArray[np.int64]:
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"'{name}' is {array.dtype} {array.shape}; store whole numbers (examples,)"
        )
    whole = array.astype(np.int64)
    # An unsigned number beyond int64 turns negative
    bad = (whole < 0) | (whole >= classes)
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f"'{name}' has {int(bad.sum())} labels outside 0 to {classes - 1} (first: "
            f"{whole[first]} in row {first}); number the classes as the logits do"
        )
    return whole


def _ids(name: str, array: _Array) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "iuUS":
        raise InputError(f"'{name}' is {array.dtype} {array.shape}; store strings or whole numbers")
    try:
        values: list[int | str | bytes] = array.tolist()
        ids = tuple(key.decode() if isinstance(key, bytes) else str(key) for key in values)
    except ValueError:  # not UTF-8, or code points beyond Unicode
        raise InputError(f"'{name}' holds damaged strings; store them as Unicode") from None
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(key for key in ids if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError(f"'{name}' repeats '{plain(twice)}'; ids must be unique within a split")
    return ids


def _digest(splits: Mapping[str, RecordedSplit]) -> str:
    whole = hashlib.sha256()
    for split in sorted(splits):
        read = splits[split]
        ids = b"".join(
            len(key.encode("utf-8", "surrogatepass")).to_bytes(4, "little")
            + key.encode("utf-8", "surrogatepass")
            for key in read.ids
        )
        whole.update(f"{split} {read.logits.shape} {len(ids)}\n".encode())
        whole.update(np.ascontiguousarray(read.logits, dtype="<f4").tobytes())
        whole.update(np.ascontiguousarray(read.labels, dtype="<i8").tobytes())
        whole.update(ids)
    return whole.hexdigest()
