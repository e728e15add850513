"""Weights that training starts from: pretrained ones, of a model that never saw the forget set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import save
from torch import nn

from unaudit.errors import UsageError
from unaudit.loading.partial import Partial, load_partly
from unaudit.loading.wording import naming
from unaudit.text import listed


@dataclass(frozen=True, eq=False)
class Base:
    """Weights, as far as they fit a network."""

    weights: bytes
    """A safetensors file."""
    notes: tuple[str, ...]
    """On the provenance of what is trained from them."""

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.weights).hexdigest()


def load_base(
    spec: str, network: nn.Module, arch: str | None, saw_all: Mapping[str, nn.Module]
) -> Base:
    """The weights of ``recipe.base``.

    Args:
        spec: a file of weights, or a folder in Hugging Face layout.
        network: of the architecture that is trained; is not changed.
        arch: of the plan; a LoRA adapter needs it to name its base model.
        saw_all: models that saw the forget set, by label: what is trained from them is no
            reference.

    Raises:
        UsageError: it is of another architecture, or one of those models.
        InputError, UnsafeModelError: its file cannot be used.
    """
    with naming("recipe.base"):
        found = load_partly(spec, network, arch)
        for label, module in saw_all.items():
            if not found.fresh and _is_held(found, module):
                raise UsageError(
                    f"{found.name} holds the weights of the {label}, which saw the forget set; "
                    "name those that it was trained from"
                )
    notes = [f"trained from the weights of {found.name} (sha256 {found.sha256})"]
    if found.fresh:
        notes.append(f"layers that those weights do not fit began at random: {listed(found.fresh)}")
    weights = {name: tensor.contiguous() for name, tensor in found.tensors.items()}
    return Base(save(weights), tuple(notes))


def _is_held(found: Partial, module: nn.Module) -> bool:
    """Whether these are the weights of ``module``, or these in half precision."""
    state = module.state_dict()
    precisions = (torch.float32, torch.bfloat16, torch.float16)
    return all(name in state for name in found.tensors) and any(
        all(
            torch.equal(state[name].cpu().to(precision), value.to(precision))
            for name, value in found.tensors.items()
        )
        for precision in precisions
    )
