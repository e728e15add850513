"""How a language model scores tokens: one pass of its body, then a slice of all logits at a time.

Logits of a whole batch would be tokens × vocabulary, which for a vocabulary of 50,000 is a hundred
times what the network itself needs. Only some rows of them ever exist, and of each row a few
numbers are kept (see :mod:`unaudit.token_outputs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unaudit.asking import Answers, Form, Question, explained
from unaudit.case import Candidate
from unaudit.data.text_dataset import TextDataset
from unaudit.errors import InputError
from unaudit.evidence import IntArray
from unaudit.splits import Split
from unaudit.token_distances import Slices
from unaudit.token_outputs import TOP, TokenOutputs
from unaudit.training.likelihood import texts_at_once

LOGITS_AT_ONCE: Mapping[str, int] = {"cpu": 1 << 21, "cuda": 1 << 23}
"""Logits that exist at a time, by kind of device: 8 MiB, which caches and the allocator like better
than more, and 32 MiB where every slice costs the start of its kernels."""

SCORED_BY = (
    "unaudit.asking", "unaudit.loading", "unaudit.token_scores", "unaudit.tokens",
    "unaudit.training.likelihood", "unaudit.white_box",
)  # fmt: skip
"""Code that decides the scores of tokens and what is heard beside them."""

FORMS: Mapping[str, Form] = {
    "log_p": ((), np.float32),
    "mean_log_p": ((), np.float32),
    "std_log_p": ((), np.float32),
    "greedy": ((), np.bool_),
    "top": ((TOP,), np.float32),
}
"""Shape and dtype of what is kept of one token."""
LAST_STATES = "last states"
"""What the head is given for one token; from it whole predictions can be made anew."""


class TokenScores(NamedTuple):
    """Of N predicted tokens, on the CPU; see :class:`unaudit.token_outputs.TokenOutputs`."""

    log_p: Tensor
    """(N,) float32."""
    mean_log_p: Tensor
    """(N,) float32."""
    std_log_p: Tensor
    """(N,) float32."""
    greedy: Tensor
    """(N,) bool; of equal logits the first counts as the largest."""
    top: Tensor
    """(N, TOP) float32."""


def rows_at_once(vocabulary: int, device: torch.device) -> int:
    """Rows of logits that exist at a time."""
    return max(1, LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE["cuda"]) // vocabulary)


def score_tokens(network: Any, states: Tensor, ids: Tensor, chunk: int) -> TokenScores:
    """What is kept of every predicted token of some texts, one text after the other.

    Args:
        network: one that predicts tokens, in eval mode.
        states: (N, H) what it gives its head for them.
        ids: (b, t) token ids, padded, on its device.
        chunk: rows of logits that exist at a time.
    """
    with torch.no_grad():
        parts = [
            _scores(network.logits_of(rows).float(), tokens)
            for rows, tokens in zip(
                states.split(chunk), network.targets(ids).split(chunk), strict=True
            )
        ]
    return TokenScores(*(torch.cat(values).cpu() for values in zip(*parts, strict=True)))


def vocabulary_of(network: Any, ids: Tensor) -> int:
    """Logits per token.

    Args:
        network: one that predicts tokens.
        ids: (1, t) one text, of which the beginning is read.
    """
    with torch.no_grad():
        return int(network.logits_of(network.hidden(ids[:, :2])).shape[1])


def token_counts(split: Split) -> IntArray:
    """(n,) predicted tokens of each text: all but the first."""
    assert isinstance(split.dataset, TextDataset)
    return split.dataset.lengths[split.rows] - 1


def outputs_of(
    split: Split, scores: Mapping[str, npt.NDArray[Any]], logits: Slices | None = None
) -> TokenOutputs:
    """What a language model says of a split, from the arrays of its :data:`FORMS`."""
    assert isinstance(split.dataset, TextDataset)
    return TokenOutputs(
        labels=split.labels,
        counts=token_counts(split),
        compressed=split.dataset.compressed_sizes()[split.rows],
        logits=logits,
        **{part: scores[part] for part in FORMS},
    )


class AskTokens(Question):
    """Scores of every token of every text; rows are tokens, in the order of the split."""

    def __init__(
        self,
        candidate: Candidate,
        split: Split,
        vocabulary: int,
        *,
        padded: bool = False,
        keep_states: bool = False,
    ) -> None:
        """
        Args:
            candidate, split: see :class:`unaudit.asking.Question`.
            vocabulary: logits per token.
            padded: whether batches are as wide as the longest text of all.
            keep_states: whether the :data:`LAST_STATES` are an answer as well.
        """
        super().__init__(candidate, split)
        self._vocabulary, self._padded = vocabulary, padded
        self._keep_states = keep_states

    @property
    def forms(self) -> Mapping[str, Form]:
        total = int(self._counts.sum())
        each = dict(FORMS)
        if self._keep_states:
            network = cast(Any, self.candidate.model).module
            each[LAST_STATES] = ((network.head.in_features,), np.float32)
        return {part: ((total, *shape), dtype) for part, (shape, dtype) in each.items()}

    def batches(self, rows: IntArray, size: int) -> Iterator[Tensor]:
        """Fewer texts at a time than ``size`` where they are long, so that memory has a bound."""
        data = self.split.dataset
        assert isinstance(data, TextDataset)
        source = data.batches if self._padded else data.narrow_batches
        start = 0
        while start < len(rows):
            # the first is the longest: they come in the cheapest order
            stop = start + min(size, texts_at_once(int(data.lengths[rows[start]])))
            yield from source(rows[start:stop], size)
            start = stop

    def put(self, module: nn.Module, inputs: Tensor, positions: IntArray) -> Answers:
        counts, reads = self._counts[positions], cast(Any, module)
        with explained(self.candidate, inputs):
            predicted = reads.counts(inputs).cpu().numpy()
            states = reads.hidden(inputs)
            chunk = rows_at_once(self._vocabulary, inputs.device)
            scores = score_tokens(module, states, inputs, chunk)
        if not np.array_equal(predicted, counts) or len(scores.log_p) != counts.sum():
            raise InputError(
                f"{self.candidate.model.provenance.name}: the model predicts other tokens than all "
                "but the first of each text; hand in one that predicts these"
            )
        parts = {part: values.numpy() for part, values in scores._asdict().items()}
        known = [np.isfinite(parts[part]) for part in ("log_p", "mean_log_p", "std_log_p")]
        finite = np.logical_and.reduceat(np.logical_and.reduce(known), np.cumsum(counts) - counts)
        self.refuse(finite, positions)
        if self._keep_states:
            parts[LAST_STATES] = states.float().cpu().numpy()
        return parts

    def run(self, module: nn.Module, inputs: Tensor, positions: IntArray) -> None:
        reads: Any = module
        with explained(self.candidate, inputs):
            hidden = reads.hidden(inputs)
        counts = reads.counts(inputs).cpu().numpy()
        finite = hidden.isfinite().all(dim=1).cpu().numpy()
        # a text that is cut after its first token has no rows
        text = np.repeat(np.arange(len(counts)), counts)
        self.refuse(~np.isin(np.arange(len(counts)), text[~finite]), positions)

    def rows_of(self, positions: IntArray) -> IntArray:
        counts = self._counts[positions]
        ends = np.cumsum(counts)
        # of each token, its place among those of the split
        return np.arange(ends[-1]) + np.repeat(self._starts[positions] - ends + counts, counts)

    @cached_property
    def _counts(self) -> IntArray:
        return token_counts(self.split)

    @cached_property
    def _starts(self) -> IntArray:
        return np.cumsum(self._counts) - self._counts


def _scores(logits: Tensor, tokens: Tensor) -> TokenScores:
    """Of some rows, all relative to the largest logit: so float32 has digits enough.

    Args:
        logits: (k, V) float32.
        tokens: (k,) the true ones.
    """
    peak, likeliest = logits.max(dim=1)  # of several largest, the first
    below = logits - peak[:, None]
    weight = below.exp()
    total = weight.sum(dim=1)
    mean = (weight * below).sum(dim=1) / total
    top = weight.topk(min(TOP, weight.shape[1]), dim=1).values / total[:, None]
    log_p = below.gather(1, tokens[:, None]).squeeze(1) - total.log()
    # around the mean, for E[l²] − E[l]² is lost to rounding where predictions are nearly even
    spread = below.sub_(mean[:, None]).square_().mul_(weight).sum(dim=1)
    return TokenScores(
        log_p,
        mean - total.log(),
        (spread / total).sqrt_(),
        likeliest == tokens,
        nn.functional.pad(top, (0, TOP - top.shape[1])),
    )
