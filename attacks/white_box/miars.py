"""MIARS: membership attacks by nearest neighbors in representation space."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from attacks.black_box._parameters import require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent
from attacks.white_box._parameters import require_choice
from attacks.white_box._rows import partial, some
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
from unaudit.stats import auc

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox

MIN_PAIRS = 10
"""A class with fewer members, or fewer others, has no neighborhood to speak of."""
REPORTED = (1, 5, 15)
"""Numbers of neighbors that the detail compares; SURE prints no k."""


@dataclass(frozen=True)
class NeighborAttack(ABC):
    """Share of members among the k nearest neighbors of the same class.

    SURE gives neither k, scaling nor split; all three are ours. Only examples of the query's own
    class may vote, as many members as others: else the classes that one side has more of would be
    recognized, not membership. Each example is scored without itself and a partner of the other
    side, and relative to what is usual in its class, so that the AUC of a model that never saw the
    forget set is 0.5.
    """

    card: ClassVar[ProbeCard]
    members: ClassVar[SplitName]
    """The split that votes against ``unseen``."""

    k: int = 5
    """Neighbors that vote."""
    scaling: Literal["unit", "none"] = "unit"
    """``unit`` brings every representation to length 1."""
    metric: Literal["euclidean", "cosine"] = "euclidean"
    """``cosine`` ranks as Euclidean distance does between representations of length 1."""
    max_pairs: int = 5000
    """Voters of each side per class, drawn at random."""

    def __post_init__(self) -> None:
        require_whole(self, "k", 1)
        require_choice(self, "scaling", ("unit", "none"))
        require_choice(self, "metric", ("euclidean", "cosine"))
        require_whole(self, "max_pairs", MIN_PAIRS)

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        if view.scenario not in self.card.scenarios:
            return Skipped(f"no {self.members} example has a class of the forget set")
        kept, left_out = [], []
        for label in view.forget_classes:
            where = {split: _rows_of(view, split, label) for split in view.splits}
            if min(len(where[self.members]), len(where["unseen"])) < MIN_PAIRS:
                left_out.append(label)
            else:
                kept.append(where)
        unseen = sum(len(where["unseen"]) for where in kept)
        if unseen < MIN_EXAMPLES:
            return Skipped(
                f"needs at least {MIN_EXAMPLES} unseen examples in classes with {MIN_PAIRS} unseen "
                f"and {MIN_PAIRS} {self.members} examples each, found {unseen}"
            )
        polled = _Polled()
        for where in kept:
            self._poll_class(view, where, polled, rng)
        return self._scores(view, polled, left_out)

    def _poll_class(
        self,
        view: WhiteBox,
        where: dict[SplitName, IntArray],
        polled: _Polled,
        rng: np.random.Generator,
    ) -> None:
        from attacks.white_box._votes import poll

        nobody = np.empty(0, dtype=np.int64)
        # of retain, only as many as can vote are looked at; the forget set is scored whole
        voting = where[self.members]
        bystanders = nobody
        if self.members == "retain":
            voting = some(voting, min(len(where["unseen"]), self.max_pairs), rng)
            bystanders = where["forget"]
        answer = poll(
            self._representations(view, self.members, voting),
            self._representations(view, "unseen", where["unseen"]),
            self._representations(view, "forget", bystanders),
            self._counts(),
            self.max_pairs,
            rng,
            view.device,
        )
        polled.pairs += answer.pairs
        polled.add(self.members, voting, answer.members, answer.baseline)
        polled.add("unseen", where["unseen"], answer.others, answer.baseline)
        polled.add("forget", bystanders, answer.bystanders, answer.baseline)

    def _counts(self) -> tuple[int, ...]:
        return tuple(sorted({self.k, *REPORTED}))

    def _representations(
        self, view: WhiteBox, split: SplitName, rows: IntArray
    ) -> npt.NDArray[np.float32]:
        features = np.asarray(view.features(split, rows), dtype=np.float32)
        if self.scaling == "none" and self.metric == "euclidean":
            return features
        lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        unit = features / np.maximum(lengths, np.finfo(np.float32).tiny)
        return np.asarray(unit, dtype=np.float32)

    def _scores(self, view: WhiteBox, polled: _Polled, left_out: list[int]) -> Scores:
        counts = self._counts()
        splits: tuple[SplitName, ...] = ("forget", "unseen", "retain")
        answers = {split: polled.of(split) for split in splits if polled.count(split)}
        at = counts.index(self.k)
        scores = {split: answer.relative[:, at] for split, answer in answers.items()}
        forget, unseen = answers["forget"].relative, answers["unseen"].relative
        by_k = {
            str(count): {
                "auc": auc(forget[:, column], unseen[:, column]),
                "called_members": {
                    split: _called_members(answer.shares[:, column])
                    for split, answer in answers.items()
                },
            }
            for column, count in enumerate(counts)
        }
        return Scores(
            forget=scores["forget"],
            unseen=scores["unseen"],
            retain=scores.get("retain"),
            statistic="auc",
            rows=partial(view, {split: answer.rows for split, answer in answers.items()}),
            detail={"by_k": by_k, "pairs": polled.pairs, "classes_left_out": left_out},
        )


@dataclass(frozen=True, eq=False)
class _Answers:
    """Votes on examples of one split, one column per number of neighbors."""

    rows: IntArray
    """(n,) ascending."""
    shares: FloatArray
    """(n, len(counts)) of members among the neighbors."""
    relative: FloatArray
    """The same relative to both sides' mean in the class, 0.5 where there is no difference."""


class _Polled:
    """Votes gathered class by class."""

    def __init__(self) -> None:
        self.pairs = 0
        self._parts: dict[SplitName, list[_Answers]] = {}

    def add(
        self, split: SplitName, rows: IntArray, shares: FloatArray, baseline: FloatArray
    ) -> None:
        if len(rows):
            part = _Answers(rows, shares, shares - baseline + 0.5)
            self._parts.setdefault(split, []).append(part)

    def count(self, split: SplitName) -> int:
        return sum(len(part.rows) for part in self._parts.get(split, []))

    def of(self, split: SplitName) -> _Answers:
        parts = self._parts[split]
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        return _Answers(
            rows[order],
            np.concatenate([part.shares for part in parts])[order],
            np.concatenate([part.relative for part in parts])[order],
        )


def _rows_of(view: WhiteBox, split: SplitName, label: int) -> IntArray:
    return np.flatnonzero(view.labels(split) == label).astype(np.int64)


def _called_members(shares: FloatArray) -> float:
    """Share of examples with a majority of members, half of the ties among them."""
    return float(((shares > 0.5) + 0.5 * (shares == 0.5)).mean())


_BLIND_SPOTS = (
    "Sees membership only where training pulled the very examples into their class: on a network "
    "that generalizes well (the digits of `unaudit demo`) the original is at chance.",
    "Neighbors are sought within a class, so a class that is still known but not memorized example "
    "by example goes unseen.",
    "An untrained network keeps the geometry of its inputs: where forget and unseen examples "
    "differ by nature, it is not at 0.5.",
)


@PROBES.register("miars-1")
@dataclass(frozen=True)
class ForgetNeighborAttack(NeighborAttack):
    """MIARS-I: a k-NN classifier told to tell forget from unseen examples, one class at a time."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="miars-1",
        title="Nearest neighbors, MIARS-I",
        family="representation",
        measures=(
            "AUC of forget against unseen examples by the share of forget examples among the "
            "nearest representations of the same class: 0.5 = they lie mixed, higher = forget "
            "examples lie together, apart from examples never trained on."
        ),
        source="SURE (2025), §3.2, MIARS, modified MIA-I; k, scaling and pairing are ours",
        cost="no forward pass beyond the shared one; one matrix product per forget class",
        blind_spots=(
            *_BLIND_SPOTS,
            "Needs ten forget and ten unseen examples per class; smaller classes are left out.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"unseen"}),
    )
    members: ClassVar[SplitName] = "forget"


@PROBES.register("miars-2")
@dataclass(frozen=True)
class TrainNeighborAttack(NeighborAttack):
    """MIARS-II: a k-NN classifier told to tell retain from unseen examples judges the forget set.

    SURE takes all of D for members, which shows the attacker the forget set as members; here it is
    out. In the class scenario no retain example is left of the forget classes.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="miars-2",
        title="Nearest neighbors, MIARS-II",
        family="representation",
        measures=(
            "AUC of forget against unseen examples by the share of retain examples, rather than "
            "unseen ones, among the nearest representations of the same class: 0.5 = forget "
            "examples lie like examples never trained on, higher = like training examples."
        ),
        source="SURE (2025), §3.2, MIARS, modified MIA-II; k, scaling and pairing are ours",
        cost="no forward pass beyond the shared one; one matrix product per forget class",
        blind_spots=(
            *_BLIND_SPOTS,
            "Does not apply where whole classes are forgotten: nothing of them is left in retain.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain", "unseen"}),
        scenarios=frozenset({"partial-class", "sample"}),
    )
    members: ClassVar[SplitName] = "retain"
