"""Writers of model files, honest and hostile."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

ARCH = "unaudit:mlp?widths=4-6-3"

PLAIN_STORAGES = {"0": struct.pack("<6f", *range(6))}


def network(seed: int = 0) -> nn.Sequential:
    """The network of :data:`ARCH` with random weights."""
    from unaudit.loading.networks import mlp

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp((4, 6, 3)).eval()


def saved(value: Any, path: Path, **options: Any) -> Path:
    """``value`` as ``torch.save`` writes it."""
    torch.save(value, path, **options)
    return path


def checkpoint(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    root: str = "archive",
    byteorder: bytes = sys.byteorder.encode(),
    compression: int = zipfile.ZIP_STORED,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """A zip checkpoint around any bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickled)
        archive.writestr(f"{root}/byteorder", byteorder)
        for key, data in (PLAIN_STORAGES if storages is None else storages).items():
            archive.writestr(f"{root}/data/{key}", data)
        archive.writestr(f"{root}/version", b"3\n")
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return path


def repacked(source: Path, path: Path, pickled: bytes) -> Path:
    """``source`` with another pickle and everything else as it was."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            new.writestr(
                member.filename, pickled if member.filename.endswith("/data.pkl") else data
            )
    return path


def pickle_of(path: Path) -> bytes:
    """The pickle in a zip checkpoint."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def text(value: str) -> bytes:
    """Push a string."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    """Push a global."""
    return f"c{module}\n{attribute}\n".encode()


def tensor(
    size: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
    *,
    offset: int = 0,
    key: str = "0",
    numel: int = 6,
    storage: str = "FloatStorage",
) -> bytes:
    """Push a tensor over a storage, as torch.save does."""
    pid = text("storage") + name("torch", storage) + text(key) + text("cpu") + _int(numel)
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"(("
        + pid
        + b"tQ"
        + _int(offset)
        + _ints(size)
        + _ints(stride)
        + b"\x89"
        + name("collections", "OrderedDict")
        + b")RtR"
    )


def state_dict(entries: Mapping[str, bytes], *, protocol: bytes = b"\x80\x02") -> bytes:
    """A whole pickle: a dict from names to pushed values."""
    items = b"".join(text(key) + value for key, value in entries.items())
    return protocol + b"}(" + items + b"u."


def _int(number: int) -> bytes:
    data = pickle.encode_long(number)
    return b"\x8a" + bytes([len(data)]) + data


def _ints(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_int, numbers)) + b"t"


class Calls:
    """Pickles as a call of ``function(*arguments)``: what an attacker writes."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def safetensors_file(path: Path, header: bytes, data: bytes = b"") -> Path:
    """A file in safetensors layout around any header."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def pickled(value: Any, protocol: int = 2) -> bytes:
    """A pickle by the C pickler."""
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()
