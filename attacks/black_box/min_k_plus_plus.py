"""Min-K %++: the tokens of texts that lie lowest among what could have stood there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.black_box._texts import lowest_means
from attacks.black_box.min_k import MinK
from unaudit.evidence import LANGUAGE_MODELING, PROBES, FloatArray, ProbeCard
from unaudit.token_outputs import TokenOutputs

LEAST_SPREAD = 1e-4
"""Nats: a prediction whose log-probabilities spread by less is even, or certain, up to rounding,
and the quotient of two roundings would decide."""


@PROBES.register("min-k-plus-plus")
@dataclass(frozen=True)
class MinKPlusPlus(MinK):
    """Mean of the lowest k % of (log p − μ)/σ over a text's tokens.

    μ and σ are the mean and the standard deviation of log p(z) for z drawn from the model's own
    prediction, so −μ is its entropy. Where Min-K % takes a token for a surprise because anything
    could have stood there, this takes it for one only if the model expected something else.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="min-k-plus-plus",
        title="Min-K%++ attack",
        family="membership",
        measures=(
            "AUC of forget against unseen texts of the same classes by the mean of their lowest "
            "standardized log-probabilities: 0.5 = cannot be told apart, higher = forget texts "
            "surprise the model less than what it would have expected, as texts trained on do."
        ),
        source="Zhang et al. 2025 (Min-K %++), §4",
        cost="no forward pass beyond the shared one; about 15 µs per text",
        blind_spots=(
            "Refitting the output layer alone can fool it (IDI §3.1, for classifiers).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "One wrong guess of a model that was sure outweighs the rest of a text.",
        ),
        needs=frozenset({"unseen"}),
        tasks=LANGUAGE_MODELING,
    )

    def score(self, tokens: TokenOutputs) -> FloatArray:
        return lowest_means(standardized(tokens), tokens.counts, self.k)


def standardized(tokens: TokenOutputs) -> FloatArray:
    """(tokens,) log p of each token in standard deviations of what the model expected there."""
    log_p, mean = (np.asarray(part, np.float64) for part in (tokens.log_p, tokens.mean_log_p))
    spread = np.maximum(np.asarray(tokens.std_log_p, np.float64), LEAST_SPREAD)
    return np.asarray((log_p - mean) / spread)
