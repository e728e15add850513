"""Fresh weights from a generator of one's own, by PyTorch's default schemes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unaudit.errors import InputError

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def initialize(
    module: nn.Module, generator: torch.Generator, base: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Draw every weight of ``module`` anew, in place, and return it.

    A network that has ``draw_weights(generator)`` knows better than its layers how that is done.

    Args:
        module: on the CPU.
        generator: on the CPU.
        base: weights and buffers to start from instead, by name; layers of which it holds nothing
            are drawn.

    Raises:
        InputError: a layer of another kind than :func:`initialize_layer` knows has weights.
    """
    draw = getattr(module, "draw_weights", None)
    if draw is not None:
        draw(generator)
    else:
        given = {name.rpartition(".")[0] for name in base or ()}
        for name, layer in module.named_modules():
            if name not in given:
                initialize_layer(layer, generator)
    if base is not None:
        module.load_state_dict(base, strict=False)
    return module


def initialize_layer(layer: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights anew that a layer has of its own; layers inside it are left alone.

    Linear and convolution layers get the uniform scheme of their ``reset_parameters`` (He et al.
    2015 with a = √5); normalization layers get ones and zeros; the projections of an attention
    layer the uniform scheme of Glorot & Bengio 2010.

    Raises:
        InputError: a layer of another kind has weights of its own.
    """
    if isinstance(layer, _LINEAR):
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        if layer.bias is not None:
            bound = 1.0 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    elif isinstance(layer, _NORMS):
        _reset_norm(layer)
    elif isinstance(layer, nn.MultiheadAttention) and layer.bias_k is None:
        for name, weight in layer.named_parameters(recurse=False):
            if name == "in_proj_bias":
                nn.init.zeros_(weight)
            else:
                nn.init.xavier_uniform_(weight, generator=generator)
    elif next(layer.parameters(recurse=False), None) is not None:
        raise InputError(f"no way is known to initialize a {type(layer).__name__} layer")


def _reset_norm(layer: nn.Module) -> None:
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        layer.reset_running_stats()
    weight, bias = layer.weight, getattr(layer, "bias", None)
    if isinstance(weight, nn.Parameter):
        nn.init.ones_(weight)
    if isinstance(bias, nn.Parameter):
        nn.init.zeros_(bias)
