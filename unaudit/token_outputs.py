"""What a language model says of texts: a few numbers for every token, never a whole vocabulary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from unaudit.evidence import FloatArray, IntArray
from unaudit.views import Predictions

if TYPE_CHECKING:
    from unaudit.token_distances import Slices

TOP = 10
"""Largest probabilities that are kept of every prediction (RFA-LoRA §V-C)."""
MOST_LOSS = 690.0
"""Nats per token; a perplexity of more is told as if it were that of so much, about 1e299."""
SUREST = -1e-12
"""Log-confidence per token above which 1 − exp of it would be lost to rounding."""


class TokenDistances(NamedTuple):
    """Between the predictions p and q of N tokens, or means of these over N texts."""

    jsd: npt.NDArray[np.generic]
    """(N,) Jensen–Shannon divergence in nats, in [0, ln 2]."""
    l1: npt.NDArray[np.generic]
    """(N,) Σ |p − q|, in [0, 2]."""
    l2: npt.NDArray[np.generic]
    """(N,) √Σ (p − q)², in [0, √2]."""
    differ: npt.NDArray[np.generic]
    """(N,) bool: whether other tokens are the likeliest; of equal logits the first."""


@dataclass(frozen=True, eq=False)
class TokenOutputs(Predictions):
    """One language model on one split. Arrays of tokens hold those of all texts, one text after the
    other: every token but the first of each text, which nothing predicts. All may be memory-mapped.
    """

    labels: IntArray
    """(n,) int64; zeros where texts have none."""
    counts: IntArray
    """(n,) predicted tokens of each text, at least 1."""
    log_p: npt.NDArray[np.float32]
    """(tokens,) log p(x_t | x_<t) in nats."""
    mean_log_p: npt.NDArray[np.float32]
    """(tokens,) mean of log p(z | x_<t) over z drawn from that prediction: minus its entropy."""
    std_log_p: npt.NDArray[np.float32]
    """(tokens,) standard deviation of the same."""
    greedy: npt.NDArray[np.bool_]
    """(tokens,) whether the token is the most probable one."""
    top: npt.NDArray[np.float32]
    """(tokens, TOP) largest probabilities, descending; zeros beyond the vocabulary."""
    compressed: IntArray
    """(n,) bytes of each text after zlib."""
    logits: Slices | None = None
    """Makes the logits of all tokens anew, a slice at a time; None where nothing asks for them."""

    @cached_property
    def starts(self) -> IntArray:
        """(n,) where each text's tokens begin."""
        return np.cumsum(self.counts) - self.counts

    def per_text(self, values: npt.NDArray[np.generic]) -> FloatArray:
        """(n,) mean of (tokens,) values over each text."""
        sums = np.add.reduceat(np.asarray(values, dtype=np.float64), self.starts)
        return np.asarray(sums / self.counts)

    def apart(self, other: TokenOutputs) -> TokenDistances:
        """(n,) how far the predictions of each text's tokens are, on average, from those of another
        model on the same texts. Several probes ask: a pair is compared once.

        Raises:
            ValueError: the logits of one of the two cannot be had.
        """
        if other in self._compared:
            return self._compared[other]
        if self.logits is None or other.logits is None:
            raise ValueError("the logits of tokens are not at hand")
        from unaudit.token_distances import token_distances

        tokens = token_distances(self.logits, other.logits)
        found = TokenDistances(*(self.per_text(values) for values in tokens))
        # distances have no direction
        self._compared[other] = other._compared[self] = found
        return found

    @cached_property
    def _compared(self) -> WeakKeyDictionary[TokenOutputs, TokenDistances]:
        return WeakKeyDictionary()

    @cached_property
    def hit_rate(self) -> FloatArray:
        return self.per_text(self.greedy)

    @cached_property
    def log_confidence(self) -> FloatArray:
        """(n,) mean log p per token, which is minus the logarithm of the perplexity."""
        return self.per_text(self.log_p)

    @cached_property
    def log_doubt(self) -> FloatArray:
        return log_doubt_of(self.log_confidence)


def perplexity_of(log_p: float) -> float:
    """Perplexity from a mean log p per token in nats, at most exp(:data:`MOST_LOSS`)."""
    return math.exp(min(max(-log_p, 0.0), MOST_LOSS))


def log_doubt_of(log_p: FloatArray) -> FloatArray:
    """(n,) log(1 − p), finite at p = 1."""
    return np.asarray(np.log(-np.expm1(np.minimum(log_p, SUREST))))


def logit_scaled(log_p: FloatArray) -> FloatArray:
    """(n,) log p − log(1 − p): what subjects and shadow models alike are compared by."""
    return log_p - log_doubt_of(log_p)
