"""How likely networks that predict tokens find texts, a slice of all predictions at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unaudit.tokens import predicts_tokens

ELEMENTS = 1 << 22
"""Logits at a time: 16 MiB. A batch of texts has one for every token and every word of the
vocabulary."""
TOKENS = 1 << 14
"""Tokens that are read at a time."""


def texts_at_once(length: int) -> int:
    """Texts of so many tokens that are read at a time."""
    return max(1, TOKENS // max(length, 1))


def log_p(network: nn.Module, ids: Tensor) -> Tensor:
    """(N,) float64 log p of each predicted token in nats, one text after the other; on the CPU and
    without gradients.

    Args:
        network: one that predicts tokens, in the mode that it is in.
        ids: (b, t) token ids, padded, on its device.
    """

    def judge(logits: Tensor, tokens: Tensor) -> Tensor:
        # relative to the largest, so that float32 has digits enough; not every device has more
        below = logits.float() - logits.float().amax(dim=1, keepdim=True)
        own = below.gather(1, tokens[:, None]).squeeze(1)
        return (own - below.exp().sum(dim=1).log()).cpu().double()

    return by_slices(network, ids, judge)


def by_slices(network: nn.Module, ids: Tensor, judge: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(…, N) what ``judge`` makes of each predicted token, without gradients.

    Args:
        network, ids: see :func:`log_p`.
        judge: from some rows of logits (k, V) and the true tokens (k,) to (…, k).
    """
    reads: Any = network
    with torch.no_grad():
        hidden, targets = reads.hidden(ids), reads.targets(ids)
        first = reads.logits_of(hidden[:1])
        step = max(1, ELEMENTS // first.shape[1])
        # what is kept has its place first: small tensors between large ones would leave holes into
        # which the next large ones do not fit, and memory would grow with the number of slices
        judged = judge(first, targets[:1])
        found = judged.new_empty((*judged.shape[:-1], len(hidden)))
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            found[..., part] = judge(reads.logits_of(hidden[part]), targets[part])
        return found


def by_rows(
    network: nn.Module, inputs: Tensor, labels: Tensor, judge: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """(…, rows) what ``judge`` makes of each example, or of each predicted token of texts; without
    gradients.

    Args:
        network: a classifier or a language model, in the mode that it is in.
        inputs: (b, …).
        labels: (b,) of a classifier's examples.
        judge: see :func:`by_slices`.
    """
    if predicts_tokens(network):
        return by_slices(network, inputs, judge)
    with torch.no_grad():
        return judge(network(inputs), labels)


def mean_log_p(network: nn.Module, ids: Tensor) -> Tensor:
    """(b,) float64 mean of :func:`log_p` over the predicted tokens of each text."""
    reads: Any = network
    return per_text(log_p(network, ids), reads.counts(ids).cpu())


def per_text(values: Tensor, counts: Tensor) -> Tensor:
    """(b,) mean over each text.

    Args:
        values: (N,) float, of each predicted token, one text after the other.
        counts: (b,) int64, predicted tokens of each text, at least 1.
    """
    text = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    sums = values.new_zeros(len(counts)).index_add(0, text, values)
    return sums / counts
