"""Weights that training starts from: pretrained ones, of a model that never saw the forget set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import save
from torch import nn

from unaudit.config import without_folders
from unaudit.data import Dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.data.tokenize import FILE, tokens_of
from unaudit.errors import UsageError
from unaudit.loading.partial import Partial, load_partly
from unaudit.loading.wording import naming
from unaudit.text import listed, quote

MOST_RENAMED = 0.01
"""Share of tokens that may be others where weights come from. This number is ours: models reserve a
few tokens that later training puts to use, and another vocabulary shares hardly any."""


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


@dataclass(frozen=True)
class Reader:
    """The tokenizer by which texts are read."""

    name: str
    """Of the model or folder that brings it, without the folders around it."""
    content: bytes
    """Of its ``tokenizer.json``."""

    @classmethod
    def of(cls, dataset: Dataset, spec: str) -> Reader | None:
        """What reads these examples, brought by ``spec``; None if they are no texts."""
        if not isinstance(dataset, TextDataset):
            return None
        return cls(without_folders(spec), dataset.tokenizer)


def load_base(
    spec: str,
    network: nn.Module,
    arch: str | None,
    saw_all: Mapping[str, nn.Module],
    reader: Reader | None = None,
) -> Base:
    """The weights of ``recipe.base``.

    Args:
        spec: a file of weights, or a folder in Hugging Face layout.
        network: of the architecture that is trained; is not changed.
        arch: of the plan; a LoRA adapter needs it to name its base model.
        saw_all: models that saw the forget set, by label: what is trained from them is no
            reference.
        reader: of texts; None where examples are something else.

    Raises:
        UsageError: it is of another architecture or for another vocabulary, or one of those models.
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
        renamed = () if reader is None else _renamed(found, reader)
    notes = [f"trained from the weights of {found.name} (sha256 {found.sha256})"]
    if found.fresh:
        notes.append(f"layers that those weights do not fit began at random: {listed(found.fresh)}")
    notes += renamed
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


def _renamed(found: Partial, reader: Reader) -> tuple[str, ...]:
    """What to say where a few tokens are others to the model that weights come from.

    Raises:
        UsageError: many are; its embeddings are then of other words.
    """
    if found.tokenizer is None or found.tokenizer == reader.content:
        return ()
    names = [
        # preprocess.tokenizer may name the file itself
        name if name.endswith(".json") else f"{name}/{FILE}"
        for name in (found.name, reader.name)
    ]
    theirs, own = (
        tokens_of(content, f"{name}'s")
        for name, content in ((found.name, found.tokenizer), (reader.name, reader.content))
    )
    others = [number for number, token in own.items() if theirs.get(number) != token]
    if not others:
        return ()
    said = f"{len(others)} of {len(own)} tokens of {names[1]} are others in {names[0]}"
    if len(others) > MOST_RENAMED * len(own):
        first = min(others)
        raise UsageError(
            f"{said} (first: {quote(own[first], 40)} of id {first}), so that the weights are of "
            "other words; name weights that were trained with the same tokenizer"
        )
    return (said,)
