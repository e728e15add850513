"""From an untrusted file to plain tensors.

T0 is safetensors. T1 is a zip checkpoint of ``torch.save``: every pickle is first scanned and read
inertly, which settles that nothing is denied and that each tensor fits its storage. A file of plain
torch names then goes through ``torch.load(weights_only=True)``; any other one stays with the inert
reader. There is no third way, and no fallback to one.
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from unaudit.errors import InputError, UnauditError, UnsafeModelError, UsageError
from unaudit.loading.archive import require_stored
from unaudit.loading.inert import InertResult, read_inert
from unaudit.loading.limits import Limits
from unaudit.loading.model import Tier
from unaudit.loading.pickle_scan import Scan, scan
from unaudit.loading.sniff import Sniffed, sniff
from unaudit.loading.stand_ins import LazyTensor
from unaudit.loading.unwrap import MAX_NAME_LENGTH, Weights, find_weights
from unaudit.text import plain

TORCH_FLOOR = (2, 10)
"""Older versions let code through ``weights_only=True`` (CVE-2025-32434, CVE-2026-24747)."""
MAX_LISTED = 20

_PLAIN = re.compile(
    r"collections\.OrderedDict"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)"
    r"|torch\.(Size|(Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage)"
)
_ALIASES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"numpy\.(_?core)\.multiarray\.scalar"), "numpy scalar"),
    (
        re.compile(r"numpy\.(_?core)\.(multiarray\._reconstruct|numeric\._frombuffer)"),
        "numpy array",
    ),
)
_PARTS_OF_OTHERS = re.compile(
    r"numpy\.(dtype|ndarray|dtypes\..*)|_codecs\.encode|builtins\.(set|object|bytearray)|torch\.device"
    r"|torch\.Tensor|torch\.nn\.parameter\.(Parameter|Buffer)"
)


@dataclass(frozen=True, eq=False)
class TensorFile:
    """Named tensors and what was said around them; nothing that could act."""

    format: str
    tier: Tier
    tensors: Mapping[str, torch.Tensor]
    """By name, as in the file; on the CPU."""
    claimed_class: str | None = None
    """The class that a pickled module says it is; unverified."""
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, limits: Limits) -> TensorFile:
    """Read the private copy at ``path``.

    This is the seam of the sandbox: it takes a path and returns plain tensors and strings, nothing
    else crosses, so that it can run in a child process with its own limits.

    Raises:
        InputError: the file is damaged, or holds no weights or several sets of them.
        UnsafeModelError: opening it could run code or exhaust the machine.
    """
    sniffed = sniff(path, limits)
    if sniffed.kind == "safetensors":
        return _read_safetensors(path, limits)
    if sniffed.kind == "torch":
        return _read_torch(path, sniffed, limits)
    raise UsageError("holds arrays, not a network; for recorded outputs give outputs:FILE.npz")


def require_torch(version: str = torch.__version__) -> None:
    """Refuse to unpickle with a torch whose restricted unpickler is known to leak.

    Raises:
        UsageError: ``version`` is below the floor.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < TORCH_FLOOR:
        floor = ".".join(map(str, TORCH_FLOOR))
        raise UsageError(
            f"cannot be read safely by torch {version}; install torch >= {floor} or use safetensors"
        )


def _read_safetensors(path: Path, limits: Limits) -> TensorFile:
    header = _safetensors_header(path, limits)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, or torch on a dtype that it lacks
        raise InputError(
            f"is not valid safetensors ({plain(str(error))}); download or save it again"
        ) from None
    if not tensors:
        raise InputError("holds no weights; save a state dict")
    metadata = header.get("__metadata__")
    extra = sorted(set(metadata) - {"format"}) if isinstance(metadata, dict) else []
    ignored = tuple(f"metadata {plain(key)}" for key in extra[:MAX_LISTED])
    return TensorFile("safetensors", "T0", tensors, ignored=ignored)


def _safetensors_header(path: Path, limits: Limits) -> dict[str, Any]:
    """What the library leaves open: repeated names, and sizes beyond any model."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > limits.index_bytes:
            raise UnsafeModelError(f"has a header of {length:,} bytes; save the weights alone")
        text = file.read(length)
    if len(text) < length:
        raise InputError("is truncated; download or save it again")
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        total = sum(math.prod(shape) for shape in shapes)
        widest = max((len(shape) for shape in shapes), default=0)
        longest = max(map(len, header), default=0)
    except UnauditError:
        raise
    except Exception:  # any shape of JSON but the right one
        raise InputError("has a damaged header; download or save it again") from None
    if total > limits.parameters or len(shapes) > limits.tensors:
        raise UnsafeModelError(
            f"holds {total:,} numbers in {len(shapes):,} tensors; save the weights alone"
        )
    if widest > limits.dimensions or longest > MAX_NAME_LENGTH:
        raise UnsafeModelError("holds a tensor with an absurd shape or name; save it again")
    return dict(header)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise UnsafeModelError("names a tensor twice; save it again")
    return unique


def _read_torch(path: Path, sniffed: Sniffed, limits: Limits) -> TensorFile:
    require_torch()
    require_stored(sniffed.members.values())
    root = next(iter(sniffed.members)).split("/", 1)[0]
    sizes = {name: member.file_size for name, member in sniffed.members.items()}
    storages = {
        name.removeprefix(f"{root}/data/"): size
        for name, size in sizes.items()
        if name.startswith(f"{root}/data/")
    }
    if sizes[f"{root}/data.pkl"] > limits.index_bytes:
        raise UnsafeModelError("its pickle is too large to be checked; save the weights alone")
    with zipfile.ZipFile(path) as archive:
        pickled = _member(archive, f"{root}/data.pkl")
        scanned = scan(pickled, limits)
        byte_order = _member(archive, f"{root}/byteorder") if f"{root}/byteorder" in sizes else b""
        if byte_order not in (b"", sys.byteorder.encode()):
            raise InputError("was saved on a machine of another byte order; save it as safetensors")
        inert = read_inert(pickled, storages, limits)
        weights = find_weights(inert.root, limits)
        if _is_plain(scanned):
            found, how = find_weights(_load_weights_only(path), limits).tensors, "weights only"
            tensors = {name: leaf for name, leaf in found.items() if isinstance(leaf, torch.Tensor)}
            if _geometry(tensors) != _geometry(weights.tensors):
                raise UnsafeModelError("reads differently in two readers; save it as safetensors")
        else:
            lazy = {k: leaf for k, leaf in weights.tensors.items() if isinstance(leaf, LazyTensor)}
            tensors, how = _Materializer(archive, root).all(lazy), "inert reader"
    return TensorFile(
        f"torch checkpoint ({how})",
        "T1",
        tensors,
        weights.claimed_class,
        _ignored(weights, inert),
        tuple(f"weights found under '{plain('.'.join(weights.path))}'" for _ in weights.path[:1]),
    )


def _geometry(tensors: Mapping[str, Any]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    return {
        name: (leaf.dtype, tuple(leaf.size if isinstance(leaf, LazyTensor) else leaf.shape))
        for name, leaf in tensors.items()
    }


def _is_plain(scanned: Scan) -> bool:
    """Whether a checkpoint uses only what every state dict uses, in torch's own protocol."""
    return scanned.protocol == 2 and all(
        _PLAIN.fullmatch(f"{module}.{name}") for module, name in scanned.mentions
    )


def _load_weights_only(path: Path) -> Any:
    try:
        with torch.sparse.check_sparse_tensor_invariants():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # zip, pickle or tensor trouble, all in the file
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"torch refuses it ({plain(first[0])}); download or save it again"
        ) from None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except Exception:  # checksum or header trouble
        raise InputError(
            f"its zip member '{plain(name)}' is damaged; download or save it again"
        ) from None


class _Materializer:
    """Reads the storages that the wanted tensors lie in, each once."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive = archive
        self._root = root
        self._storages: dict[str, torch.Tensor] = {}

    def all(self, tensors: Mapping[str, LazyTensor]) -> dict[str, torch.Tensor]:
        return {name: self._tensor(lazy) for name, lazy in tensors.items()}

    def _tensor(self, lazy: LazyTensor) -> torch.Tensor:
        if lazy.numel == 0:
            return torch.empty(lazy.size, dtype=lazy.dtype)
        storage = self._storage(lazy.storage.key)
        count = lazy.storage.numel * lazy.storage.dtype.itemsize // lazy.dtype.itemsize
        flat = storage[: count * lazy.dtype.itemsize]
        # A byte other than 0 and 1 is no bool; torch does not check
        typed = flat != 0 if lazy.dtype == torch.bool else flat.view(lazy.dtype)
        return typed.as_strided(lazy.size, lazy.stride, lazy.offset)

    def _storage(self, key: str) -> torch.Tensor:
        if key not in self._storages:
            data = bytearray(_member(self._archive, f"{self._root}/data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=torch.uint8)
        return self._storages[key]


def _ignored(weights: Weights, inert: InertResult) -> tuple[str, ...]:
    """Keys that were passed over, then foreign objects with their number."""
    counts: dict[str, int] = {}
    for qualified, count in inert.opaque.items():
        if qualified in weights.modules or _PARTS_OF_OTHERS.fullmatch(qualified):
            continue
        name = next((alias for known, alias in _ALIASES if known.fullmatch(qualified)), qualified)
        counts[name] = counts.get(name, 0) + count
    objects = [f"{name} ×{count}" if count else name for name, count in counts.items()]
    found = [*weights.left_out, *objects]
    more = (f"{len(found) - MAX_LISTED} more",) if len(found) > MAX_LISTED else ()
    return (*(plain(name, 80) for name in found[:MAX_LISTED]), *more)
