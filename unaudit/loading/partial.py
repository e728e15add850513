"""Weights of one model into another, as far as they fit: what training may start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from unaudit.errors import UsageError
from unaudit.loading.checkpoint import read_checkpoint
from unaudit.loading.fit import _check_finite, _convert, _strip, _wanted
from unaudit.loading.hugging_face_network import TokenNetwork, fitting_names
from unaudit.loading.limits import Limits
from unaudit.loading.load import DEFAULT_LIMITS, OUTPUTS, load_model
from unaudit.loading.model import LoadedModel
from unaudit.loading.private_copy import private_copy
from unaudit.loading.wording import naming
from unaudit.text import listed, plain

LEAST = 0.5
"""Share of a network's numbers that another model of its architecture holds."""


@dataclass(frozen=True, eq=False)
class Partial:
    """What of a model's weights fits a network, layer by layer."""

    tensors: Mapping[str, torch.Tensor]
    """By name in the network's state dict."""
    fresh: tuple[str, ...]
    """Layers that it has no weights for, or those of another shape."""
    name: str
    """Of the file or folder, without those around it."""
    sha256: str
    """Of the file, or of the list of a folder's files."""
    tokenizer: bytes | None = None
    """The ``tokenizer.json`` beside them; None of a file of weights."""


def load_partly(
    spec: str, network: nn.Module, arch: str | None, limits: Limits = DEFAULT_LIMITS
) -> Partial:
    """Weights that ``spec`` names, as far as they fit ``network``.

    A layer fits as a whole or not at all. The model must be of the network's architecture: it may
    have other shapes, as a head of another number of classes has, but must hold half of the
    network's numbers, and of layers that only one of the two has, each may have one, its head.

    Args:
        spec: a file of weights, or a folder in Hugging Face layout.
        network: is not changed.
        arch: of the plan; a LoRA adapter needs it to name its base model.
        limits: what may be opened and built.

    Raises:
        UsageError: recorded outputs, or a model of another architecture.
        InputError: the file cannot be used.
        UnsafeModelError: it was refused before it could do harm.
    """
    if spec.startswith(OUTPUTS):
        raise UsageError(f"{plain(spec, 300)}: recorded outputs have no weights; name a model")
    path, label = Path(spec), plain(spec, 300)
    wanted, tokenizer = _wanted(network), None
    with ExitStack() as until_taken:
        if path.is_dir():
            folder = arch if (arch or "").startswith("hf:") else None
            model = load_model(spec, arch=folder, limits=limits)
            assert isinstance(model, LoadedModel)  # folders hold no recorded outputs
            given = model.module.state_dict()
            sha256 = model.provenance.sha256
            tokenizer = None if model.text is None else model.text.tokenizer
        else:
            until_taken.enter_context(naming(label))
            copy = until_taken.enter_context(private_copy(path, limits))
            given, sha256 = _named(read_checkpoint(copy.path, limits).tensors, network), copy.sha256
        with naming(label):
            fresh = _unfit(wanted, given)
            kept = {
                name: _convert(name, given[name], value).detach().clone()
                for name, value in wanted.items()
                if name in given and _layer(name) not in fresh
            }
            _check_finite(kept)
    _check_architecture(label, wanted, given, kept, fresh)
    if isinstance(network, TokenNetwork):
        words = next(n for n, each in network.named_modules() if each is network.token_embedding)
        if words in fresh:
            raise UsageError(
                f"{label}: knows other tokens than the model; name weights of the same vocabulary"
            )
    return Partial(kept, fresh, plain(path.name), sha256, tokenizer)


def _named(tensors: Mapping[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Under the names that the network has for them."""
    if isinstance(network, TokenNetwork):
        found, _ = fitting_names(network, tensors)
        return found
    return _strip(tensors, _wanted(network))[1]


def _size(tensors: Iterable[torch.Tensor]) -> int:
    """Numbers in tensors, one of two names counted once."""
    return sum({id(tensor): tensor.numel() for tensor in tensors}.values())


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _unfit(
    wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> tuple[str, ...]:
    """Layers of the network that the model does not fill, in order."""
    # a weight of two names is there if it is there under one
    there = {id(wanted[name]) for name in given if name in wanted}
    unfit = [
        _layer(name)
        for name, value in wanted.items()
        if (given[name].shape != value.shape if name in given else id(value) not in there)
    ]
    return tuple(dict.fromkeys(unfit))


def _check_architecture(
    label: str,
    wanted: Mapping[str, torch.Tensor],
    given: Mapping[str, torch.Tensor],
    kept: Mapping[str, torch.Tensor],
    fresh: Iterable[str],
) -> None:
    of_model, of_network = ({_layer(name): None for name in names} for names in (given, wanted))
    lacks = [layer for layer in fresh if layer not in of_model]
    more = [layer for layer in of_model if layer not in of_network]
    share = _size(wanted[name] for name in kept) / max(_size(wanted.values()), 1)
    faults = []
    if len(lacks) > 1:
        faults.append(f"it lacks {len(lacks)} layers ({listed(lacks)})")
    if len(more) > 1:
        faults.append(f"it has {len(more)} layers more ({listed(more)})")
    if share < LEAST:
        faults.append(f"it fills {share:.0%} of it")
    if faults:
        raise UsageError(
            f"{label}: is of another architecture than the model: {', '.join(faults)}; name "
            "weights of the same architecture"
        )
