"""Perplexity of the texts that were to be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from attacks.black_box._selection import (
    absent,
    all_rows,
    rows_of_forget_classes,
    rows_of_kept_classes,
    score_like_forget,
)
from unaudit.evidence import (
    LANGUAGE_MODELING,
    PROBES,
    Evidence,
    IntArray,
    ProbeCard,
    SplitName,
)
from unaudit.token_outputs import TokenOutputs, perplexity_of
from unaudit.views import BlackBox

Choose: TypeAlias = Callable[[BlackBox, SplitName], IntArray]


@PROBES.register("perplexity")
@dataclass(frozen=True)
class Perplexity:
    """Minus the log-perplexity of the forget texts, averaged over them.

    Logarithms, since one text that a model finds absurd would outweigh all others in a mean of
    perplexities. The probe asks what accuracy asks of a classifier, and stands in the same family:
    both are the level of a model's success on the forget set, which tells remembered from forgotten
    only beside retrained models, and both have a sign, unlike a distance to a retrained model.

    Published tables (RFA-LoRA, Table IV) print the perplexity of a split, which is in the detail as
    exp of the mean loss over all its tokens, and so is the median over its texts. In the class
    scenario retain and unseen are texts of the kept classes, and unseen texts of the forget classes
    stand for themselves.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="perplexity",
        title="−Log-perplexity of forget",
        family="membership",
        measures=(
            "Mean over forget texts of minus the log-perplexity, the log-probability per token in "
            "nats. Retrained models say how high it may be: far above them is remembered, far "
            "below is over-unlearned."
        ),
        source="RFA-LoRA, §V-B, Table IV; Carlini et al. 2021, §4.2",
        cost="no forward pass beyond the shared one; milliseconds",
        blind_spots=(
            "Refitting the output layer alone changes it at will (IDI §3.1, for classifiers).",
            "Dominated by what any model of the language knows: a memorized detail is a few tokens "
            "of a text.",
            "A model that got worse at all texts looks forgetful.",
        ),
        tasks=LANGUAGE_MODELING,
    )

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        by_part = {
            part: (view.tokens(split), rows)
            for part, split, choose in _parts(view)
            if split in view.splits and len(rows := choose(view, split))
        }
        detail = {
            "perplexity": {
                part: perplexity_of_tokens(tokens, rows) for part, (tokens, rows) in by_part.items()
            },
            "median_perplexity": {
                part: perplexity_of(float(np.median(tokens.log_confidence[rows])))
                for part, (tokens, rows) in by_part.items()
            },
        }
        return score_like_forget(
            view, lambda split: view.tokens(split).log_confidence, "mean", detail
        )


def _parts(view: BlackBox) -> list[tuple[str, SplitName, Choose]]:
    """Names of the parts that the detail speaks of, their splits and which of their texts."""
    parts: list[tuple[str, SplitName, Choose]] = [("forget", "forget", all_rows)]
    if view.scenario != "class":
        return [*parts, ("retain", "retain", all_rows), ("unseen", "unseen", all_rows)]
    return [
        *parts,
        ("retain", "retain", rows_of_kept_classes),
        ("unseen", "unseen", rows_of_kept_classes),
        ("unseen_forget_classes", "unseen", rows_of_forget_classes),
    ]


def perplexity_of_tokens(tokens: TokenOutputs, rows: IntArray) -> float:
    """exp of the mean loss over all tokens of some texts, each token counting alike."""
    counts = np.asarray(tokens.counts)[rows]
    return perplexity_of(float((tokens.log_confidence[rows] * counts).sum() / counts.sum()))
