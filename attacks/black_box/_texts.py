"""Scores of texts by what a language model says of their tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from attacks.black_box._selection import (
    MIN_EXAMPLES,
    absent,
    comparable_rows,
    score_like_forget,
)
from unaudit import views
from unaudit.evidence import (
    Evidence,
    FloatArray,
    IntArray,
    ProbeCard,
    Scores,
    Skipped,
    SplitName,
    Statistic,
)
from unaudit.token_outputs import TokenOutputs
from unaudit.views import BlackBox

ROUNDING = 1e-9
"""Shares of a whole number of tokens miss a whole number by less."""


@dataclass(frozen=True)
class TextAttack(ABC):
    """Scores forget texts and unseen and retain texts of their classes, without training.

    Texts that are too short to be scored are left out, and so many are in the detail. For a model
    that never saw the forget set the AUC is 0.5, since both sides then come from the same
    distribution.
    """

    card: ClassVar[ProbeCard]
    statistic: ClassVar[Statistic] = "auc"

    @abstractmethod
    def score(self, tokens: TokenOutputs) -> FloatArray:
        """(n,) higher = more like a member; finite, and of no meaning where a text is too short."""

    @property
    def least_tokens(self) -> int:
        """Predicted tokens, which are all but the first, that a text must have to be scored."""
        return 1

    def detail(self, scores: Scores) -> Mapping[str, Any]:
        """Extras for the report; none unless a subclass has some."""
        return {}

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip

        def long_enough(split: SplitName) -> npt.NDArray[np.bool_]:
            return np.asarray(view.tokens(split).counts >= self.least_tokens)

        least: dict[SplitName, int] = {"forget": 1}
        if "unseen" in self.card.needs:
            least["unseen"] = MIN_EXAMPLES
        for split, needed in least.items():
            found = len(comparable_rows(view, split, long_enough))
            if found < needed:
                return self._too_few(found, split, needed)
        scores = score_like_forget(
            view, lambda split: self.score(view.tokens(split)), self.statistic, usable=long_enough
        )
        left_out = len(view.tokens("forget")) - len(scores.forget)
        short = {"forget_too_short": left_out} if left_out else {}
        return replace(scores, detail={**self.detail(scores), **short})

    def _too_few(self, found: int, split: SplitName, needed: int) -> Skipped:
        of_classes = "" if split == "forget" else " of the forget classes"
        long = "" if self.least_tokens == 1 else f" with at least {self.least_tokens + 1} tokens"
        texts = f"{split} text{'s' if needed > 1 else ''}"
        return Skipped(f"needs at least {needed} {texts}{of_classes}{long}, found {found}")


def lowest_means(values: npt.NDArray[np.generic], counts: IntArray, percent: float) -> FloatArray:
    """(n,) mean of the lowest ``percent`` % of each text's values, rounded down to whole tokens.

    Of a text too short for one token, the lowest value.

    Args:
        values: (tokens,) one text after the other.
        counts: (n,) how many are each text's.
    """
    whole = np.asarray(values)
    kept = np.maximum(lowest(counts, percent), 1)
    found = np.empty(len(counts))
    start = 0
    for text, (count, size) in enumerate(zip(counts.tolist(), kept.tolist(), strict=True)):
        own = np.asarray(whole[start : start + count], np.float64)
        found[text] = np.partition(own, size - 1)[:size].mean()
        start += count
    return found


def lowest(counts: IntArray, percent: float) -> IntArray:
    """(n,) whole tokens in ``percent`` % of each text."""
    whole: FloatArray = np.floor(np.asarray(counts) * percent / 100.0 + ROUNDING)
    return whole.astype(np.int64)


def fewest(percent: float) -> int:
    """Tokens from which on ``percent`` % of them are one or more."""
    return int(np.ceil(100.0 / percent - ROUNDING))


def token_chunks(total: int, width: int) -> Iterator[slice]:
    """Slices of tokens with ``width`` numbers each, small enough to turn to float64."""
    step = max(1, views.CHUNK_ELEMENTS // width)
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))
