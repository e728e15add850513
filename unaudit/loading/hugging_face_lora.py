"""LoRA adapters in PEFT's layout, merged into the weights that they adapt.

Only plain LoRA (Hu et al. 2021, §4.1) is merged: W + s·B·A with s = α/r, or s = α/√r where it is
rank-stabilized (Kalajdzievski 2023). Everything else that PEFT writes changes a network in another
way and is refused, for merged without it the model would not be the one that was trained. The base
model that an adapter names is never looked for: whoever audits says which it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unaudit.errors import InputError, UsageError
from unaudit.loading.hugging_face_causal import CausalNetwork
from unaudit.loading.hugging_face_network import are_equal, is_transposed
from unaudit.text import listed, plain, quote

PREFIX = "base_model.model."
_MERGE = "merge it where it was trained: model.merge_and_unload().save_pretrained(DIR)"
_A, _B = ".lora_A.weight", ".lora_B.weight"

# harmless: how the adapter was begun or trained, and what it is called
_PLAIN = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
        "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "lora_dropout",
        "layers_pattern", "layers_to_transform", "loftq_config", "megatron_core", "peft_type",
        "modules_to_save", "peft_version", "qalora_group_size", "revision", "runtime_config",
        "target_modules", "task_type", "r", "lora_alpha", "bias", "use_rslora", "corda_config",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """What an ``adapter_config.json`` says."""

    rank: int
    scale: float
    saved: tuple[str, ...]
    """Modules that were trained as a whole."""
    biases: bool
    """Whether biases were trained as well."""
    keeps_ties: bool = False
    """Whether weights that were one before stayed one."""


def read_adapter(content: Mapping[str, Any]) -> Adapter:
    """The settings of plain LoRA.

    Raises:
        UsageError: another kind of adapter, or a variant that is not merged here.
        InputError: a setting makes no sense.
    """
    kind = content.get("peft_type")
    if kind != "LORA":
        raise UsageError(f"is an adapter of type {quote(kind)}, not LORA; {_MERGE}")
    odd = sorted(key for key, value in content.items() if key not in _PLAIN and value)
    if odd:
        raise UsageError(f"is not plain LoRA ({listed(odd)} in adapter_config.json); {_MERGE}")
    rank, alpha = content.get("r", 8), content.get("lora_alpha", 8)
    if type(rank) is not int or rank < 1:
        raise InputError(f"adapter_config.json: r is {quote(rank)}; give a rank of 1 or more")
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise InputError(f"adapter_config.json: lora_alpha is {quote(alpha)}; give a number")
    saved = content.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise InputError("adapter_config.json: modules_to_save is no list of names")
    divisor = math.sqrt(rank) if content.get("use_rslora") else rank
    biases = content.get("bias", "none") != "none"
    ties = content.get("ensure_weight_tying") is True
    return Adapter(rank, alpha / divisor, tuple(saved), biases, ties)


def merge(
    network: nn.Module, base: Mapping[str, Tensor], adapter: Adapter, parts: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The base's tensors with the adapter in them.

    Args:
        network: the base network; says which layers are linear.
        base: its tensors by name, as in files; not changed.
        adapter: settings.
        parts: the adapter's tensors by name, as in its file.

    Raises:
        UsageError: it adapts something else than linear layers.
        InputError: its tensors do not fit the base, each other or the settings.
    """
    merged = dict(base)
    rest = {_own_name(name): tensor for name, tensor in parts.items()}
    if len(rest) < len(parts):
        raise InputError("adapter: holds a weight under two names; save it again")
    for name in sorted(rest):
        if not name.endswith(_A):
            continue
        layer = name.removesuffix(_A)
        other = rest.get(layer + _B)
        if other is None:
            raise InputError(f"adapter: has no {plain(layer + _B)}; save it again")
        merged[f"{layer}.weight"] = _adapted(network, base, layer, rest[name], other, adapter)
    for name, tensor in rest.items():
        if name.endswith(_A) or (name.endswith(_B) and name.removesuffix(_B) + _A in rest):
            continue
        if name in base and are_equal(tensor, base[name]):
            continue  # as of embeddings beside adapted ones, which are saved as they were
        whole = any(f".{part}." in f".{name}" for part in adapter.saved)
        if not (whole or (adapter.biases and name.endswith(".bias"))):
            raise UsageError(f"adapter: {quote(name)} is no part of plain LoRA; {_MERGE}")
        if name not in base:
            raise InputError(f"adapter: the base model has no {quote(name)}; check --arch hf:DIR")
        merged[name] = tensor
    if adapter.keeps_ties and isinstance(network, CausalNetwork) and network.tied:
        one, other = (merged.get(name) for name in network.tied_names)
        if one is not None and other is not None and not are_equal(one, other):
            raise UsageError(f"adapter: adapts embeddings that stay one weight; {_MERGE}")
    return merged


def _own_name(name: str) -> str:
    """The name in the base model: ``base_model.model.bert.x`` is ``bert.x``."""
    return name.removeprefix(PREFIX).replace(".modules_to_save.", ".").replace(".base_layer.", ".")


def _adapted(
    network: nn.Module,
    base: Mapping[str, Tensor],
    name: str,
    a: Tensor,
    b: Tensor,
    adapter: Adapter,
) -> Tensor:
    """W + s·B·A, in the layout of the file."""
    weight = base.get(f"{name}.weight")
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        layer = None
    if weight is None or layer is None:
        raise InputError(f"adapter: the base model has no layer {quote(name)}; check --arch hf:DIR")
    if type(layer) is not nn.Linear:
        raise UsageError(f"adapter: {quote(name)} is no linear layer; {_MERGE}")
    out, given = layer.out_features, layer.in_features
    if a.shape != (adapter.rank, given) or b.shape != (out, adapter.rank):
        raise InputError(
            f"adapter: {quote(name)} has parts of shape {tuple(a.shape)} and {tuple(b.shape)}, but "
            f"rank {adapter.rank} and a layer from {given} to {out} need ({adapter.rank}, {given}) "
            f"and ({out}, {adapter.rank}); check --arch hf:DIR and r"
        )
    update = adapter.scale * (b.double() @ a.double())
    if is_transposed(layer):
        update = update.T
    if weight.shape != update.shape:
        raise InputError(f"the base model's {quote(name)} has another shape; check --arch hf:DIR")
    return (weight.double() + update).to(torch.float32)
