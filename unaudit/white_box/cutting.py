"""Cutting a network at a layer: the tail behind it, checked on real examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.text import listed
from unaudit.tokens import are_tokens
from unaudit.white_box.anatomy import FEATURES, Anatomy
from unaudit.white_box.causal_tail import CausalTail
from unaudit.white_box.dummies import unlike
from unaudit.white_box.hearing import hearing
from unaudit.white_box.tail import Tail
from unaudit.white_box.token_tail import TokenTail
from unaudit.white_box.tokens import first_window

TOLERANCE = 1e-3
"""How far what is replayed may be off, relative to what distinguishes examples."""
ROUNDING = 1e-5
"""The same, relative to the largest value."""

Run = Callable[[Tensor], Tensor]


def cut(network: nn.Module, anatomy: Anatomy, layer: str, inputs: Tensor) -> Tail:
    """The tail of ``network`` behind ``layer``, checked on real examples.

    Args:
        network: a private copy in eval mode; the tail takes it over.
        anatomy: of the network.
        layer: one of its cuts, or :data:`FEATURES`.
        inputs: (n, …) real examples, on the network's device.

    Raises:
        InputError: no cut, or replayed logits differ from the network's own.
    """
    anatomy.check_cut(layer)
    if anatomy.states is not None:
        return _cut_causal(network, anatomy, layer, inputs)
    activations, logits = _recorded(network, anatomy, layer, inputs, network)
    dummy = unlike(inputs, network)
    with torch.no_grad():
        contrast = (logits - network(dummy)).abs().max()
    tail = Tail(network, layer, anatomy.head, dummy)
    if are_tokens(inputs):
        tokenwise = layer in anatomy.tokenwise
        tail = TokenTail(network, layer, anatomy.head, dummy, tokenwise=tokenwise)
    for batched in (False, True):
        tail.batched = batched
        if _agrees(tail, activations, logits, range(len(inputs) + 1), float(contrast)):
            tail.restrict(activations)
            return tail
    raise _refusal(anatomy, layer)


def _cut_causal(network: nn.Module, anatomy: Anatomy, layer: str, inputs: Tensor) -> Tail:
    """The same for a language model, whose logits all follow from its hidden states."""
    model: Any = network
    inputs = first_window(network, inputs)
    activations, states = _recorded(network, anatomy, layer, inputs, model.hidden)
    contrast = float((states.amax(dim=0) - states.amin(dim=0)).max())
    ends = [0, *model.counts(inputs).cumsum(dim=0).tolist()]
    tail = CausalTail(network, layer, anatomy, unlike(inputs, network))
    if not _agrees(tail.hidden, activations, states, ends, contrast):
        raise _refusal(anatomy, layer)
    tail.restrict(activations)
    return tail


def _recorded(
    network: nn.Module, anatomy: Anatomy, layer: str, inputs: Tensor, run: Run
) -> tuple[Tensor, Tensor]:
    """Activations at a layer, one row per example, and what ``run`` gives."""
    seen: list[Tensor] = []
    with (
        torch.no_grad(),
        hearing(network, anatomy, {layer: lambda values: seen.append(values.clone())}) as heard,
    ):
        given = run(heard.meet(inputs))
    return seen[0], given


def _agrees(
    replay: Run, activations: Tensor, expected: Tensor, ends: Sequence[int], contrast: float
) -> bool:
    """Whether what is replayed is the network's own, in batches of two sizes.

    Args:
        replay: from activations (b, …) to rows, those of the first example first.
        activations: (n, …).
        expected: (rows, …) of all examples.
        ends: (n + 1,) rows of the first 0, 1, … examples.
        contrast: what distinguishes examples.
    """
    tolerance = max(TOLERANCE * contrast, ROUNDING * float(expected.abs().max()))
    for size in {len(activations), min(2, len(activations))}:
        own = expected[: ends[size]]
        try:
            with torch.no_grad():
                replayed = replay(activations[:size])
        except (RuntimeError, ValueError, IndexError):  # sizes that do not fit
            return False
        if replayed.shape != own.shape:
            return False
        if not (replayed - own).abs().max() <= tolerance:
            return False
    return True


def _refusal(anatomy: Anatomy, layer: str) -> InputError:
    others = anatomy.layers if anatomy.states is not None else (*anatomy.layers, FEATURES)
    return InputError(
        f"the network cannot be cut at '{layer}': run from there it gives other logits; "
        f"choose one of {listed(others, most=20)}"
    )
