"""The files of a folder in Hugging Face layout, opened by name and nothing else.

Names come from the folder's own index, and may point anywhere. What counts lies in the folder
itself, or, where that is a snapshot of the hub's cache, among the blobs that its links lead to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from unaudit.errors import InputError, UnauditError, UnsafeModelError, UsageError
from unaudit.loading.checkpoint import read_checkpoint
from unaudit.loading.limits import Limits
from unaudit.loading.private_copy import private_copy
from unaudit.loading.wording import naming
from unaudit.text import listed, plain, quote, size

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"

JSON_BYTES = 4 << 20
"""Of a configuration."""
MOST_SHARDS = 1_000
MAX_LISTED = 20

_SAVE = "model.save_pretrained(DIR)"


@dataclass(eq=False)
class Folder:
    """A folder, and what was read from it."""

    path: Path
    limits: Limits
    digests: dict[str, tuple[str, int]] = field(default_factory=dict)
    """SHA-256 and bytes of every file that was read, by name."""
    ignored: list[str] = field(default_factory=list)
    """What in those files means nothing to the model."""

    def holds(self, name: str) -> bool:
        """Whether there is something of that name."""
        return (self.path / name).exists() or (self.path / name).is_symlink()

    def read(self, name: str, most: int) -> bytes:
        """A small file, whole.

        Raises:
            InputError: missing or unreadable.
            UnsafeModelError: longer than ``most``, or a link out of the folder.
        """
        limits = replace(self.limits, file_bytes=most)
        with naming(name), private_copy(self._place(name), limits) as copy:
            self.digests[name] = copy.sha256, copy.size_bytes
            return copy.path.read_bytes()

    def read_json(self, name: str, most: int = JSON_BYTES) -> dict[str, Any]:
        """An object in a JSON file.

        Raises:
            InputError: missing, unreadable or no JSON object.
            UnsafeModelError: too long, a link out of the folder, or a key given twice.
        """
        content = self.read(name, most)
        try:
            value = json.loads(content, object_pairs_hook=_unique)
        except UnauditError as error:
            raise type(error)(f"{name}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: is not JSON ({plain(error, 80)}); save it again") from None
        if not isinstance(value, dict):
            raise InputError(f"{name}: is not a JSON object; save it again")
        return value

    def tensors(self) -> dict[str, torch.Tensor]:
        """All weights, from one file or from the shards of an index.

        Raises:
            InputError: there are none, or a file is missing, damaged or not what the index says.
            UnsafeModelError: a name that leads out of the folder, or more than ``limits`` allow.
        """
        if self.holds(WEIGHTS) and self.holds(INDEX):
            raise UsageError(f"holds both {WEIGHTS} and an index of shards; leave one of them")
        if self.holds(WEIGHTS):
            return self.read_weights(WEIGHTS)
        if self.holds(INDEX):
            return self._shards()
        raise self._without_weights()

    def read_weights(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of one safetensors file.

        Raises:
            InputError, UnsafeModelError: see :func:`read_checkpoint`.
        """
        with naming(name), private_copy(self._place(name), self.limits) as copy:
            self.digests[name] = copy.sha256, copy.size_bytes
            file = read_checkpoint(copy.path, self.limits)
            if file.format != "safetensors":
                raise InputError(f"is a {file.format}, not safetensors; save it with {_SAVE}")
            return dict(file.tensors)

    def passed_over(self, tensors: Iterable[str]) -> tuple[str, ...]:
        """What plays no part: tensors, settings, and files that were not read."""
        names = sorted(entry.name for entry in self.path.iterdir())
        files = (plain(name, 80) for name in names if name not in self.digests)
        rest = [*tensors, *self.ignored, *files]
        more = (f"{len(rest) - MAX_LISTED} more",) if len(rest) > MAX_LISTED else ()
        return (*rest[:MAX_LISTED], *more)

    def _shards(self) -> dict[str, torch.Tensor]:
        index = self.read_json(INDEX, self.limits.index_bytes)
        where = index.get("weight_map")
        if not isinstance(where, dict) or not where:
            raise InputError(f"{INDEX}: has no weight_map; save the model again with {_SAVE}")
        if len(where) > self.limits.tensors:
            raise UnsafeModelError(f"{INDEX}: names {len(where):,} tensors; check it")
        names = sorted({_plain_name(name) for name in where.values()})
        if len(names) > MOST_SHARDS:
            raise UnsafeModelError(f"{INDEX}: names {len(names):,} files; check it")
        places = {name: self._place(name, INDEX) for name in names}
        missing = [name for name, place in places.items() if not place.is_file()]
        if missing:
            raise InputError(f"{INDEX}: names files that are not there ({listed(missing)})")
        total = sum(place.stat().st_size for place in places.values())
        if total > self.limits.file_bytes:
            raise UnsafeModelError(
                f"{INDEX}: its files hold {size(total)}, more than the "
                f"{size(self.limits.file_bytes)} that are opened"
            )
        tensors: dict[str, torch.Tensor] = {}
        for name in names:
            found = self.read_weights(name)
            named = {key for key, file in where.items() if file == name}
            if set(found) != named:
                odd = sorted(named ^ set(found))
                raise InputError(
                    f"{name}: holds other tensors than {INDEX} says ({listed(odd)}); save the "
                    f"model again with {_SAVE}"
                )
            tensors |= found
        return tensors

    def _place(self, name: str, where: str = "") -> Path:
        """Where a file lies, links resolved; out of the folder only into the hub's own cache."""
        entry = self.path / name
        if not entry.is_symlink():
            return entry
        real, folder = entry.resolve(), self.path.resolve()
        blobs = folder.parent.parent / "blobs"
        if real.parent == folder or (folder.parent.name == "snapshots" and real.parent == blobs):
            return real
        raise UnsafeModelError(
            f"{where or name}: {quote(name)} is a link out of the folder; put the file itself there"
        )

    def _without_weights(self) -> UnauditError:
        pickled = sorted(entry.name for entry in self.path.glob("*.bin") if "model" in entry.name)
        if pickled:
            return InputError(
                f"holds pickled weights only ({quote(pickled[0])}); save it as safetensors with "
                f"{_SAVE}, or give that file as the model and this folder as --arch hf:DIR"
            )
        return InputError(f"holds no {WEIGHTS}; save the model with {_SAVE}")


def _plain_name(name: object) -> str:
    """A file of the folder itself.

    Raises:
        UnsafeModelError: a path, or no name.
    """
    if (
        not isinstance(name, str)
        or not name.endswith(".safetensors")
        or any(mark in name for mark in "/\\:\0")
        or name.startswith(".")
    ):
        raise UnsafeModelError(
            f"{INDEX}: {quote(name)} is no name of a safetensors file in the folder; save the "
            f"model again with {_SAVE}"
        )
    return name


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise UnsafeModelError("gives one key twice; save it again")
    return unique
