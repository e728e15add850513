"""Extraction: how much of a text a model writes down when given its beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._parameters import require_share, require_whole
from attacks.black_box._texts import ROUNDING, TextAttack
from unaudit.evidence import (
    LANGUAGE_MODELING,
    PROBES,
    FloatArray,
    IntArray,
    ProbeCard,
    Scores,
    Statistic,
)
from unaudit.token_outputs import TokenOutputs


@PROBES.register("extraction")
@dataclass(frozen=True)
class Extraction(TextAttack):
    """Share of the rest of a text that greedy decoding from its beginning gets right in a row.

    Nothing is generated. Let a text be x_1 … x_L, its first P tokens the prefix, and y_t what
    greedy decoding writes at t > P: the likeliest token after x_1 … x_P y_{P+1} … y_{t−1}. The flag
    g_t says whether x_t is the likeliest token after x_1 … x_{t−1}. As long as y has followed x,
    both look at the same tokens, so y_t = x_t exactly where g_t is true: by induction y follows x
    up to the first t with g_t false, and there leaves it. So the decoded rest is the true one
    exactly where every flag of the rest is true, and the tokens right in a row are the flags true
    in a row. Of a text longer than the model takes, decoding sees as much of what stands before as
    the window in which the token was predicted.

    The statistic is the mean share, of which an exact match counts 1: exact matches alone are zero
    in most audits of small models, so that nothing could be compared. It is a mean, not an AUC
    against unseen texts, because the risk is what can be got out, whoever else's text could be got
    out as well; boilerplate, which every model completes, retrained models complete too. The rates
    of exact matches are in the detail.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="extraction",
        title="Extraction by prefix",
        family="membership",
        measures=(
            "Share of the rest of forget texts that greedy decoding from their true beginning "
            "writes down before its first mistake: 1 = whole texts can be extracted, and what "
            "retrained models complete as well is guesswork."
        ),
        source=(
            "Carlini et al. 2023 (Quantifying Memorization), definition 3.1, for the exact match; "
            "the share in a row: own"
        ),
        cost="no forward pass beyond the shared one, and no generation; milliseconds",
        blind_spots=(
            "Refitting the output layer alone can fool it (IDI §3.1, for classifiers).",
            "Whoever does not decode greedily, or begins elsewhere, may extract more.",
            "One early mistake ends it: a text that is known but for one word counts little.",
        ),
        tasks=LANGUAGE_MODELING,
    )
    statistic: ClassVar[Statistic] = "mean"

    prefix_share: float = 0.5
    """Share of a text's tokens that are given, rounded up."""
    prefix_tokens: int | None = None
    """Tokens that are given instead; 50 in the paper."""
    suffix_tokens: int = 50
    """Tokens after the prefix that count, at most; the paper's."""
    least_suffix: int = 4
    """Tokens after the prefix that a text must have to be scored."""

    def __post_init__(self) -> None:
        require_share(self, "prefix_share")
        if self.prefix_tokens is not None:
            require_whole(self, "prefix_tokens", 1)
        require_whole(self, "least_suffix", 1)
        require_whole(self, "suffix_tokens", self.least_suffix)

    @property
    def least_tokens(self) -> int:
        least = self.least_suffix
        if self.prefix_tokens is not None:
            return self.prefix_tokens - 1 + least
        # the rest, rounded down, grows with the text
        enough = int(np.ceil(least / (1.0 - self.prefix_share) - ROUNDING)) - 1
        return max(enough, least)

    def prefixes(self, counts: IntArray) -> IntArray:
        """(n,) tokens of each text that are given."""
        if self.prefix_tokens is not None:
            return np.minimum(self.prefix_tokens, counts)
        given: FloatArray = np.ceil((np.asarray(counts) + 1) * self.prefix_share - ROUNDING)
        return np.clip(given.astype(np.int64), 1, counts)

    def score(self, tokens: TokenOutputs) -> FloatArray:
        counts = np.asarray(tokens.counts)
        given = self.prefixes(counts)
        # the first token of a text is predicted by nothing and has no flag
        start = tokens.starts + given - 1
        length = np.minimum(counts + 1 - given, self.suffix_tokens)
        return np.asarray(runs(tokens.greedy, start, length) / length)

    def detail(self, scores: Scores) -> Mapping[str, Any]:
        shown = {"forget": scores.forget, "unseen": scores.unseen, "retain": scores.retain}
        exact = {
            split: float((own == 1.0).mean()) for split, own in shown.items() if own is not None
        }
        given = (
            f"{self.prefix_share:.3g} of each text"
            if self.prefix_tokens is None
            else f"{self.prefix_tokens} tokens"
        )
        return {"exact_match": exact, "prefix": given, "suffix_at_most": self.suffix_tokens}


def runs(flags: npt.NDArray[np.bool_], start: IntArray, length: IntArray) -> IntArray:
    """(n,) how many of ``length`` flags from ``start`` on are true before the first false one."""
    wrong = np.flatnonzero(~np.asarray(flags))
    following = np.searchsorted(wrong, start)
    first_wrong = np.append(wrong, len(flags))[following]
    return np.minimum(first_wrong - start, length)
