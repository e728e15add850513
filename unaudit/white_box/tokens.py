"""What networks of tokens need so that their inside can be looked at like that of any other.

Token ids have no gradient, so what depends on them is traced from their embedding on. And texts
differ in length: a network computes columns for as long as the longest text of a batch, and
something for padding, which no result depends on. What is recorded here has one length, and zeros
for padding. A row of zeros is never a token's: that is how :class:`TokenTail` knows the one from
the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unaudit.tokens import are_present, are_tokens, predicts_tokens
from unaudit.white_box.trace import Trace, trace

Sink = Callable[[Tensor], None]


def filled(ids: Tensor) -> Tensor:
    """The same texts with their first token in the place of padding, so that all have one length.

    Only where it does not matter what the texts say.
    """
    return torch.where(are_present(ids), ids, ids[:, :1])


def stretched(ids: Tensor, length: int) -> Tensor:
    """(b, length) the same texts, cut or said over and over again.

    Args:
        ids: texts without padding.
        length: in tokens.
    """
    return ids[:, torch.arange(length, device=ids.device) % ids.shape[1]]


def first_window(network: nn.Module, inputs: Tensor) -> Tensor:
    """What of a batch is looked at inside a network.

    A language model reads a text that it cannot take at once in windows. Inside, the first of them
    stands for the text: one row per token, and none twice. For every other network this is the
    whole batch.
    """
    context = getattr(network, "context", None)
    if context is None or not predicts_tokens(network):
        return inputs
    return inputs[:, :context]


def pooled(states: Tensor, present: Tensor) -> Tensor:
    """(b, d) means over the tokens of each text.

    Args:
        states: (b, t, d); rows of padding may hold anything.
        present: (b, t) bool, where there is a token.
    """
    totals = states.masked_fill(~present[:, :, None], 0.0).sum(dim=1)
    return totals / present.sum(dim=1, keepdim=True)


@contextmanager
def embedded(network: nn.Module) -> Iterator[list[Tensor]]:
    """Make the first embedding that runs the leaf from which gradients and paths start.

    The list that is given holds it after the network has run.
    """
    leaves: list[Tensor] = []

    def hook(_: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if leaves:
            return None
        leaves.append(output.detach().requires_grad_())
        return leaves[0]

    handles = [
        layer.register_forward_hook(hook)
        for layer in network.modules()
        if isinstance(layer, nn.Embedding)
    ]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


def trace_tokens(network: nn.Module, ids: Tensor) -> tuple[Trace, Tensor]:
    """One forward pass of texts without padding, and the leaf that stands for their tokens.

    Where nothing is embedded the leaf is one that no result depends on.
    """
    with torch.enable_grad(), embedded(network) as leaves:
        seen = trace(network, ids)
    return seen, leaves[0] if leaves else torch.zeros((), requires_grad=True)


def by_token(
    network: nn.Module, ids: Tensor, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """Shapes of what can be recorded, and the modules among them that give one row per token.

    What grows with the length of texts in another way, such as attention between all tokens, has no
    shape that would hold for all texts.

    Args:
        ids: texts without padding.
        shapes: of one example's outputs for these texts.
    """
    length = ids.shape[1]
    other = ids[:, :-1] if length > 1 else ids.repeat(1, 2)
    with torch.no_grad():
        seen = trace(network, other)
    kept: dict[str, tuple[int, ...]] = {}
    rows = set()
    for name, shape in shapes.items():
        call = seen.once(name)
        now = None if call is None or call.shape is None else call.shape[1:]
        if now == shape:
            kept[name] = shape
        elif shape[:1] == (length,) and now == (other.shape[1], *shape[1:]):
            kept[name] = shape
            rows.add(name)
    return kept, frozenset(rows)


class Padding:
    """Gives what networks of tokens compute one length, and zeros where there is no token."""

    def __init__(self, tokenwise: frozenset[str]) -> None:
        """
        Args:
            tokenwise: modules that give one row per token.
        """
        self._tokenwise = tokenwise
        self._present: Tensor | None = None

    def meet(self, inputs: Tensor) -> None:
        """Take note of the batch that the network is about to be given."""
        self._present = are_present(inputs) if are_tokens(inputs) else None

    def around(self, sinks: Mapping[str, Sink]) -> dict[str, Sink]:
        """Sinks by module name that are given the finished values."""
        return {
            layer: self._finished(sink) if layer in self._tokenwise else sink
            for layer, sink in sinks.items()
        }

    def _finished(self, sink: Sink) -> Sink:
        def take(values: Tensor) -> None:
            present = self._present
            assert present is not None
            whole = values.new_zeros((*present.shape, *values.shape[2:]))
            length = min(values.shape[1], present.shape[1])
            here = present[:, :length].reshape(len(present), length, *[1] * (values.ndim - 2))
            whole[:, :length] = values[:, :length].masked_fill(~here, 0.0)
            sink(whole)

        return take

    def pooled(self, sink: Sink) -> Sink:
        """A sink of the states of tokens that is given their means over each text."""

        def take(states: Tensor) -> None:
            present = self._present
            assert present is not None
            length = min(states.shape[1], present.shape[1])
            sink(pooled(states[:, :length], present[:, :length]))

        return take
