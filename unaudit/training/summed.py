"""Sums of scalars whose graphs are never there together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Term(NamedTuple):
    """One of several scalars that are added up."""

    share: float
    """What it is multiplied by."""
    function: Callable[..., Tensor]
    given: tuple[Tensor, ...]
    """What it is a function of, besides weights; gradients flow to the first."""


def summed(terms: Sequence[Term], weights: Iterable[Tensor]) -> Tensor:
    """The sum, with gradients that are found term by term: what one of them keeps for its backward
    pass is gone before the next one begins. There are no second derivatives, and one pass backward.

    Args:
        terms: at least one, on one device.
        weights: what gradients are wanted for, besides what the terms are given; any other weight
            is taken for a constant.
    """
    first = [term.given[0] for term in terms]
    if torch.is_grad_enabled():
        found: Tensor = _Sum.apply(terms, *first, *weights)  # type: ignore[no-untyped-call]
        return found
    return torch.stack([term.share * term.function(*term.given) for term in terms]).sum()


class _Sum(torch.autograd.Function):
    """Gradients are found on the way forward, where what they need is at hand anyway."""

    @staticmethod
    def forward(ctx: Any, terms: Sequence[Term], *tensors: Tensor) -> Tensor:
        givens, weights = tensors[: len(terms)], tensors[len(terms) :]
        # what is kept has its place before any term is made: small tensors between large ones
        # would leave holes into which the next large ones do not fit, and memory would grow with
        # the number of terms (measured with glibc)
        slopes = [torch.empty_like(one) if one.requires_grad else None for one in givens]
        sums: list[Tensor | None] = [None] * len(weights)
        total = torch.zeros((), device=givens[0].device)
        for (share, function, (first, *others)), slope in zip(terms, slopes, strict=True):
            leaf = first.detach().requires_grad_(first.requires_grad)
            with torch.enable_grad():
                value = share * function(leaf, *others)
            total = total + value.detach()
            wanted = [leaf, *weights] if leaf.requires_grad else list(weights)
            found: list[Tensor | None] = [None] * len(wanted)
            if value.requires_grad:
                # what runs backward is not under autocast, wherever the forward pass is
                with torch.autocast(leaf.device.type, enabled=False):
                    found = list(torch.autograd.grad(value, wanted, allow_unused=True))
            if slope is not None:
                own = found.pop(0)
                slope.copy_(torch.zeros_like(slope) if own is None else own)
            for at, gradient in enumerate(found):
                if gradient is not None:
                    # a copy, for it may be the gradient of another weight as well
                    known = sums[at]
                    sums[at] = gradient.clone() if known is None else known.add_(gradient)
            del value, found
        ctx.slopes, ctx.sums = slopes, sums
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        slopes, sums = ctx.slopes, ctx.sums
        ctx.slopes = ctx.sums = None  # the caller's from now on, and as large as the weights
        return (
            None,
            *(None if one is None else one.mul_(scale) for one in (*slopes, *sums)),
        )
