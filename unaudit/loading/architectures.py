"""From ``--arch`` to an untrained network: ``prefix:name?key=value&key=value``.

Each prefix is a builder in :data:`ARCHITECTURES`. Weights never come from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import nn

from unaudit.errors import UnsafeModelError, UsageError
from unaudit.loading.model import TextInput, Trust
from unaudit.loading.networks import mlp, resnet
from unaudit.loading.torchvision_shim import import_torchvision
from unaudit.loading.trusted_code import (
    call_trusted,
    first_line,
    is_dotted,
    source_sha256,
    working_directory_importable,
)
from unaudit.registry import Registry, did_you_mean
from unaudit.text import plain

Argument: TypeAlias = bool | int | float | str

MAX_WIDTH = 1 << 20
_FLOAT = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_PRETRAINED = frozenset({"weights", "pretrained", "weights_backbone", "pretrained_backbone"})
_EXAMPLES = "torchvision:resnet18?num_classes=10, unaudit:resnet?depth=8, py:package.module:factory"


@dataclass(frozen=True, eq=False)
class Built:
    """An untrained network."""

    module: nn.Module
    code_sha256: str | None = None
    """Of the source file, where building ran code from the model's side (tier T2)."""
    notes: tuple[str, ...] = ()
    spec: str | None = None
    """A spec that makes the same network on any machine; None: the one that it was built from."""
    text: TextInput | None = None
    """For networks of texts whose tokenizer lies beside them."""


class Builder(Protocol):
    """Makes a network from the part of a spec after the prefix.

    Raises:
        UsageError: unknown name or arguments.
        UnsafeModelError: it would run code from the model's side and ``trust`` is None.
    """

    def __call__(
        self, name: str, arguments: Mapping[str, Argument], trust: Trust | None
    ) -> Built: ...


ARCHITECTURES: Registry[Builder] = Registry("architecture prefix", "unaudit.architectures")


@dataclass(frozen=True)
class ArchitectureSpec:
    """A parsed ``--arch``."""

    prefix: str
    name: str
    arguments: Mapping[str, Argument]

    def __str__(self) -> str:
        """The same network always has the same spelling: arguments in order of their names."""
        pairs = "&".join(f"{key}={_spelled(self.arguments[key])}" for key in sorted(self.arguments))
        return f"{self.prefix}:{self.name}" + (f"?{pairs}" if pairs else "")


def parse_architecture(text: str) -> ArchitectureSpec:
    """Take a spec apart.

    Raises:
        UsageError: it does not have the form ``prefix:name?key=value&…``, or the prefix is unknown.
    """
    head, _, query = text.partition("?")
    prefix, colon, name = head.partition(":")
    if not colon or not prefix or not name:
        raise UsageError(
            f"--arch '{plain(text)}' has no prefix or no name; for example {_EXAMPLES}"
        )
    if prefix not in ARCHITECTURES:
        ARCHITECTURES.load_entry_points()
    if prefix in ARCHITECTURES.broken:
        raise UsageError(f"--arch {prefix}: its plug-in fails: {ARCHITECTURES.broken[prefix]}")
    ARCHITECTURES.get(prefix)
    arguments: dict[str, Argument] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(
                f"--arch '{plain(text)}': '{plain(pair)}' is not of the form key=value"
            )
        if key in arguments:
            raise UsageError(f"--arch '{plain(text)}': {key} is given twice")
        arguments[key] = _typed(value)
    return ArchitectureSpec(prefix, name, arguments)


def build_architecture(spec: ArchitectureSpec, trust: Trust | None) -> Built:
    """Make the network of ``spec``, in float32 on the CPU and in eval mode.

    Raises:
        UsageError: unknown name or arguments, or the arguments do not make a network.
        InputError: trusted code failed.
        UnsafeModelError: the spec runs code and ``trust`` is None.
    """
    # Initial weights are drawn from torch's global generator; whoever runs later must not notice
    with torch.random.fork_rng(devices=[]):
        built = ARCHITECTURES.get(spec.prefix)(spec.name, spec.arguments, trust)
    built.module.to("cpu").float().eval()
    return built


def _typed(text: str) -> Argument:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    return float(text) if re.fullmatch(_FLOAT, text) else text


def _spelled(value: Argument) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@ARCHITECTURES.register("unaudit")
def build_own(name: str, arguments: Mapping[str, Argument], trust: Trust | None) -> Built:
    """The networks of :mod:`unaudit.loading.networks`."""
    if name not in _OWN:
        raise UsageError(f"unknown architecture 'unaudit:{plain(name)}'{did_you_mean(name, _OWN)}")
    return Built(_OWN[name](arguments))


def _build_mlp(arguments: Mapping[str, Argument]) -> nn.Module:
    _check_known("unaudit:mlp", arguments, ("widths",))
    text = str(arguments.get("widths", ""))
    widths = [int(width) if width.isdecimal() else 0 for width in text.split("-")]
    if len(widths) < 2 or not all(0 < width <= MAX_WIDTH for width in widths):
        raise UsageError(
            f"unaudit:mlp: widths '{plain(text)}' are not two or more positive numbers; "
            "for example widths=64-128-128-10"
        )
    return mlp(widths)


def _build_resnet(arguments: Mapping[str, Argument]) -> nn.Module:
    defaults = {"depth": 8, "width": 16, "num_classes": 10, "in_channels": 3}
    _check_known("unaudit:resnet", arguments, defaults)
    values: dict[str, int] = {}
    for key, default in defaults.items():
        value = arguments.get(key, default)
        if type(value) is not int or not 0 < value <= MAX_WIDTH:
            raise UsageError(f"unaudit:resnet: {key} must be a positive number, not '{value}'")
        values[key] = value
    if values["depth"] % 6 != 2 or not 8 <= values["depth"] <= 1202:
        raise UsageError(
            f"unaudit:resnet: depth must be 8, 14, 20, … (6n + 2), not {values['depth']}"
        )
    return resnet(**values)


_OWN: Mapping[str, Callable[[Mapping[str, Argument]], nn.Module]] = {
    "mlp": _build_mlp,
    "resnet": _build_resnet,
}


def _check_known(where: str, arguments: Mapping[str, Argument], known: Iterable[str]) -> None:
    for key in arguments:
        if key not in known:
            raise UsageError(f"{where}: unknown argument '{key}'{did_you_mean(key, known)}")


@ARCHITECTURES.register("torchvision")
def build_torchvision(name: str, arguments: Mapping[str, Argument], trust: Trust | None) -> Built:
    """Classification networks of torchvision, never with its weights."""
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(
            f"unknown architecture 'torchvision:{plain(name)}'{_near(name, known) or ''}"
        )
    for key in arguments:
        if key in _PRETRAINED:
            raise UsageError(
                f"torchvision:{name}: '{key}' would load weights that are not the audited model's; "
                "leave it out"
            )
    builder = models.get_model_builder(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about weights that are about to be replaced
            return Built(builder(weights=None, **arguments))
    except Exception as error:  # whatever a constructor makes of arguments from the command line
        raise _misbuilt(f"torchvision:{name}", builder, arguments, error) from None


def _near(name: str, known: Iterable[str]) -> str:
    # Eighty names are no help; the nearest are
    near = did_you_mean(name, known)
    return near if near.startswith(" (did") else "; see torchvision.models for what exists"


def _misbuilt(
    where: str,
    builder: Callable[..., nn.Module],
    arguments: Mapping[str, Argument],
    error: Exception,
) -> UsageError:
    if isinstance(error, TypeError):
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            accepted = inspect.signature(type(builder(weights=None)).__init__).parameters
        named = [key for key in accepted if key not in ("self", "kwargs")]
        for key in arguments:
            if key not in named:
                return UsageError(f"{where}: unknown argument '{key}'{did_you_mean(key, named)}")
    return UsageError(f"{where}: cannot be built from these arguments: {first_line(error)}")


@ARCHITECTURES.register("py")
def build_trusted(name: str, arguments: Mapping[str, Argument], trust: Trust | None) -> Built:
    """``py:package.module:factory``: calls Python code that came with the model."""
    module_name, colon, factory_name = name.partition(":")
    if not colon or not is_dotted(module_name) or not factory_name.isidentifier():
        raise UsageError(f"--arch py:{plain(name)}: give it as py:package.module:factory")
    if trust is None:
        raise UnsafeModelError(
            f"--arch py:{name} runs code from '{module_name}'; if you trust that code, add "
            "--trust-code and say why with --trust-reason"
        )
    with working_directory_importable():
        sha256 = source_sha256(module_name)
        module = call_trusted(f"py:{name}", lambda: importlib.import_module(module_name))
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            public = [key for key, item in vars(module).items() if callable(item) and key[0] != "_"]
            raise UsageError(
                f"--arch py:{name}: '{module_name}' has no function '{factory_name}'"
                f"{did_you_mean(factory_name, public)}"
            )
        network = call_trusted(f"py:{name}", lambda: factory(**arguments))
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"--arch py:{name} returned {plain(type(network).__name__)}, not a torch.nn.Module"
        )
    reason = f"trusted: {plain(trust.reason, 300)}" if trust.reason else "no reason was given"
    note = f"ran code of '{module_name}' (source sha256 {sha256}; its imports not hashed); {reason}"
    return Built(network, sha256, (note,))
