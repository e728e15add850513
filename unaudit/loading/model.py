"""What loading a model yields: a module to run, or outputs that somebody recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import nn

Tier: TypeAlias = Literal["T0", "T1", "T2"]
"""T0: data only (safetensors, npz). T1: restricted or inert unpickling. T2: the model's side ran
code."""


@dataclass(frozen=True)
class Provenance:
    """Where a model came from and how it was read."""

    name: str
    """File name without its folder."""
    sha256: str
    """Of the file's bytes, taken before it was parsed."""
    size_bytes: int
    format: str
    tier: Tier
    arch: str | None = None
    """Architecture spec; None for recorded outputs."""
    parameters: int | None = None
    """Number of weights."""
    ignored: tuple[str, ...] = ()
    """What the file held besides the weights, e.g. ``numpy scalar ×3``, ``optimizer``."""
    notes: tuple[str, ...] = ()
    """Anything else a reader of the report must know: trusted code, stripped prefixes, …"""


@dataclass(frozen=True)
class Trust:
    """Permission to run code from the model's side (tier T2)."""

    reason: str | None
    """Who trusts it and why; printed in the report."""


@dataclass(frozen=True, eq=False)
class TextInput:
    """How texts become what a network is fed."""

    tokenizer: bytes
    """A ``tokenizer.json``."""
    vocabulary: int
    """Token ids that the network has an embedding for: those below it."""
    context: int | None
    """Tokens that it can take at most; None where it sets no bound."""
    labels: tuple[str, ...] | None
    """Names of its outputs in order; None where nobody named them."""
    causal: bool = False
    """Whether the network predicts the next token of a text, and not a class."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in eval mode, float32, on the CPU."""

    module: nn.Module
    provenance: Provenance
    digest: str
    """Of everything that decides its outputs: weights, buffers, architecture."""
    arch: str | None = None
    """A spec that makes the same network on any machine; None: what the plan says."""
    text: TextInput | None = None
    """For models of texts that bring their tokenizer."""


@dataclass(frozen=True, eq=False)
class RecordedSplit:
    """What an API answered for one split."""

    logits: npt.NDArray[np.float32]
    """(n, n_classes), finite."""
    labels: npt.NDArray[np.int64]
    """(n,), each in [0, n_classes)."""
    ids: tuple[str, ...]
    """(n,), unique."""


@dataclass(frozen=True, eq=False)
class RecordedModel:
    """A model that is only known through its recorded outputs: black-box only."""

    splits: Mapping[str, RecordedSplit]
    """By name: ``train`` or ``forget`` and ``retain``; ``unseen``; ``validation``."""
    provenance: Provenance
    digest: str


Model: TypeAlias = LoadedModel | RecordedModel
