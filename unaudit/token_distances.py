"""How far apart two language models are in what they say of each token: whole predictions, compared
a slice at a time.

Predictions over a vocabulary cannot be kept, as the logits of classifiers are. What is kept of a
model is what its head is given, the last hidden state of every token; the logits come back from it
whenever two models are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unaudit.devices import on_device
from unaudit.token_outputs import TokenDistances

Slices = Callable[[], Iterator[Tensor]]
"""Gives (k, V) float32 logits of some tokens, then of the next, until all have been."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """The logits of one language model, from what its head was given."""

    network: nn.Module
    """One that predicts tokens."""
    states: npt.NDArray[np.float32]
    """(N, H) its last hidden states; may be memory-mapped."""
    rows: int
    """Logits of so many tokens exist at a time."""
    device: torch.device

    def __call__(self) -> Iterator[Tensor]:
        with on_device(self.network, self.device) as network:
            reads = cast(Any, network)
            for start in range(0, len(self.states), self.rows):
                kept = np.array(self.states[start : start + self.rows])
                with torch.no_grad():  # and not while the caller has its turn
                    logits = reads.logits_of(torch.from_numpy(kept).to(self.device)).float()
                yield logits


def token_distances(own: Slices, other: Slices) -> TokenDistances:
    """Distances between what two models say of the same tokens, in one sweep.

    Args:
        own, other: slices of equal sizes.

    Raises:
        ValueError: slices of other sizes.
    """
    parts = [_distances(*pair) for pair in zip(own(), other(), strict=True)]
    return TokenDistances(*(torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)))


def _distances(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of (k, V) logits; four tensors (k,)."""
    if own.shape != other.shape:
        raise ValueError(f"logits of shapes {tuple(own.shape)} and {tuple(other.shape)}")
    log_p, log_q = own.log_softmax(dim=1), other.log_softmax(dim=1)
    p, q = log_p.exp(), log_q.exp()
    apart = p - q
    # log(p / m) with m = (p + q) / 2, from the ratio alone: nothing is lost where both are alike
    ratio = log_p - log_q
    from_p = (p * (math.log(2) - nn.functional.softplus(-ratio))).sum(dim=1)
    from_q = (q * (math.log(2) - nn.functional.softplus(ratio))).sum(dim=1)
    return (
        ((from_p + from_q) / 2).clamp(0.0, math.log(2)),
        apart.abs().sum(dim=1),
        apart.square().sum(dim=1).sqrt(),
        own.argmax(dim=1) != other.argmax(dim=1),
    )
