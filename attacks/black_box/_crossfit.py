"""Attacks that train a classifier: fitted on one half, applied to the other, both ways round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from attacks.black_box._attackers import Decide, Fit, fit_svc
from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import (
    MIN_EXAMPLES,
    absent,
    all_rows,
    partial_rows,
    rows_of_forget_classes,
    rows_of_kept_classes,
    too_few,
)
from unaudit.evidence import Evidence, FloatArray, IntArray, ProbeCard, Scores, SplitName
from unaudit.views import BlackBox


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Decisions (1 = member) of two attackers, neither of which saw what it decides on."""

    members: FloatArray
    """(n_members,) each by the attacker that was fitted on the other half."""
    others: FloatArray
    """(n_others,) likewise."""
    bystanders: FloatArray
    """(n_bystanders,) each by one attacker, a random half by either."""
    bystander_votes: FloatArray
    """(n_bystanders,) mean decision of both attackers."""
    fitted_per_side: int
    """Members, and as many others, that each attacker was fitted on."""

    @property
    def accuracy(self) -> float:
        """Balanced accuracy out of sample; 0.5 is chance."""
        return float(self.members.mean() + 1.0 - self.others.mean()) / 2.0


def cross_fit(
    members: FloatArray,
    others: FloatArray,
    bystanders: FloatArray,
    fit: Fit,
    max_fit: int,
    rng: np.random.Generator,
) -> CrossFit:
    """Fit an attacker on each half and let it decide on the other half and on the bystanders.

    Each bystander is decided on by one attacker only, as members and others are: were it given the
    mean of both, its score would not have the same distribution as that of an other, and the AUC
    of one against the other would miss 0.5 for bystanders that are no members.

    What is drawn depends on ``rng`` and on the three lengths alone.

    Args:
        members: (≥ 2,) signals.
        others: (≥ 2,) signals.
        bystanders: (n,) signals that no attacker is fitted on.
        max_fit: largest number of members, and of others, to fit one attacker on.
    """
    parts = [_halves(len(values), rng) for values in (members, others, bystanders)]
    size = min(max_fit, len(members) // 2, len(others) // 2)
    label = np.repeat([True, False], size)
    decided = [np.empty(len(values)) for values in (members, others, bystanders)]
    votes = np.zeros(len(bystanders))
    for own, opposite in ((0, 1), (1, 0)):
        chosen = [members[parts[0][own][:size]], others[parts[1][own][:size]]]
        decide: Decide = fit(np.concatenate(chosen), label)
        for values, halves, out in zip((members, others, bystanders), parts, decided, strict=True):
            out[halves[opposite]] = decide(values[halves[opposite]])
        votes += decide(bystanders) / 2
    return CrossFit(decided[0], decided[1], decided[2], votes, size)


def _halves(count: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    order = rng.permutation(count)
    return order[0::2], order[1::2]


@dataclass(frozen=True)
class FittedAttack(ABC):
    """Attackers that learn to tell retain from unseen by one signal and judge the forget set.

    Members are retain examples and non-members as many unseen ones, the forget set excluded (IDI,
    appendix C.1, training phase). In the class scenario both sides hold kept classes only: unseen
    examples of a class that has no retain examples would let the attacker learn that class instead
    of membership. The score is 1 where the attacker says "member", so its mean over the forget set
    is 1 − TN/|D_f| (IDI, equation 5), and published "MIA efficacy" (SalUn, l1-sparse: TN/|D_f|,
    higher = forgotten) is 1 minus that.
    """

    card: ClassVar[ProbeCard]

    max_fit: int = 1000
    """Examples per side that one attacker is fitted on, drawn at random."""

    def __post_init__(self) -> None:
        require_whole(self, "max_fit", MIN_EXAMPLES // 2)

    @abstractmethod
    def signal(self, view: BlackBox, split: SplitName) -> FloatArray:
        """(n,) what the attacker sees of each example of a split."""

    @abstractmethod
    def attacker(self, n_classes: int) -> Fit:
        """How to train it."""

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        splits: tuple[SplitName, SplitName] = ("retain", "unseen")
        kept_only = view.scenario == "class"
        choose = rows_of_kept_classes if kept_only else all_rows
        pools = {split: choose(view, split) for split in splits}
        for split, pool in pools.items():
            if len(pool) < MIN_EXAMPLES:
                what = f"{split} examples" + (" of the kept classes" if kept_only else "")
                return too_few(len(pool), what)
        signals = {split: self.signal(view, split)[pools[split]] for split in splits}
        fitted = cross_fit(
            signals["retain"],
            signals["unseen"],
            self.signal(view, "forget"),
            self.attacker(view.n_classes),
            self.max_fit,
            rng,
        )
        called_members = float(fitted.bystander_votes.mean())
        decided = {"retain": fitted.members, "unseen": fitted.others}
        rows: dict[SplitName, IntArray] = {}
        scores: dict[SplitName, FloatArray] = {}
        for split in splits:
            shown = pools[split] if kept_only else rows_of_forget_classes(view, split)
            if len(shown) >= MIN_EXAMPLES:
                rows[split] = shown
                scores[split] = decided[split] if kept_only else decided[split][shown]
        return Scores(
            forget=fitted.bystanders,
            unseen=scores.get("unseen"),
            retain=scores.get("retain"),
            statistic="mean",
            rows=partial_rows(view, rows),
            detail={
                "forget_called_members": called_members,
                "published_efficacy": 1.0 - called_members,
                "attack_accuracy": fitted.accuracy,
                "fitted_per_side": fitted.fitted_per_side,
            },
        )


@dataclass(frozen=True)
class SvcAttack(FittedAttack):
    """Attackers as SalUn's: support vector classifiers with an RBF kernel."""

    penalty: float = 3.0
    """The C of the SVC."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "penalty")

    @abstractmethod
    def span(self, n_classes: int) -> float:
        """Signals lie from 0 to here."""

    def attacker(self, n_classes: int) -> Fit:
        return partial(fit_svc, penalty=self.penalty, span=self.span(n_classes))
