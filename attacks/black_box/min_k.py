"""Min-K %: the least likely tokens of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attacks.black_box._parameters import require_percent
from attacks.black_box._texts import TextAttack, fewest, lowest_means
from unaudit.evidence import LANGUAGE_MODELING, PROBES, FloatArray, ProbeCard
from unaudit.token_outputs import TokenOutputs


@PROBES.register("min-k")
@dataclass(frozen=True)
class MinK(TextAttack):
    """Mean log-probability of the least likely k % of a text's tokens.

    Texts that were not trained on have a few tokens that surprise the model; of others it knows
    those too. As in the published code, k % of the predicted tokens are rounded down; a text where
    that leaves none is not scored.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="min-k",
        title="Min-K% attack",
        family="membership",
        measures=(
            "AUC of forget against unseen texts of the same classes by the mean log-probability of "
            "their least likely tokens: 0.5 = cannot be told apart, higher = fewer surprises in "
            "forget texts, as in texts trained on."
        ),
        source="Shi et al. 2024 (Min-K % Prob), §3, equation 1",
        cost="no forward pass beyond the shared one; about 15 µs per text",
        blind_spots=(
            "Refitting the output layer alone can fool it (IDI §3.1, for classifiers).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "Rare words are unlikely to any model: it sees how hard a text is as well.",
        ),
        needs=frozenset({"unseen"}),
        tasks=LANGUAGE_MODELING,
    )

    k: float = 20.0
    """Percent of a text's predicted tokens; 20 is the paper's."""

    def __post_init__(self) -> None:
        require_percent(self, "k")

    @property
    def least_tokens(self) -> int:
        return fewest(self.k)

    def score(self, tokens: TokenOutputs) -> FloatArray:
        return lowest_means(tokens.log_p, tokens.counts, self.k)
