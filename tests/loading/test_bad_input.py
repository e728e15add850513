"""Every bad model file ends in one line with a remedy and the right exit code, and runs nothing."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.loading import files
from tests.loading.files import ARCH
from unaudit.errors import ExitCode, InputError, UnauditError, UnsafeModelError, UsageError
from unaudit.loading import load_model


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


def _touching(function: Any, protocol: int = 2) -> Callable[[Path, Path], None]:
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


REFUSED = (
    # Not there, or not a file
    Bad("missing", lambda path, _: None, InputError, "no such file; check the path"),
    Bad("empty", partial(write_bytes, data=b""), InputError, "is empty; save or download"),
    Bad("folder", write_folder, InputError, "is a folder; give the model file"),
    Bad("hugging-face", write_hugging_face, UsageError, r"give .*model\.safetensors.*--arch"),
    Bad("fifo", write_fifo, InputError, "not a regular file; give a model file"),
    # Something else
    Bad("web-page", partial(write_bytes, data=b"<!DOCTYPE html><html>"), InputError, "web page"),
    Bad("text", partial(write_bytes, data="Grüße\n".encode()), InputError, "text file"),
    Bad("json", partial(write_bytes, data=b'{"a": 1}'), InputError, "JSON"),
    Bad("lfs", partial(write_bytes, data=b"version https://git-lfs"), InputError, "git lfs pull"),
    Bad("gzip", partial(write_bytes, data=b"\x1f\x8b\x08" + bytes(30)), InputError, "unpack it"),
    Bad("hdf5", partial(write_bytes, data=b"\x89HDF\r\n\x1a\n"), InputError, "HDF5"),
    Bad("tar", partial(write_bytes, data=bytes(257) + b"ustar"), InputError, "tar archive; unpack"),
    Bad("noise", partial(write_bytes, data=bytes([200, 201] * 99)), InputError, "give safetensors"),
    Bad("empty-zip", partial(write_bytes, data=ZIP_TAIL), InputError, "empty zip archive"),
    Bad(
        "npz",
        write_npz,
        UsageError,
        "give outputs:FILE.npz",
    ),
    Bad(
        "other-zip",
        write_other_zip,
        InputError,
        "no model",
    ),
    # Formats that execute
    Bad("torchscript", write_torchscript, UnsafeModelError, "TorchScript.*save its weights"),
    Bad(
        "torchscript-stand-in",
        partial(write_stand_in, members=("constants.pkl", "code/net.py")),
        UnsafeModelError,
        "TorchScript.*save its weights",
    ),
    Bad(
        "pt2-stand-in",
        partial(write_stand_in, members=("archive_format", "models/model.json")),
        UnsafeModelError,
        "torch.export.*save its weights",
    ),
    Bad(
        "pt2-without-root",
        lambda path, marker: write_zip(path, marker, "models/model.json"),
        UnsafeModelError,
        "torch.export.*save its weights",
    ),
    Bad(
        "two-formats-that-execute",
        partial(write_stand_in, members=("archive_format", "constants.pkl")),
        UnsafeModelError,
        "mixes.*save its weights",
    ),
    Bad(
        "legacy-0", partial(write_legacy, protocol=0), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad(
        "legacy-1", partial(write_legacy, protocol=1), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad(
        "legacy-2", partial(write_legacy, protocol=2), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad(
        "legacy-5", partial(write_legacy, protocol=5), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad("legacy-torch", write_old_torch, UnsafeModelError, "before 1.6.*save it again"),
    # Pickles that would run code
    Bad(
        "os.system",
        _touching(os.system),
        UnsafeModelError,
        r"names '(posix|nt)\.system'.*safetensors",
    ),
    Bad(
        "subprocess",
        _touching(subprocess.call),
        UnsafeModelError,
        r"names 'subprocess\.call'",
    ),
    Bad("eval", _touching(eval), UnsafeModelError, r"names 'builtins\.eval'"),
    Bad("exec", _touching(exec), UnsafeModelError, r"'builtins\.exec'"),
    Bad("open", _touching(open), UnsafeModelError, r"names '_?io\.open'"),
    Bad("getattr", _touching(getattr), UnsafeModelError, r"\.getattr'"),
    Bad("import", _touching(__import__), UnsafeModelError, r"\.__import__'"),
    Bad(
        "os.system-protocol-4",
        _touching(os.system, protocol=4),
        UnsafeModelError,
        r"names '(posix|nt)\.system'",
    ),
    Bad(
        "python-2-builtins",
        partial(write_pickle, pickled=b"\x80\x02" + files.name("__builtin__", "execfile") + b"."),
        UnsafeModelError,
        "names 'builtins.execfile'",
    ),
    Bad(
        "dotted-name",
        partial(
            write_pickle,
            pickled=b"\x80\x04"
            + files.text("torch")
            + files.text("serialization.os.system")
            + b"\x93.",
        ),
        UnsafeModelError,
        "names 'torch.serialization.os.system'",
    ),
    Bad(
        "inst",
        partial(write_pickle, pickled=b"(" + files.text("id") + b"ios\nsystem\n."),
        UnsafeModelError,
        "names 'os.system'",
    ),
    Bad("computed-global", partial(write_pickle, pickled=COMPUTED), UnsafeModelError, "computes"),
    Bad("extension", partial(write_pickle, pickled=EXTENSION), UnsafeModelError, "extension codes"),
    # Pickles that would exhaust the machine
    Bad(
        "length-field",
        partial(write_pickle, pickled=LONG_BYTES),
        InputError,
        "damaged or truncated",
    ),
    Bad("deep-tuple", partial(write_pickle, pickled=DEEP_TUPLE), UnsafeModelError, "levels deep"),
    Bad(
        "doubled-tuple",
        partial(write_pickle, pickled=DOUBLED_TUPLE),
        UnsafeModelError,
        "repeats tuples",
    ),
    Bad("wide-memo", partial(write_pickle, pickled=WIDE_MEMO), UnsafeModelError, "memo"),
    Bad("deep-lists", partial(write_pickle, pickled=DEEP_LISTS), UnsafeModelError, "levels deep"),
    Bad("colliding-keys", partial(write_pickle, pickled=collisions()), UnsafeModelError, "as keys"),
    Bad("many-calls", partial(write_pickle, pickled=many_calls()), UnsafeModelError, "huge calls"),
    Bad(
        "gigantic-integer",
        partial(
            write_pickle, pickled=b"\x80\x02\x8b" + struct.pack("<i", 9999) + b"\x01" * 9999 + b"."
        ),
        UnsafeModelError,
        "gigantic integer",
    ),
    Bad(
        "modules-in-a-circle",
        partial(write_pickle, pickled=MODULE_CYCLE),
        UnsafeModelError,
        "without end",
    ),
    # Damaged or dishonest pickles
    Bad("laughs", partial(write_pickle, pickled=LAUGHS), InputError, "damaged"),
    Bad("dict-in-a-circle", partial(write_pickle, pickled=CYCLE), InputError, "holds no weights"),
    Bad("no-pickle", partial(write_pickle, pickled=b"hello"), InputError, "pickle is damaged"),
    Bad(
        "half-a-pickle",
        partial(write_pickle, pickled=b"\x80\x02}("),
        InputError,
        "pickle is damaged",
    ),
    Bad(
        "two-pickles", partial(write_pickle, pickled=b"\x80\x02}.}."), InputError, "behind the end"
    ),
    Bad(
        "foreign-persistent-id",
        partial(write_pickle, pickled=b"\x80\x02" + files.text("x") + b"Q."),
        InputError,
        "pickle is damaged",
    ),
    Bad(
        "text-persistent-id", partial(write_pickle, pickled=b"Pfile\n."), InputError, "other files"
    ),
    # Tensors that do not fit their storage
    Bad(
        "stride-0",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((10**11,), (0,))})),
        UnsafeModelError,
        "storage of 6 numbers cannot fill; save contiguous",
    ),
    Bad(
        "too-large",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((7,), (1,))})),
        UnsafeModelError,
        "cannot fill",
    ),
    Bad(
        "overlapping",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((3, 3), (1, 1))})),
        UnsafeModelError,
        "cannot fill",
    ),
    Bad(
        "beyond-the-end",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor(offset=1)})),
        UnsafeModelError,
        "cannot fill",
    ),
    Bad(
        "storage-overstated",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor(numel=10**12)})),
        UnsafeModelError,
        "claims 1,000,000,000,000 numbers but has 24 bytes",
    ),
    Bad(
        "storage-missing",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor(key="../7")})),
        InputError,
        "lacks its storage",
    ),
    Bad(
        "negative-size",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((-2, 3))})),
        InputError,
        "damaged",
    ),
    Bad(
        "too-many-axes",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((1,) * 60, (1,) * 60)})),
        UnsafeModelError,
        "60 axes",
    ),
    Bad("sparse", write_sparse, InputError, "'head.weight' is sparse.*save dense"),
    Bad("quantized", write_quantized, InputError, r"QInt8Storage.*save float weights"),
    # Archives that readers may understand differently
    Bad("truncated", write_truncated, InputError, "damaged or truncated zip.*save it again"),
    Bad("flipped-byte", write_flipped, InputError, "data/0' is damaged; download"),
    Bad(
        "bytes-before",
        partial(write_padded, before=b"#!/bin/sh\n"),
        UnsafeModelError,
        "in front of",
    ),
    Bad("bytes-after", partial(write_padded, after=b"x"), InputError, "damaged or truncated"),
    Bad(
        "two-archives",
        partial(write_padded, before=b"PK\x03\x04"),
        UnsafeModelError,
        "bytes around",
    ),
    Bad(
        "compressed",
        partial(
            write_pickle,
            pickled=files.state_dict({"w": files.tensor()}),
            compression=zipfile.ZIP_DEFLATED,
        ),
        UnsafeModelError,
        "could inflate without bound",
    ),
    Bad(
        "parent-folder",
        lambda path, marker: write_zip(path, marker, "archive/../../x"),
        UnsafeModelError,
        "could leave its folder",
    ),
    Bad(
        "absolute-path",
        lambda path, marker: write_zip(path, marker, "/etc/x"),
        UnsafeModelError,
        "could leave its folder",
    ),
    Bad(
        "twice",
        lambda path, marker: write_zip(path, marker, "archive/DATA.pkl"),
        UnsafeModelError,
        "twice; save it again",
    ),
    Bad(
        "link",
        lambda path, marker: write_zip(path, marker, "archive/l", mode=0o120777),
        UnsafeModelError,
        "is a link",
    ),
    Bad(
        "two-roots",
        lambda path, marker: write_zip(path, marker, "other/data.pkl"),
        UnsafeModelError,
        "more than one checkpoint",
    ),
    Bad("two-headers", write_header_mismatch, UnsafeModelError, "two headers"),
    Bad("encrypted", write_encrypted, InputError, "is encrypted; save it in the clear"),
    Bad(
        "other-byte-order",
        partial(
            write_pickle,
            pickled=files.state_dict({"w": files.tensor()}),
            byteorder=b"big" if sys.byteorder == "little" else b"little",
        ),
        InputError,
        "another byte order; save it as safetensors",
    ),
    Bad("miscounted", write_miscounted, UnsafeModelError, "miscounts"),
    Bad("claims-beyond-file", write_huge_zip_claim, UnsafeModelError, "overlapping or hidden"),
    # safetensors
    Bad("polyglot", write_polyglot, UnsafeModelError, "both as safetensors and as a zip"),
    Bad("st-truncated", partial(write_safetensors, header={"a": F32}), InputError, "save it again"),
    Bad(
        "st-header-beyond-file",
        partial(write_bytes, data=struct.pack("<Q", 500) + b'{"a":'),
        InputError,
        "truncated",
    ),
    Bad(
        "st-header-gigantic",
        partial(write_bytes, data=struct.pack("<Q", 1 << 40) + b'{"a":' + bytes(20)),
        UnsafeModelError,
        "header of 1,099,511,627,776 bytes",
    ),
    Bad(
        "st-not-json", partial(write_safetensors, header=b"{nonsense"), InputError, "damaged header"
    ),
    Bad(
        "st-deep-json",
        partial(write_safetensors, header=b'{"a":' * 99_999),
        InputError,
        "damaged header",
    ),
    Bad(
        "st-twice",
        partial(
            write_safetensors,
            header=b'{"a":%b,"a":%b}' % ((json.dumps(F32).encode(),) * 2),
            data=bytes(8),
        ),
        UnsafeModelError,
        "names a tensor twice",
    ),
    Bad(
        "st-gigantic",
        partial(write_safetensors, header={"a": {**F32, "shape": [10**15]}}),
        UnsafeModelError,
        "1,000,000,000,000,000 numbers",
    ),
    Bad(
        "st-nothing",
        partial(write_safetensors, header={"__metadata__": {}}),
        InputError,
        "no weights",
    ),
    # Weights that do not fit
    Bad("state-dict-without-arch", write_state, UsageError, "add --arch", arch=None),
    Bad(
        "module-without-arch",
        write_module,
        UsageError,
        r"the file says torch\.nn\.modules\.container\.Sequential; add --arch",
        arch=None,
    ),
    Bad(
        "missing-key",
        partial(write_state, head__bias=None),
        InputError,
        r"1 missing \('head\.bias'\); check --arch",
    ),
    Bad(
        "unexpected-key",
        partial(write_state, extra=torch.zeros(1)),
        InputError,
        r"1 unexpected \('extra'\); check --arch",
    ),
    Bad(
        "hostile-key",
        lambda path, _: torch.save(
            weights() | {"\x1b[31m\u202e" + "x" * 400: torch.zeros(1)}, path
        ),
        InputError,
        r"1 unexpected \('\[31mx+…x+'\)",
    ),
    Bad(
        "misshaped",
        partial(write_state, linear1__weight=torch.zeros(6, 5)),
        InputError,
        r"'linear1\.weight' is \(6, 5\), --arch needs \(6, 4\)",
    ),
    Bad(
        "class-count",
        partial(write_state, head__weight=torch.zeros(100, 6), head__bias=torch.zeros(100)),
        InputError,
        "a model of 100 classes, not 3: set num_classes=100",
    ),
    Bad(
        "nan", partial(write_state, head__bias=NAN), InputError, r"'head\.bias' holds 1 NaN or inf"
    ),
    Bad(
        "infinite", partial(write_state, head__bias=NAN.double() * 1e300), InputError, "NaN or inf"
    ),
    Bad(
        "overflow-in-float32",
        partial(write_state, head__bias=torch.full((3,), 1e300, dtype=torch.float64)),
        InputError,
        "holds 3 NaN or infinite",
    ),
    Bad(
        "integer-weights",
        partial(write_state, head__bias=torch.ones(3, dtype=torch.int8)),
        InputError,
        "is int8 .*save the float weights",
    ),
    Bad(
        "complex-weights",
        partial(write_state, head__bias=torch.ones(3, dtype=torch.complex64)),
        InputError,
        "is complex64",
    ),
    # Checkpoints without or with several weights
    Bad(
        "no-weights",
        lambda path, _: torch.save({"UA": np.float64(0.5), "epoch": 3}, path),
        InputError,
        "holds no weights .*'UA', 'epoch'",
    ),
    Bad(
        "a-list", lambda path, _: torch.save([torch.zeros(2)], path), InputError, "holds no weights"
    ),
    Bad(
        "one-tensor",
        lambda path, _: torch.save(torch.zeros(2), path),
        InputError,
        "holds no weights",
    ),
    Bad(
        "two-sets",
        lambda path, _: torch.save({"model": weights(), "model_ema": weights()}, path),
        InputError,
        r"several sets of weights \('model', 'model_ema'\); save the one",
    ),
    Bad(
        "two-unknown-sets",
        lambda path, _: torch.save({"student": weights(), "teacher": weights()}, path),
        InputError,
        "several sets of weights",
    ),
    Bad(
        "weights-around-weights",
        lambda path, _: torch.save({"first": weights(), "w": torch.zeros(1)}, path),
        InputError,
        "several sets of weights .*the top level",
    ),
    # Architectures
    Bad("no-prefix", write_state, UsageError, "no prefix", arch="resnet18"),
    Bad(
        "unknown-prefix", write_state, UsageError, "did you mean 'torchvision'", arch="torchvison:a"
    ),
    Bad("unknown-own", write_state, UsageError, "did you mean 'resnet'", arch="unaudit:resnt"),
    Bad(
        "unknown-argument",
        write_state,
        UsageError,
        "did you mean 'depth'",
        arch="unaudit:resnet?dept=8",
    ),
    Bad("bad-depth", write_state, UsageError, "6n \\+ 2", arch="unaudit:resnet?depth=9"),
    Bad("bad-width", write_state, UsageError, "positive number", arch="unaudit:resnet?width=wide"),
    Bad("bad-widths", write_state, UsageError, "widths=64-128", arch="unaudit:mlp?widths=4-x-3"),
    Bad("one-width", write_state, UsageError, "two or more", arch="unaudit:mlp?widths=4"),
    Bad("not-a-pair", write_state, UsageError, "key=value", arch="unaudit:mlp?widths"),
    Bad(
        "argument-twice",
        write_state,
        UsageError,
        "given twice",
        arch="unaudit:resnet?depth=8&depth=8",
    ),
    Bad("code-untrusted", write_state, UnsafeModelError, "add --trust-code", arch="py:os:system"),
)


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: bad.id)
def test_refused_in_one_line_without_running_anything(bad: Bad, tmp_path: Path) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    bad.write(path, marker)
    before = set(tmp_path.iterdir())
    with pytest.raises(UnauditError) as caught:
        load_model(str(path), arch=bad.arch)
    message = str(caught.value)
    assert type(caught.value) is bad.error
    assert re.search(bad.says, message), message
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 600
    assert message.startswith(f"{path}: ") == (bad.arch in (ARCH, None))
    assert not marker.exists()
    assert set(tmp_path.iterdir()) == before
    unsafe = bad.error is UnsafeModelError
    assert caught.value.exit_code == (ExitCode.UNSAFE_MODEL if unsafe else ExitCode.BAD_INPUT)


def test_the_attack_of_these_tests_works(tmp_path: Path) -> None:
    """Otherwise 'the marker is absent' would prove nothing."""
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    write_call(path, marker, os.system, "touch MARKER")
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_an_unreadable_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        load_model(str(tmp_path / "a\0b"), arch=ARCH)


def test_a_lazy_network_is_refused(tmp_path: Path) -> None:
    from unaudit.loading.fit import fit

    with pytest.raises(InputError, match="lazy layers"):
        fit(nn.Sequential(nn.LazyLinear(3)), {"0.weight": torch.zeros(3, 4)})
