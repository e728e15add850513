"""Norms of per-example gradients of the cross-entropy, without the gradients where possible.

One backward pass over a batch gives what comes back to each layer, example by example; a layer's
gradient follows from that and from what the layer was given (see ``_outer_products``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge as Edge
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from attacks.white_box._outer_products import rule_for
from unaudit.evidence import FloatArray, IntArray

ELEMENTS_AT_ONCE = 1 << 24
"""Numbers in the largest intermediate array: 64 MiB of float32."""


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
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    inputs: Tensor,
    labels: Tensor,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """(b,) norms of each example's gradient of the cross-entropy with respect to ``parameters``.

    Where an example has several rows of logits, as a text has one per token, it is the gradient of
    their mean cross-entropy. By outer products where every parameter belongs to a layer for which
    that is known and which runs once; else by ``torch.func``.

    Args:
        network: in eval mode, so that examples do not influence each other; its parameters'
            ``requires_grad`` is changed.
        parameters: some of the network's.
        inputs: (b, …).
        labels: (rows,) int64, the truth of each row of logits.
        counts: (b,) rows of each example; default: one.
    """
    wanted = {id(parameter) for parameter in parameters}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    layers = [
        layer
        for layer in network.modules()
        if any(id(own) in wanted for own in layer.parameters(recurse=False))
    ]
    if all(rule_for(layer) is not None for layer in layers):
        squared = _by_outer_products(network, layers, inputs, labels, counts)
        if squared is not None:
            return squared.sqrt()
    return by_transform(network, parameters, inputs, labels, counts)


def by_transform(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    inputs: Tensor,
    labels: Tensor,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """The same norms from gradients that ``torch.func`` forms, for layers of any kind: of many
    examples at once, or, where the network's own code does not allow that, of one by one."""
    wanted = {id(parameter) for parameter in parameters}
    trained: dict[str, Tensor] = {}
    fixed: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        (trained if id(parameter) in wanted else fixed)[name] = parameter.detach()
    fixed |= dict(network.named_buffers())

    def loss(own: dict[str, Tensor], example: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, (own, fixed), (example[None],))
        return functional.cross_entropy(logits, label.reshape(-1))

    if counts is not None:
        truths = labels.split(list(counts))
        own = [torch.func.grad(loss)(trained, *pair) for pair in zip(inputs, truths, strict=True)]
        return torch.stack([torch.cat([x.flatten() for x in each.values()]).norm() for each in own])
    size = sum(parameter.numel() for parameter in trained.values())
    step = max(1, ELEMENTS_AT_ONCE // max(1, size))
    norms = []
    for example, label in zip(inputs.split(step), labels.split(step), strict=True):
        each = _each(torch.func.grad(loss), trained, example, label)
        squared = [gradient.flatten(1).square().sum(dim=1) for gradient in each.values()]
        norms.append(torch.stack(squared).sum(dim=0).sqrt())
    return torch.cat(norms)


def _each(
    gradient: Callable[..., dict[str, Tensor]],
    trained: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
) -> dict[str, Tensor]:
    """(b, …) gradients by name, of every example."""
    try:
        found: dict[str, Tensor] = torch.func.vmap(gradient, in_dims=(None, 0, 0))(
            trained, inputs, labels
        )
        return found
    except RuntimeError:  # such as a mask that depends on what the tensor holds
        rows = [gradient(trained, *pair) for pair in zip(inputs, labels, strict=True)]
        return {name: torch.stack([row[name] for row in rows]) for name in trained}


def _by_outer_products(
    network: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Tensor,
    labels: Tensor,
    counts: Sequence[int] | None,
) -> Tensor | None:
    """(b,) squared norms; None if a layer does not run exactly once through its own forward."""
    with overheard(layers) as heard:
        logits = network(inputs)
    if any(len(heard[id(layer)]) != 1 for layer in layers):
        return None
    runs = [heard[id(layer)][0] for layer in layers]
    if not all(len(given) == len(inputs) for given, _ in runs):
        return None
    losses = functional.cross_entropy(logits, labels, reduction="none")
    loss = losses.sum()
    if counts is not None:
        loss = torch.stack([rows.mean() for rows in losses.split(list(counts))]).sum()
    gradients = torch.autograd.grad(loss, [edge for _, edge in runs])
    total = gradients[0].new_zeros(len(inputs))
    with torch.no_grad():
        for layer, (given, _), gradient in zip(layers, runs, gradients, strict=True):
            rule = rule_for(layer)
            assert rule is not None
            total += rule(layer, given, gradient)
    # sums of products of either sign: where all cancel, rounding may leave less than nothing
    return total.clamp(min=0.0)


@contextmanager
def overheard(layers: Sequence[nn.Module]) -> Iterator[dict[int, list[tuple[Tensor, Edge]]]]:
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
