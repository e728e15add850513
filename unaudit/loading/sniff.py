"""What a model file is, by its content; the extension says nothing.

Only three kinds are read on. Everything else is refused here with the way out, and so is a file
that could be two things at once.
"""

from __future__ import annotations

import itertools
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from unaudit.errors import InputError, UnauditError, UnsafeModelError
from unaudit.loading.archive import END, LOCAL_HEADER, ends_like_zip, read_directory
from unaudit.loading.limits import Limits

Kind: TypeAlias = Literal["safetensors", "torch", "npz"]

HEAD_BYTES = 4096
TEXT_PICKLE_BYTES = 1 << 20
"""A pickle of protocol 0 is looked for in text files up to this size, bytes."""
SAVE_WEIGHTS = "save its weights instead: torch.save(model.state_dict(), FILE) or safetensors"

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is a gzip file; unpack it first"),
    (b"BZh", "is a bzip2 file; unpack it first"),
    (b"\xfd7zXZ\0", "is an xz file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is a zstandard file; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras?); give PyTorch weights"),
    (
        b"\x93NUMPY",
        "is a single array; store recorded outputs with numpy.savez as outputs:FILE.npz",
    ),
    (b"GGUF", "is a GGUF file; give PyTorch weights or safetensors"),
    (b"%PDF", "is a PDF document, not a model"),
    (b"\x89PNG", "is an image, not a model"),
    (b"\xff\xd8\xff", "is an image, not a model"),
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the model; run 'git lfs pull' in its repository",
    ),
)


@dataclass(frozen=True)
class Sniffed:
    """A kind of file that can be read as data."""

    kind: Kind
    members: Mapping[str, zipfile.ZipInfo] = field(default_factory=dict)
    """Zip members by name; empty for safetensors."""


def sniff(path: Path, limits: Limits) -> Sniffed:
    """Recognize the file at ``path``.

    Raises:
        InputError: not a model, or damaged.
        UnsafeModelError: a format that executes code when it is opened, or two formats at once.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
    begins_like_zip = head.startswith((LOCAL_HEADER, END))
    if _begins_like_safetensors(head):
        if ends_like_zip(path):
            raise UnsafeModelError(
                f"can be read both as safetensors and as a zip archive; {SAVE_WEIGHTS}"
            )
        return Sniffed("safetensors")
    if begins_like_zip:
        return _sniff_zip(read_directory(path, limits))
    if ends_like_zip(path):
        raise UnsafeModelError(f"has bytes in front of its zip archive; {SAVE_WEIGHTS}")
    raise _refusal(head, size, path)


def _begins_like_safetensors(head: bytes) -> bool:
    """An eight-byte header length, then a JSON object; a length beyond 2^48 is something else."""
    return len(head) >= 9 and head[6:9] == b"\0\0{" and head[:6] != bytes(6)


def _sniff_zip(members: dict[str, zipfile.ZipInfo]) -> Sniffed:
    if not members:
        raise InputError("is an empty zip archive; save it again")
    if all(name.endswith(".npy") for name in members):
        return Sniffed("npz", members)
    within = {name.split("/", 1)[1] if "/" in name else name for name in members}
    script = any(name == "constants.pkl" or name.startswith("code/") for name in within)
    exported = any(
        name in ("archive_format", "serialized_exported_program.json")
        or (name.startswith("models/") and name.endswith(".json"))
        for name in (*within, *members)  # older exports have no root folder
    )
    if script and not exported:
        raise UnsafeModelError(
            "is a TorchScript archive: opening it runs its code, and the sandbox that --trust-code "
            f"would need does not exist yet; {SAVE_WEIGHTS}"
        )
    if exported and not script:
        raise UnsafeModelError(
            "is a torch.export archive (pt2): opening it can run code, and the sandbox that "
            f"--trust-code would need does not exist yet; {SAVE_WEIGHTS}"
        )
    if script and exported:
        raise UnsafeModelError(f"mixes TorchScript and torch.export; {SAVE_WEIGHTS}")
    pickles = [name for name in members if name.rsplit("/", 1)[-1].casefold() == "data.pkl"]
    if not pickles:
        raise InputError("is a zip archive but holds no model; unpack it and give the model file")
    roots = {name.split("/", 1)[0] for name in members}
    if len(pickles) > 1 or len(roots) > 1 or pickles[0] != f"{next(iter(roots))}/data.pkl":
        raise UnsafeModelError(f"holds more than one checkpoint or foreign files; {SAVE_WEIGHTS}")
    return Sniffed("torch", members)


def _refusal(head: bytes, size: int, path: Path) -> UnauditError:
    for magic, complaint in _MAGIC:
        if head.startswith(magic):
            return InputError(complaint)
    if head[257:262] == b"ustar":
        return InputError("is a tar archive; unpack it and give the model file in it")
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return UnsafeModelError(
            "is a bare pickle (torch before 1.6, or pickle.dump): opening it can run code; "
            "save it again with torch.save of torch 1.6 or later, or as safetensors"
        )
    if size <= TEXT_PICKLE_BYTES and _is_text_pickle(path.read_bytes()):
        return UnsafeModelError(
            f"is a bare pickle of protocol 0 or 1: opening it can run code; {SAVE_WEIGHTS}"
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return InputError("is a web page, not a model; the download link may ask for a login")
    if text.startswith((b"{", b"[")):
        return InputError("is JSON text, not a model; give the weights file")
    if _is_text(head):
        return InputError("is a text file, not a model; give the weights file")
    return InputError(
        "is no model format that is known here; give safetensors or a torch.save file"
    )


def _is_text_pickle(data: bytes) -> bool:
    if not data.endswith(b"."):
        return False
    try:
        steps = itertools.islice(pickletools.genops(data), TEXT_PICKLE_BYTES)
        *_, (_, _, position) = steps
    except Exception:  # genops raises many types on what is no pickle
        return False
    return position == len(data) - 1


def _is_text(head: bytes) -> bool:
    # a multi-byte character may be cut at the end of the head
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) >= len(head) - 3 and all(
        character.isprintable() or character in "\t\r\n\f" for character in text
    )
