"""Norms of per-example gradients of the cross-entropy, without the gradients where possible.

The gradient of a layer's weight for one example is a sum of outer products of what the layer was
given and what came back: G = Σ_t g_t a_tᵀ. For a linear layer with one position per example its
norm is ‖g‖·‖a‖ (Goodfellow 2015, arXiv 1510.01799); with T positions it is
‖G‖² = Σ_st (a_s·a_t)(g_s·g_t), which never forms G, or G itself is formed if that is cheaper
(Bu et al. 2022, "Scalable and efficient training of large convolutional neural networks with
differential privacy", mixed ghost clipping). Convolutions are linear layers on patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge as Edge
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from unaudit.evidence import FloatArray, IntArray

ELEMENTS_AT_ONCE = 1 << 24
"""Numbers in the largest intermediate array: 64 MiB of float32."""

SquaredNorm: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(layer, its input (b, …), gradient of its output (b, …)) → (b,) squared norms of the gradients of
the layer's own parameters that are trained."""


def log_head_norms(
    logits: FloatArray, labels: IntArray, features: FloatArray, bias: bool
) -> FloatArray:
    """(n,) log norms of the gradient of the cross-entropy for a linear head.

    The gradient is the outer product of p − y and what the head is given (with a 1 if it has a
    bias), so the norm is the product of theirs. Worked out in logarithms: 1 − p_y below the
    precision of p_y = 1 would make every confident example equal.

    Args:
        logits: (n, C).
        labels: (n,).
        features: (n, d) what the head is given.
        bias: whether the head has a trained bias.
    """
    each = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    log_p[each, labels] = -np.inf
    # |p_y − 1| is what the other classes have together
    top = log_p.max(axis=1)
    doubt = top + np.log(np.exp(log_p - top[:, None]).sum(axis=1))
    log_p[each, labels] = doubt
    twice = 2.0 * (log_p - doubt[:, None])
    residual = doubt + 0.5 * np.log(np.exp(twice).sum(axis=1))
    squared = np.square(features).sum(axis=1) + float(bias)
    # a dead penultimate layer without bias gives no gradient at all
    return np.asarray(residual + 0.5 * np.log(np.maximum(squared, np.finfo(np.float64).tiny)))


def gradient_norms(
    network: nn.Module, parameters: Sequence[nn.Parameter], inputs: Tensor, labels: Tensor
) -> Tensor:
    """(b,) norms of each example's gradient of the cross-entropy with respect to ``parameters``.

    By outer products where every parameter belongs to a layer for which that is known and which
    runs once; else by ``torch.func``.

    Args:
        network: in eval mode, so that examples do not influence each other; its parameters'
            ``requires_grad`` is changed.
        parameters: some of the network's.
        inputs: (b, …).
        labels: (b,) int64.
    """
    wanted = {id(parameter) for parameter in parameters}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    layers = [
        layer
        for layer in network.modules()
        if any(id(own) in wanted for own in layer.parameters(recurse=False))
    ]
    if all(_rule(layer) is not None for layer in layers):
        squared = _by_outer_products(network, layers, inputs, labels)
        if squared is not None:
            return squared.sqrt()
    return by_transform(network, parameters, inputs, labels)


def by_transform(
    network: nn.Module, parameters: Sequence[nn.Parameter], inputs: Tensor, labels: Tensor
) -> Tensor:
    """The same norms from gradients that ``torch.func`` forms, for layers of any kind."""
    wanted = {id(parameter) for parameter in parameters}
    trained: dict[str, Tensor] = {}
    fixed: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        (trained if id(parameter) in wanted else fixed)[name] = parameter.detach()
    fixed |= dict(network.named_buffers())

    def loss(own: dict[str, Tensor], example: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, (own, fixed), (example[None],))
        return functional.cross_entropy(logits, label[None])

    size = sum(parameter.numel() for parameter in trained.values())
    step = max(1, ELEMENTS_AT_ONCE // max(1, size))
    norms = []
    for example, label in zip(inputs.split(step), labels.split(step), strict=True):
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(trained, example, label)
        squared = [gradient.flatten(1).square().sum(dim=1) for gradient in each.values()]
        norms.append(torch.stack(squared).sum(dim=0).sqrt())
    return torch.cat(norms)


def _by_outer_products(
    network: nn.Module, layers: Sequence[nn.Module], inputs: Tensor, labels: Tensor
) -> Tensor | None:
    """(b,) squared norms; None if a layer does not run exactly once through its own forward."""
    with _overheard(layers) as heard:
        logits = network(inputs)
    if any(len(heard[id(layer)]) != 1 for layer in layers):
        return None
    runs = [heard[id(layer)][0] for layer in layers]
    if not all(len(given) == len(inputs) for given, _ in runs):
        return None
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    gradients = torch.autograd.grad(loss, [edge for _, edge in runs])
    total = torch.zeros(len(inputs), device=inputs.device)
    with torch.no_grad():
        for layer, (given, _), gradient in zip(layers, runs, gradients, strict=True):
            rule = _rule(layer)
            assert rule is not None
            total += rule(layer, given, gradient)
    return total


@contextmanager
def _overheard(layers: Sequence[nn.Module]) -> Iterator[dict[int, list[tuple[Tensor, Edge]]]]:
    """What each layer was given, and where its output stands in the graph, by the layer's id.

    The edge rather than the output: an activation that works in place turns the output into its
    own, while an edge stays with the value before. What a layer was given cannot change unnoticed,
    since its backward pass needs it as well.
    """
    heard: dict[int, list[tuple[Tensor, Edge]]] = {id(layer): [] for layer in layers}

    def hear(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        heard[id(layer)].append((given[0].detach(), get_gradient_edge(output)))

    handles = [layer.register_forward_hook(hear) for layer in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _rule(layer: nn.Module) -> SquaredNorm | None:
    """How to get the norm for a layer; None where it is not known."""
    kind = type(layer)
    if kind is nn.Linear:
        return _linear
    if kind in (nn.Conv1d, nn.Conv2d):
        return _convolution
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return _batch_norm if not layer.training and layer.running_mean is not None else None
    if kind is nn.GroupNorm:
        return _group_norm
    return _layer_norm if kind is nn.LayerNorm else None


def _linear(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    a = given.reshape(len(given), -1, given.shape[-1])
    g = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    return _weight_and_bias(layer, a, g)


def _convolution(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    groups = layer.groups
    per_example = layer.weight[0].numel() * groups * gradient[0, 0].numel()
    step = max(1, ELEMENTS_AT_ONCE // per_example)
    norms = []
    for part, g in zip(given.split(step), gradient.split(step), strict=True):
        a = _patches(layer, part)
        a = a.reshape(len(a) * groups, -1, a.shape[2]).transpose(1, 2)
        g = g.reshape(len(g) * groups, -1, a.shape[1]).transpose(1, 2)
        norms.append(_weight_and_bias(layer, a, g).view(-1, groups).sum(dim=1))
    return torch.cat(norms)


def _patches(layer: nn.Conv1d | nn.Conv2d, given: Tensor) -> Tensor:
    """(b, channels × kernel, positions), channels first."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # what the layer itself pads by, also where its padding is called 'same'
    padded = functional.pad(given, layer._reversed_padding_repeated_twice, mode=mode)
    sizes = [layer.kernel_size, layer.dilation, layer.stride]
    if isinstance(layer, nn.Conv1d):
        padded = padded.unsqueeze(2)
        sizes = [(1, *size) for size in sizes]
    kernel, dilation, stride = sizes
    return functional.unfold(padded, kernel, dilation=dilation, stride=stride)


def _weight_and_bias(layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
    """(b,) for positions a (b, T, k) and g (b, T, o)."""
    weight, bias = layer.weight, layer.bias
    total = torch.zeros(len(a), device=a.device)
    if isinstance(weight, Tensor) and weight.requires_grad:
        positions, size = a.shape[1], a.shape[2] * g.shape[2]
        if positions == 1:
            total += a.square().sum(dim=(1, 2)) * g.square().sum(dim=(1, 2))
        elif positions * positions * 2 <= size:
            total += ((a @ a.transpose(1, 2)) * (g @ g.transpose(1, 2))).sum(dim=(1, 2))
        else:
            step = max(1, ELEMENTS_AT_ONCE // size)
            formed = [
                (part.transpose(1, 2) @ own).square().sum(dim=(1, 2))
                for part, own in zip(a.split(step), g.split(step), strict=True)
            ]
            total += torch.cat(formed)
    if isinstance(bias, Tensor) and bias.requires_grad:
        total += g.sum(dim=1).square().sum(dim=1)
    return total


def _batch_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    plain = functional.batch_norm(given, layer.running_mean, layer.running_var, eps=layer.eps)
    return _scale_and_shift(layer, plain, gradient)


def _group_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.GroupNorm)
    plain = functional.group_norm(given, layer.num_groups, eps=layer.eps)
    return _scale_and_shift(layer, plain, gradient)


def _layer_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.LayerNorm)
    plain = functional.layer_norm(given, layer.normalized_shape, eps=layer.eps)
    shape = (len(plain), -1, math.prod(layer.normalized_shape))
    return _scale_and_shift(
        layer, plain.reshape(shape).transpose(1, 2), gradient.reshape(shape).transpose(1, 2)
    )


def _scale_and_shift(layer: nn.Module, plain: Tensor, gradient: Tensor) -> Tensor:
    """(b,) for normalized values and gradients (b, channels, …)."""
    shape = (len(plain), plain.shape[1], -1)
    plain, gradient = plain.reshape(shape), gradient.reshape(shape)
    weight, bias = layer.weight, layer.bias
    total = torch.zeros(len(plain), device=plain.device)
    if isinstance(weight, Tensor) and weight.requires_grad:
        total += (plain * gradient).sum(dim=2).square().sum(dim=1)
    if isinstance(bias, Tensor) and bias.requires_grad:
        total += gradient.sum(dim=2).square().sum(dim=1)
    return total
