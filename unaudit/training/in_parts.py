"""Losses of batches of texts, of which no more than a part is worked on at a time.

Each token of a text has as many logits as there are words, and the layers before them keep numbers
for the backward pass: 32 texts of 1,024 tokens and a GPT-2 of 12 layers come to 20 GB for the
logits and 70 GB for the layers. How many texts a step has is the recipe's to say, so the step
stays what it is, and is taken in parts. The loss is a mean over rows, and so is its gradient: that
of one part is found before the next one begins. Apart from rounding, and from what dropout draws,
the step is that of the whole batch; batches that are small are not cut at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unaudit.tokens import PADDING, are_present, predicts_tokens
from unaudit.training.summed import Term, summed

LOGITS: Mapping[str, int] = {"cpu": 1 << 22, "cuda": 1 << 25}
"""Logits at a time, by kind of device: 16 MiB, since larger tensors are fetched from the system and
given back to it each time, and 128 MiB. As many rows as a hidden state has numbers at least: the
gradient of the head takes no less, and is added up once per slice."""
ROWS = 128
"""Rows of logits of which a slice is never made smaller."""
KEPT: Mapping[str, int] = {"cpu": 1 << 31, "cuda": 1 << 33}
"""Bytes that the layers before the logits may keep for the backward pass, by kind of device."""
TOKENS = 1 << 10
"""Tokens of which a part is never made smaller: for each, all weights are read."""
KEPT_PER_SIDE = 16
"""Bytes that they keep of a token for each input and each output of a linear layer. Measured: 4 of
GPT-NeoX, 5 of Llama, 14 of GPT-2, which has dropout."""

Loss: TypeAlias = Callable[..., Tensor]
"""From (k, C) logits, and what else is given of these rows, to a scalar: the mean over them."""


class Piece(NamedTuple):
    """A stretch of a text that is read at once. Positions count from 0 in the text."""

    text: int
    start: int
    stop: int
    first: int
    """The first token that is predicted here; all from there to ``stop`` are."""

    @property
    def rows(self) -> int:
        """Predicted tokens."""
        return max(self.stop - self.first, 0)


def batch_loss(
    network: nn.Module,
    inputs: Tensor,
    loss: Loss,
    *beside: Tensor | nn.Module,
    total: bool = False,
) -> Tensor:
    """``loss`` of what a network says of a batch, with gradients for its weights.

    Args:
        network: a classifier or a language model, in the mode that it is in.
        inputs: (b, …).
        loss: of the logits and what is beside them; no weights but the network's may be in it.
        beside: (rows, …) tensors, such as targets; or networks of the same kind, whose logits for
            the batch are wanted without gradients.
        total: whether ``loss`` is the sum over its rows, not the mean.
    """
    if not predicts_tokens(network):
        said = [_still(one)(inputs) if isinstance(one, nn.Module) else one for one in beside]
        return loss(network(inputs), *said)
    groups = groups_of(network, inputs) if torch.is_grad_enabled() else []
    if len(groups) < 2:
        return _texts_loss(network, loss, beside, total, None, inputs)
    sizes = [sum(piece.rows for piece in group) for group in groups]
    terms = []
    for group, size, end in zip(groups, sizes, accumulate(sizes), strict=True):
        own = [one if isinstance(one, nn.Module) else one[end - size : end] for one in beside]
        part = partial(_texts_loss, network, loss, own, total, group)
        terms.append(Term(1.0 if total else size / sum(sizes), part, (inputs,)))
    return summed(terms, trained(network))


def rows_loss(
    logits_of: Callable[[Tensor], Tensor],
    weights: Iterable[Tensor],
    states: Tensor,
    loss: Loss,
    *beside: Tensor,
    total: bool = False,
) -> Tensor:
    """``loss`` of some rows, a slice of their logits at a time.

    Args:
        logits_of: from (k, d) states to (k, C) logits.
        weights: what gradients are wanted for, besides the states.
        states: (rows, d).
        loss: of the logits and what is beside them.
        beside: (rows, …).
        total: whether ``loss`` is the sum over its rows, not the mean.
    """
    count = step = len(states)
    if count > (least := max(ROWS, states.shape[1])):
        # with gradients, for autocast may give the slices what it makes of the weights here
        words = logits_of(states[:1]).shape[1]
        step = max(_of_device(LOGITS, states.device) // words, least)
    if count <= step:
        return loss(logits_of(states), *beside)

    def part(given: Tensor, *own: Tensor) -> Tensor:
        return loss(logits_of(given), *own)

    slices = zip(*(one.split(step) for one in (states, *beside)), strict=True)
    terms = [Term(1.0 if total else len(own[0]) / count, part, own) for own in slices]
    return summed(terms, weights)


def trained(network: nn.Module) -> Iterator[Tensor]:
    """The weights of a network that are trained; nothing is looked for until it is asked for."""
    yield from (weight for weight in network.parameters() if weight.requires_grad)


def tokens_at_once(network: nn.Module, device: torch.device) -> int:
    """Tokens that are trained on at a time, at most.

    Args:
        network: a language model.
        device: where it is.
    """
    embeddings = [layer for layer in network.modules() if isinstance(layer, nn.Embedding)]
    apart = [*embeddings, getattr(network, "head", nn.Identity())]
    left = {id(weight) for layer in apart for weight in layer.parameters()}
    matrices = [weight for weight in network.parameters() if weight.ndim == 2]
    sides = sum(sum(weight.shape) for weight in matrices if id(weight) not in left)
    return max(_of_device(KEPT, device) // (KEPT_PER_SIDE * max(sides, 1)), TOKENS)


def groups_of(network: nn.Module, ids: Tensor) -> list[list[Piece]]:
    """Pieces of texts that are trained on together, in the order of the texts.

    Args:
        network: a language model.
        ids: (b, t), padded.
    """
    if ids.numel() <= TOKENS or ids.numel() <= (most := tokens_at_once(network, ids.device)):
        return []
    windows = getattr(network, "windows", lambda length: [(0, length, 1)])
    groups: list[list[Piece]] = []
    longest = 0
    for text, length in enumerate(are_present(ids).sum(dim=1).tolist()):
        for piece in (Piece(text, *window) for window in windows(length)):
            if not piece.rows:
                continue
            longest = max(longest, piece.stop - piece.start)
            if not groups or (len(groups[-1]) + 1) * longest > most:
                groups.append([])
                longest = piece.stop - piece.start
            groups[-1].append(piece)
    return groups


def _texts_loss(
    network: nn.Module,
    loss: Loss,
    beside: Sequence[Tensor | nn.Module],
    total: bool,
    pieces: Sequence[Piece] | None,
    ids: Tensor,
) -> Tensor:
    """:func:`batch_loss` of some pieces of texts, or of whole texts."""
    given: list[Tensor] = []
    made: list[Callable[[Tensor], Tensor]] = []
    for one in beside:
        if isinstance(one, nn.Module):
            other: Any = one
            given.append(_still(_hidden)(other, ids, pieces))
            made.append(_still(other.logits_of))
        else:
            given.append(one)
            made.append(lambda own: own)

    def of_rows(logits: Tensor, *own: Tensor) -> Tensor:
        return loss(logits, *(make(part) for make, part in zip(made, own, strict=True)))

    reads: Any = network
    states = _hidden(network, ids, pieces)
    return rows_loss(reads.logits_of, trained(network), states, of_rows, *given, total=total)


def _hidden(network: nn.Module, ids: Tensor, pieces: Sequence[Piece] | None) -> Tensor:
    """(rows, d) of what is predicted in some pieces of texts, or in whole texts."""
    reads: Any = network
    if pieces is None:
        whole: Tensor = reads.hidden(ids)
        return whole
    cut = [ids[piece.text, piece.start : piece.stop] for piece in pieces]
    states: Tensor = reads.hidden(pad_sequence(cut, batch_first=True, padding_value=PADDING))
    # what a window begins with was predicted in the one before
    sizes = [size for piece in pieces for size in (piece.first - piece.start - 1, piece.rows)]
    return torch.cat(states.split(sizes)[1::2])


def _still(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same without gradients."""
    return torch.no_grad()(function)


def _of_device(bound: Mapping[str, int], device: torch.device) -> int:
    return bound.get(device.type, bound["cuda"])
