"""Canaries: outliers planted to be traced, and the rest of the forget set, each on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from unaudit.evidence import (
    ANY_TASK,
    PROBES,
    Evidence,
    FloatArray,
    IntArray,
    ProbeCard,
    Scores,
    Skipped,
    SplitName,
)
from unaudit.views import BlackBox

_UNMARKED = (
    "no canaries are marked in the list of forget ids ('unaudit canary make' plants some and marks "
    "them)"
)


def exposure(planted: FloatArray, held_out: FloatArray) -> FloatArray:
    """Exposure in bits of each planted canary among those that were held out.

    log₂(h + 1) − log₂(rank): rank 1 has the canary with the highest score of the h + 1, and a tie
    counts as behind. So 0 is last, 1 in the middle, log₂(h + 1) ahead of all that were held out
    (Carlini et al. 2019, §4.2, approximated by sampling as in §4.3).

    Args:
        planted: (n,) scores, higher = more remembered.
        held_out: (h,) scores of canaries drawn alike.
    """
    ordered = np.sort(held_out)
    at_least = len(ordered) - np.searchsorted(ordered, planted, side="left")
    return np.asarray(np.log2(len(ordered) + 1.0) - np.log2(at_least + 1.0))


def chance_exposure(held_out: int) -> float:
    """Mean exposure of a canary that was not trained on either: about 1/ln 2 = 1.44 bits."""
    ranks = np.arange(1, held_out + 2)
    return float(np.log2(held_out + 1.0) - np.log2(ranks).mean())


@dataclass(frozen=True)
class PartAttack(ABC):
    """Forget against unseen examples by the logit-scaled confidence, in one part of either.

    Only classes that occur in that part of the forget set are compared.
    """

    card: ClassVar[ProbeCard]

    @abstractmethod
    def part(self, view: BlackBox, split: SplitName) -> IntArray:
        """(k,) positions of the examples of the part, ascending."""

    @abstractmethod
    def obstacle(self, view: BlackBox) -> Skipped | None:
        """The reason to skip, from the marks alone."""

    def detail(self, planted: FloatArray, never_trained: FloatArray) -> Mapping[str, Any]:
        """What the report should say besides the AUC."""
        return {}

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        skip = absent(self.card, view) or self.obstacle(view)
        if skip is not None:
            return skip
        forget, unseen = view.predictions("forget"), view.predictions("unseen")
        own = self.part(view, "forget")
        if len(own) < MIN_EXAMPLES:
            return too_few(len(own), f"{self.kind} in the forget set")
        alike = self.part(view, "unseen")
        alike = alike[np.isin(unseen.labels[alike], forget.labels[own])]
        if len(alike) < MIN_EXAMPLES:
            return too_few(len(alike), f"{self.kind} of the same classes among the unseen examples")
        planted = forget.logit_confidence[own]
        never_trained = unseen.logit_confidence[alike]
        return Scores(
            forget=planted,
            unseen=never_trained,
            statistic="auc",
            rows={"forget": own, "unseen": alike},
            detail={
                "forget_examples": len(own),
                "unseen_examples": len(alike),
                "forget_accuracy": float(forget.hit_rate[own].mean()),
                "unseen_accuracy": float(unseen.hit_rate[alike].mean()),
                **self.detail(planted, never_trained),
            },
        )

    @property
    @abstractmethod
    def kind(self) -> str:
        """What the examples of the part are called."""


@PROBES.register("canary-ood")
@dataclass(frozen=True)
class CanaryExposure(PartAttack):
    """Planted canaries against canaries that were held out.

    A canary is unlikely to any model, so comparing it with ordinary unseen examples says that it is
    odd, not whether it was trained on. Its like must be there: of canaries made alike, a random
    half is planted and the other half never trained on. Where training left no trace, a planted one
    is as likely to be ahead as a held-out one, so over the draw of the halves the AUC is ½.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="canary-ood",
        title="Exposure of canaries (OOD)",
        family="membership",
        measures=(
            "AUC of planted against held-out canaries by logit-scaled confidence: 0.5 = cannot be "
            "told apart, higher = planted ones are remembered. The detail has their exposure in "
            "bits, by chance 1.4."
        ),
        source="Carlini et al. 2019, §4 (exposure); SURE (2025), canary unlearning, OOD part",
        cost="no forward pass beyond the shared one; one pass over the logits",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Speaks of outliers, which are remembered first; ordinary examples may be safer.",
            "Canaries that are easily recognized can be forgotten with care while the rest is not.",
        ),
        needs=frozenset({"unseen"}),
        tasks=ANY_TASK,
        asks="canaries",
    )

    def obstacle(self, view: BlackBox) -> Skipped | None:
        if "forget" not in view.marks.canaries:
            return Skipped(_UNMARKED)
        if "unseen" not in view.marks.canaries:
            return Skipped(
                "no held-out canaries are marked, and beside ordinary unseen examples canaries "
                "only look odd; 'unaudit canary make' holds half of them out"
            )
        return None

    @property
    def kind(self) -> str:
        return "canaries"

    def part(self, view: BlackBox, split: SplitName) -> IntArray:
        return np.flatnonzero(view.marks.canaries[split])

    def detail(self, planted: FloatArray, never_trained: FloatArray) -> Mapping[str, Any]:
        bits = exposure(planted, never_trained)
        return {
            "exposure_mean": float(bits.mean()),
            "exposure_median": float(np.median(bits)),
            "exposure_by_chance": chance_exposure(len(never_trained)),
            "exposure_at_most": float(np.log2(len(never_trained) + 1.0)),
        }


@PROBES.register("canary-in")
@dataclass(frozen=True)
class InDistributionPart(PartAttack):
    """The forget set without its canaries, against unseen examples without theirs."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="canary-in",
        title="Rest beside canaries (IN)",
        family="membership",
        measures=(
            "AUC of the forget examples that are no canaries against unseen examples of the same "
            "classes by logit-scaled confidence: 0.5 = cannot be told apart, higher = remembered."
        ),
        source="SURE (2025), canary unlearning, IN part; Carlini et al. 2022, §IV-C (score)",
        cost="no forward pass beyond the shared one; one pass over the logits",
        blind_spots=(
            "Refitting or masking the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "Compares within the forget classes, so a class that is still known but not "
            "memorized example by example goes unseen.",
        ),
        needs=frozenset({"unseen"}),
        tasks=ANY_TASK,
        asks="canaries",
    )

    def obstacle(self, view: BlackBox) -> Skipped | None:
        return None if "forget" in view.marks.canaries else Skipped(_UNMARKED)

    @property
    def kind(self) -> str:
        return "ordinary examples"

    def part(self, view: BlackBox, split: SplitName) -> IntArray:
        marked = view.marks.canaries.get(split)
        count = len(view.predictions(split))
        return np.arange(count) if marked is None else np.flatnonzero(~marked)
