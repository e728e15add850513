"""How an ``unaudit.toml`` becomes values for the plan, and how its mistakes are put into one line.

Everything here comes from a file or a command line: messages hold no control characters.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from unaudit.errors import InputError
from unaudit.registry import did_you_mean
from unaudit.text import plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_PATH_KEYS: tuple[tuple[str, str], ...] = (
    ("model", "path"),
    ("data", "train"),
    ("data", "unseen"),
    ("data", "validation"),
    ("preprocess", "tokenizer"),
    ("request", "forget"),
    ("recipe", "base"),
    ("references", "original"),
    ("references", "retrained"),
    ("run", "store"),
    ("run", "out"),
)


_SCHEME = re.compile(r"[A-Za-z][\w.-]+(?:/[\w.-]+)?:")
"""``torchvision:``, ``package/format:``; one letter is a drive, not a scheme."""


def toml_value(text: str) -> Any:
    """The value that ``text`` is in TOML; text that is none stays as it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_values(path: Path, flag: str = "--config") -> dict[str, Any]:
    """The values of a config file, its relative paths made relative to the file's folder.

    Args:
        path: of the file.
        flag: that names such a file on the line, for messages.

    Raises:
        InputError: the file cannot be read or is not TOML.
    """
    name = plain(path, 200)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}; check {flag}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name}: not valid TOML: {plain(error, 200)}") from None
    return anchor_paths(values, path.parent)


def anchor_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the relative paths of a config file relative to its folder."""

    def place(path: str) -> str:
        return str(folder / os.path.expanduser(path))

    def anchor(spec: Any) -> Any:
        if isinstance(spec, list):
            return [anchor(item) for item in spec]
        if not isinstance(spec, str) or not spec:
            return spec
        if spec.startswith("outputs:"):
            return f"outputs:{place(spec.removeprefix('outputs:'))}"
        if _SCHEME.match(spec) is None or os.path.exists(place(spec)):
            return place(spec)
        # torchvision:CIFAR10?root=…&train=…
        return re.sub(r"(?<=[?&]root=)[^&]+", lambda root: place(root[0]), spec)

    def anchor_format(spec: Any) -> Any:
        name, separator, path = spec.partition(":") if isinstance(spec, str) else (spec, "", "")
        return f"{name}:{place(path)}" if separator and path else spec

    anchored = {key: dict(part) if isinstance(part, dict) else part for key, part in values.items()}
    for section, key in _PATH_KEYS:
        part = anchored.get(section)
        if isinstance(part, dict) and key in part:
            part[key] = anchor(part[key])
    model = anchored.get("model")
    if isinstance(model, dict) and str(model.get("arch")).startswith("hf:"):
        model["arch"] = f"hf:{place(model['arch'].removeprefix('hf:'))}"
    run = anchored.get("run")
    if isinstance(run, dict) and isinstance(run.get("formats"), list):
        run["formats"] = [anchor_format(spec) for spec in run["formats"]]
    return anchored


def without_folders(spec: str) -> str:
    """A path, ``outputs:`` path or ``scheme:NAME?root=…`` as reports and records may show it."""
    scheme, separator, rest = spec.partition(":")
    if not separator or _SCHEME.match(spec) is None:
        return Path(spec).name
    name, question, arguments = rest.partition("?")
    bare = name.replace("\\", "/").rpartition("/")[2]
    return f"{scheme}:{bare}{question}{re.sub(r'(?<==)[^&]*/', '', arguments)}"


_FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\":,;()]+)+[/\\]")


def hide_folders(message: str) -> str:
    """A message of foreign origin without the folders that it names."""
    return _FOLDERS.sub("…/", message)


def same_file(spec: str) -> str:
    return os.path.realpath(spec.removeprefix("outputs:"))


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``top`` laid over ``base``, section by section; None removes a key."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and (below is None or isinstance(below, Mapping)):
            merged[key] = merge(below or {}, value)
        else:
            merged[key] = value
    return merged


def first_complaint(error: ValidationError, plan: type[BaseModel]) -> str:
    """One line on the first thing that is wrong; unknown keys first, they explain the rest."""
    found = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return plain(f"{_complaint(found[0], plan)}{more}", limit=400)


def _complaint(found: ErrorDetails, plan: type[BaseModel]) -> str:
    where = ".".join(plain(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        return f"unknown key '{where}'{_nearest_key([str(part) for part in found['loc']], plan)}"
    if where == "schema_version":
        return f"schema_version must be {found['ctx']['expected']}, the version this unaudit reads"
    if found["type"] == "value_error":
        message = found["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    if found["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: must be a section, [{where}], with keys of its own"
    message = found["msg"].replace("valid tuple", "list").replace("Tuple", "list")
    return f"{where}: {message[:1].lower()}{message[1:]} (got {plain(repr(found['input']), 60)})"


def _nearest_key(where: list[str], plan: type[BaseModel]) -> str:
    """The end of a message on the unknown key ``where``: the same key in another section, a key of
    its section that is spelled nearly alike, or what its section knows."""
    *parents, key = where
    section: Any = plan
    for parent in parents:
        section = _model_of(section.model_fields[parent].annotation)
    siblings = list(section.model_fields)
    elsewhere = {
        name: dotted for dotted in known_keys(plan) for name in [dotted.rpartition(".")[2]]
    }
    if not difflib.get_close_matches(key, siblings, n=1) and key in elsewhere:
        return f" (did you mean {elsewhere[key]!r}?)"
    return did_you_mean(key, siblings)


def _model_of(annotation: Any) -> Any:
    """The section that an annotation names, also where it may be left out (``… | None``)."""
    parts = typing.get_args(annotation) or (annotation,)
    return next((part for part in parts if hasattr(part, "model_fields")), annotation)


def known_keys(plan: type[BaseModel]) -> list[str]:
    """Every key that an ``unaudit.toml`` may hold, dotted, in the order of the plan."""
    keys = []
    for name, field in plan.model_fields.items():
        inner = getattr(_model_of(field.annotation), "model_fields", None)
        keys += [name] if inner is None else [f"{name}.{key}" for key in inner]
    return keys
