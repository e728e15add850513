"""Writers of files that a loader must refuse."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.loading import files
from tests.loading.files import ARCH
from unaudit.errors import UnauditError


@dataclass(frozen=True)
class Bad:
    """A file that must be refused."""

    id: str
    write: Callable[[Path, Path], Any]
    """Called with the path to write and a marker that must never come into being."""
    error: type[UnauditError]
    says: str
    """A regular expression for the complaint, remedy included."""
    arch: str | None = ARCH


def weights(**changes: Any) -> dict[str, Any]:
    """The state dict of the test network; None removes a key."""
    state = {**files.network().state_dict(), **changes}
    return {key: value for key, value in state.items() if value is not None}


def write_state(path: Path, _: Path, **changes: Any) -> None:
    torch.save(weights(**{key.replace("__", "."): value for key, value in changes.items()}), path)


def write_bytes(path: Path, _: Path, data: bytes) -> None:
    path.write_bytes(data)


def write_pickle(path: Path, _: Path, pickled: bytes, **options: Any) -> None:
    files.checkpoint(path, pickled, **options)


def write_call(
    path: Path, marker: Path, function: Callable[..., Any], *arguments: str, protocol: int = 2
) -> None:
    """A checkpoint that calls ``function`` when it is unpickled; ``MARKER`` becomes the marker."""
    filled = [argument.replace("MARKER", str(marker)) for argument in arguments]
    value = {"state_dict": weights(), "epoch": files.Calls(function, *filled)}
    torch.save(value, path, pickle_protocol=protocol)


_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    os.system: ("touch MARKER",),
    subprocess.call: ("touch MARKER",),
    eval: ("open('MARKER', 'w')",),
    exec: ("open('MARKER', 'w')",),
    open: ("MARKER", "w"),
    getattr: ("MARKER", "upper"),
    __import__: ("os",),
}


def touching(function: Any, protocol: int = 2) -> Callable[[Path, Path], None]:
    def write(path: Path, marker: Path) -> None:
        write_call(path, marker, function, *_ARGUMENTS[function], protocol=protocol)

    return write


def write_legacy(path: Path, marker: Path, protocol: int) -> None:
    path.write_bytes(files.pickled(files.Calls(os.system, f"touch {marker}"), protocol))


def write_old_torch(path: Path, _: Path) -> None:
    torch.save(weights(), path, _use_new_zipfile_serialization=False)


def write_stand_in(path: Path, marker: Path, members: tuple[str, ...]) -> None:
    """An archive laid out like a format that executes; its pickle would touch the marker."""
    attack = files.pickled(files.Calls(os.system, f"touch {marker}"))
    files.checkpoint(path, attack, extra={f"archive/{member}": b"{}" for member in members})


def write_torchscript(path: Path, _: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}.")
        archive.writestr("m/constants.pkl", b"\x80\x02).")
        archive.writestr("m/code/__torch__/m.py", b"def forward(self): ...", zipfile.ZIP_DEFLATED)


def write_truncated(path: Path, _: Path) -> None:
    torch.save(weights(), path)
    path.write_bytes(path.read_bytes()[:-100])


def write_flipped(path: Path, _: Path) -> None:
    torch.save({**weights(), "meta": np.float64(1)}, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith("/data/0"))
    data[data.index(b"data/0", member.header_offset) + 100] ^= 0xFF
    path.write_bytes(bytes(data))


def write_padded(path: Path, _: Path, before: bytes = b"", after: bytes = b"") -> None:
    torch.save(weights(), path)
    path.write_bytes(before + path.read_bytes() + after)


def write_zip(path: Path, _: Path, *names: str, mode: int = 0) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", files.state_dict({"w": files.tensor()}))
        for name in names:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, b"x")


def write_header_mismatch(path: Path, _: Path) -> None:
    """The local header names another member than the directory."""
    files.checkpoint(path, files.state_dict({"w": files.tensor()}))
    path.write_bytes(path.read_bytes().replace(b"archive/version", b"archive/VERSION", 1))


def write_encrypted(path: Path, _: Path) -> None:
    files.checkpoint(path, files.state_dict({"w": files.tensor()}))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))


def write_miscounted(path: Path, _: Path) -> None:
    files.checkpoint(path, files.state_dict({"w": files.tensor()}))
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    count = struct.unpack_from("<H", data, end + 8)[0]
    struct.pack_into("<HH", data, end + 8, count - 1, count - 1)
    path.write_bytes(bytes(data))


def write_huge_zip_claim(path: Path, _: Path) -> None:
    """A member whose size in the directory reaches beyond the file."""
    files.checkpoint(path, files.state_dict({"w": files.tensor()}))
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    struct.pack_into("<II", data, central + 20, 1 << 30, 1 << 30)
    path.write_bytes(bytes(data))


def write_safetensors(path: Path, _: Path, header: Any, data: bytes = b"") -> None:
    files.safetensors_file(
        path, header if isinstance(header, bytes) else json.dumps(header).encode(), data
    )


def write_polyglot(path: Path, _: Path) -> None:
    """Valid safetensors whose last tensor is a whole zip archive."""
    files.checkpoint(path, files.state_dict({"w": files.tensor()}))
    archive = path.read_bytes()
    entry = {"dtype": "U8", "shape": [len(archive)], "data_offsets": [0, len(archive)]}
    files.safetensors_file(path, json.dumps({"w": entry}).encode(), archive)


def write_module(path: Path, _: Path) -> None:
    torch.save(files.network(), path)


def write_npz(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def write_other_zip(path: Path, _: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "b")


def write_folder(path: Path, _: Path) -> None:
    path.mkdir()


def write_hugging_face(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text("{}")
    save_file(files.network().state_dict(), path / "model.safetensors")


def write_fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def write_sparse(path: Path, _: Path) -> None:
    torch.save({"head.weight": torch.eye(3).to_sparse()}, path)


def write_quantized(path: Path, _: Path) -> None:
    entry = files.tensor(storage="QInt8Storage")
    files.checkpoint(path, files.state_dict({"head.weight": entry}))


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NAN = torch.tensor([1.0, float("nan"), 2.0])
ZIP_TAIL = b"PK\x05\x06" + bytes(18)
LONG_BYTES = b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"."
DEEP_TUPLE = b"\x80\x02})" + b"\x85" * 5000 + b"K\x01s."
DOUBLED_TUPLE = b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s."
WIDE_MEMO = b"\x80\x02}r\xff\xff\xff\x7f."
DEEP_LISTS = b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b"."
LAUGHS = b"\x80\x02]" + b"(h\x00h\x00lq\x00" * 3 + b"."
CYCLE = b"\x80\x02}q\x00" + files.text("model") + b"h\x00s."
EXTENSION = b"\x80\x02\x82\x01."
COMPUTED = b"\x80\x04" + files.name("a", "b") + b")R" + files.text("c") + b"\x93."
MODULE_CYCLE = (
    b"\x80\x02" + files.name("a", "Net") + b")\x81q\x00}(" + files.text("_parameters") + b"}"
    + files.text("_modules") + b"}" + files.text("x") + b"h\x00sub."
)  # fmt: skip


def collisions() -> bytes:
    """Tuple keys of -1 and -2, which Python hashes alike: quadratic time in a naive reader."""
    keys = b"".join(
        b"(" + b"".join(b"J" + struct.pack("<i", -1 - (i >> bit & 1)) for bit in range(16)) + b"tN"
        for i in range(20_000)
    )
    return b"\x80\x02}(" + keys + b"u."


def many_calls() -> bytes:
    """One tuple of 60,000 numbers, passed to 10,000 calls."""
    arguments = b"(" + b"K\x01" * 60_000 + b"tq\x00"
    return b"\x80\x02" + arguments + b"(" + (files.name("a", "b") + b"h\x00R") * 10_000 + b"l."
