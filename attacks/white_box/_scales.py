"""Coordinates for gradient descent that do not depend on the scale in which a network is written.

Weights can be rescaled without changing what a network computes: those into a ReLU unit by c and
those out of it by 1/c, those before a normalization at will. Plain gradient descent takes other
steps afterwards, so whoever hands in a model could choose how fast it learns. Here it is done in
coordinates that such rescaling does not move.

*Hidden weights*: W = √r Ŵ √c, where every row of Ŵ has norm 1 and its columns have equal norms
(Sinkhorn & Knopp 1967, on the squares; a bias is one more column). Descent on Ŵ changes W by r c
times its gradient. Path-SGD (Neyshabur et al. 2015) and balancing all units of a network (Stock et
al. 2019) are invariant as well, but need its graph; this takes one tensor at a time and so works
for every architecture.

*The head*: classes have a scale of their own, which no rescaling touches. Features have none; each
is measured by how far it moves when the weights before it are jittered, all of them by a given
part. Unlike its spread over examples this does not blow up features that are hardly used.

Where a language model's head shares its weights with its embedding, these are the head's: as an
embedding they have no scale to be chosen, for what reads them and the head would both notice.

Whatever else can be trained (normalization layers, embeddings of positions) stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from unaudit.evidence import FloatArray
from unaudit.tokens import predicts_tokens

MAX_ROUNDS = 200
"""Of normalizing columns and rows; dense matrices need about ten."""
CONVERGED = 1e-6
"""Largest relative change of a column's norm in the last round."""
JITTERS = 32
"""Of all weights; with half as many, their own noise begins to blur what tells models apart."""
JITTER = 0.02
"""Norm by which a row of norm 1 is moved."""

Scales = dict[str, Tensor]
"""√(r c) by name of parameter, in its shape; parameters that stay are left out."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@torch.no_grad()
def find_scales(
    network: nn.Module,
    head: str,
    spread: float,
    inputs: Sequence[Tensor],
    generator: torch.Generator,
) -> Scales:
    """Coordinates to train a network in; those of a rescaled network are rescaled with it.

    Args:
        network: in eval mode; it is not changed.
        head: name of its last linear layer.
        spread: total variance that the features have in the coordinates of the head.
        inputs: batches of examples like those it will be trained on, on its device.
        generator: of the jitter, on the CPU.
    """
    scales: Scales = {}
    for name, module in network.named_modules():
        if name != head:
            scales.update(_of_module(name, module))
    linear = network.get_submodule(head)
    weight = linear.get_parameter("weight")
    columns = _of_features(network, head, inputs, scales, generator)
    scales[f"{head}.weight"] = (spread**0.5 * columns).to(weight).expand_as(weight)
    if isinstance(linear.bias, nn.Parameter):
        scales[f"{head}.bias"] = torch.ones_like(linear.bias)
    for name, other in network.named_parameters():
        if other is weight:  # shared with an embedding, it is the head's
            scales[name] = scales[f"{head}.weight"]
    return scales


def balance(squares: FloatArray) -> FloatArray:
    """(…, n, m) r c by which squares must be divided so that rows add up to 1, columns to n/m.

    A row or column of zeros has no scale: it gets 0.

    Args:
        squares: (…, n, m) of one matrix or several, at least 0.
    """
    n, m = squares.shape[-2:]
    rows, columns = np.ones((n, 1)), np.ones((1, m))
    for _ in range(MAX_ROUNDS):
        before = columns
        columns = _over(squares, rows).sum(axis=-2, keepdims=True)
        # not to 1, at which rows would undo it: columns would grow by n/m each round, to infinity
        columns *= _present(columns) / _present(rows)
        rows = _over(squares, columns).sum(axis=-1, keepdims=True)
        if np.allclose(columns, before, rtol=CONVERGED, atol=0.0):
            break
    return np.asarray(rows * columns)


def _present(sums: FloatArray) -> FloatArray:
    """(…, 1, 1) how many are not 0, at least 1."""
    return np.asarray(np.maximum((sums > 0).sum(axis=(-2, -1), keepdims=True), 1), np.float64)


def _over(squares: FloatArray, by: FloatArray) -> FloatArray:
    return np.divide(squares, by, out=np.zeros_like(squares), where=by > 0)


def _of_module(name: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Of the matrices and kernels that a module has of its own, with the biases that go along."""
    if isinstance(module, _NORMS):
        return
    own = dict(module.named_parameters(recurse=False))
    for key, weight in own.items():
        if weight.ndim < 2 or (weight.ndim > 2 and not isinstance(module, _ConvNd)):
            continue
        groups = module.groups if isinstance(module, _ConvNd) else 1
        squares = _squares(weight).reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
        squares = squares.sum(axis=-1)
        bias = own.get(key.replace("weight", "bias"), weight)
        transposed = isinstance(module, _ConvNd) and module.transposed
        if bias.shape == weight.shape[:1] and not transposed:
            shift = _squares(bias).reshape(groups, -1, 1)
            found = balance(np.concatenate([squares, shift], axis=-1))
            yield _join(name, key.replace("weight", "bias")), _roots(found[..., -1:], bias)
            found = found[..., :-1]
        else:
            found = balance(squares)
        yield _join(name, key), _roots(found, weight)


def _of_features(
    network: nn.Module,
    head: str,
    inputs: Sequence[Tensor],
    scales: Scales,
    generator: torch.Generator,
) -> Tensor:
    """(d,) √c of the columns of the head, in which features have a total variance of 1."""
    still = _features(network, head, inputs)
    spread = still.var(dim=0, correction=0)
    moved = torch.zeros_like(still)
    jittered = copy.deepcopy(network)
    for _ in range(JITTERS):
        for (name, weight), target in zip(
            network.named_parameters(), jittered.parameters(), strict=True
        ):
            if name in scales and weight.ndim > 1:
                # uncorrelated, though drawn for rows and columns only
                rows = torch.randn(len(weight), *[1] * (weight.ndim - 1), generator=generator)
                columns = torch.randn(weight[:1].shape, generator=generator)
                part = JITTER / weight[0].numel() ** 0.5
                noise = part * rows.sign().to(weight) * columns.to(weight)
                target.copy_(torch.addcmul(weight, scales[name], noise))
        moved += (_features(jittered, head, inputs) - still).square() / JITTERS
    # over examples the largest, not the mean: a unit is not smaller for being seldom on
    squares = moved.max(dim=0).values
    if not squares.any():
        squares = spread
    columns = torch.where(squares > 0, 1.0 / squares, 0.0)
    total = (columns * spread).sum()
    return (columns / total).sqrt() if total > 0 else torch.zeros_like(columns)


def _features(network: nn.Module, head: str, inputs: Sequence[Tensor]) -> Tensor:
    """(≥ n, d) what the head is given, in double precision; of a text one row per token."""
    if predicts_tokens(network):
        model: Any = network
        return torch.cat([model.hidden(batch).double() for batch in inputs])
    given: list[Tensor] = []
    handle = network.get_submodule(head).register_forward_pre_hook(
        lambda _, args: given.append(args[0].double().flatten(end_dim=-2))
    )
    try:
        for batch in inputs:
            network(batch)
    finally:
        handle.remove()
    return torch.cat(given)


def _squares(parameter: Tensor) -> FloatArray:
    return np.asarray(parameter.detach().cpu().double().square().numpy())


def _roots(found: FloatArray, parameter: Tensor) -> Tensor:
    roots = torch.from_numpy(np.sqrt(found)).to(parameter)
    roots = roots.reshape(*parameter.shape[:2], *[1] * (parameter.ndim - 2))
    return roots.expand_as(parameter)


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
