"""A membership attack on activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._features import ROWS_AT_ONCE
from attacks.white_box._geometry import Geometry
from attacks.white_box._rows import deal, partial, some, unlabeled
from attacks.white_box._softmax import Head, Scaling, fit_head
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

SPLITS: tuple[SplitName, ...] = ("forget", "unseen", "retain")
MIN_OF_CLASS = 2
"""Members of a class, and others, whose mean stands for the class."""


@PROBES.register("feature-mia")
@dataclass(frozen=True)
class ActivationAttack:
    """An attacker on penultimate features, trained to tell retain from unseen, judges forget.

    IDI does not print its attack; Nasr et al. feed activations and labels to a network. This one
    sees where an example lies among the classes: its distance to the mean of its own class and to
    the nearest other one, in coordinates in which classes are round (shared covariance, shrunk by a
    tenth), and which of the two is shorter. These mean the same for every class, so what is learned
    on kept classes applies to a forgotten one; the activations themselves were tried and tell less.
    Class means come from equally many members and others. Texts without labels are one class, and
    the distance to its mean is all that is seen. Attacker and means are fitted on one half
    and applied to the other, both ways round; every example is judged once.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="feature-mia",
        title="Activation attack",
        family="representation",
        measures=(
            "AUC of forget against unseen examples of the same classes by an attacker that was "
            "trained to tell retain from unseen by penultimate features: 0.5 = cannot be told "
            "apart, higher = forget examples lie as training examples do."
        ),
        source="IDI (2024), §5, table 3, activations; Nasr et al. 2019; the signals are ours",
        cost="no forward pass beyond the shared one; two logistic regressions on four signals",
        blind_spots=(
            "Blind when the original did not overfit: retain and unseen then lie alike. On the "
            "plain digits of `unaudit demo` the original is at chance.",
            "Compares within the forget classes, so a class that is still known but not memorized "
            "example by example goes unseen.",
            "An untrained network scores like a retrained one (IDI, table 3).",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain", "unseen"}),
    )

    l2: float = 1e-2
    """Penalty l2/2 ‖w‖² beside the mean loss in nats, for signals of mean square 1."""
    max_fit: int = 10_000
    """Examples per side that class means and one attacker are fitted on."""

    def __post_init__(self) -> None:
        require_positive(self, "l2")
        require_whole(self, "max_fit", MIN_EXAMPLES)

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        sides = self._sides(view, rng)
        if isinstance(sides, Skipped):
            return sides
        parts: dict[SplitName, list[tuple[IntArray, FloatArray]]] = {split: [] for split in SPLITS}
        for side in sides:
            attacker = _Attacker.of(view, side.pairs, self.l2)
            for split, rows in side.compared.items():
                parts[split].append((rows, attacker.judge(view, split, rows)))
        judged = {split: _in_order(found) for split, found in parts.items()}
        kept = [split for split in SPLITS if len(judged[split][0]) >= MIN_EXAMPLES]
        scores = {split: judged[split][1] for split in (*kept, "forget")}
        detail: dict[str, Any] = {"fitted_per_side": min(side.fitted_on for side in sides)}
        if "retain" in scores:
            detail["retain_auc"] = auc(scores["retain"], scores["unseen"])
        return Scores(
            forget=scores["forget"],
            unseen=scores["unseen"],
            retain=scores.get("retain"),
            statistic="auc",
            rows=partial(view, {split: judged[split][0] for split in scores}),
            detail=detail,
        )

    def _sides(self, view: WhiteBox, rng: np.random.Generator) -> list[_Side] | Skipped:
        """Two halves, each fitted on and judged by the attacker of the other."""
        rows = _candidates(view, rng)
        half = {split: deal(view.labels(split)[rows[split]], 2, rng) for split in SPLITS}
        sides = []
        least = 1 if unlabeled(view) is not None else 2
        for number in (0, 1):
            own = {split: rows[split][half[split] == number] for split in SPLITS}
            opposite = {split: rows[split][half[split] != number] for split in SPLITS}
            pairs = _pairs(view, own, self.max_fit, rng)
            side = _Side(pairs, _comparable(view, opposite, pairs))
            if len(pairs) < least or 2 * side.fitted_on < MIN_EXAMPLES:
                of_classes = " of two classes" if least > 1 else ""
                return too_few(
                    2 * side.fitted_on, f"retain and as many unseen examples{of_classes}"
                )
            sides.append(side)
        forget, unseen = (
            sum(len(side.compared[split]) for side in sides) for split in ("forget", "unseen")
        )
        if forget < 1 or unseen < MIN_EXAMPLES:
            return too_few(unseen, "unseen examples of the forget classes")
        return sides


@dataclass(frozen=True, eq=False)
class _Pair:
    """As many members as others of one class."""

    label: int
    split: SplitName
    """Where the members are from: retain, or forget where nothing of the class is retained."""
    members: IntArray
    others: IntArray


@dataclass(frozen=True, eq=False)
class _Side:
    """What one attacker is fitted on, and what it judges."""

    pairs: list[_Pair]
    compared: Mapping[SplitName, IntArray]
    """Rows of the opposite half."""

    @property
    def fitted_on(self) -> int:
        """Members, and as many others."""
        return sum(len(pair.members) for pair in self.pairs if pair.split == "retain")


@dataclass(frozen=True, eq=False)
class _Attacker:
    geometry: Geometry
    scaling: Scaling
    head: Head
    usual: FloatArray
    """(k,) mean log-odds of members and others of each class: classes differ in more than
    membership, and the forget set may hold them in other proportions than unseen does."""

    @classmethod
    def of(cls, view: WhiteBox, pairs: list[_Pair], l2: float) -> _Attacker:
        """Class means from all pairs; membership from those whose members are known ones."""
        features = {
            pair.label: np.concatenate(
                [
                    view.features(pair.split, pair.members).astype(np.float64),
                    view.features("unseen", pair.others).astype(np.float64),
                ]
            )
            for pair in pairs
        }
        geometry = Geometry.of(features)
        signals = {
            label: geometry.signals(both, np.full(len(both), label, dtype=np.int64))
            for label, both in features.items()
        }
        known = [pair for pair in pairs if pair.split == "retain"]
        fitted = np.concatenate([signals[pair.label] for pair in known])
        membership = np.concatenate([np.repeat([1, 0], len(pair.members)) for pair in known])
        scaling = Scaling.by_column(fitted)
        head = fit_head(scaling(fitted), membership, l2)
        usual = [
            _log_odds(head, scaling(signals[label])).mean() for label in geometry.classes.tolist()
        ]
        return cls(geometry, scaling, head, np.array(usual))

    def judge(self, view: WhiteBox, split: SplitName, rows: IntArray) -> FloatArray:
        """(n,) log-odds of rows that can be compared with the forget set."""
        labels = view.labels(split)[rows]
        log_odds = np.empty(len(rows))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            own = labels[start : start + ROWS_AT_ONCE]
            part = rows[start : start + ROWS_AT_ONCE]
            features = view.features(split, part).astype(np.float64)
            signals = self.scaling(self.geometry.signals(features, own))
            usual = self.usual[np.searchsorted(self.geometry.classes, own)]
            log_odds[start : start + len(part)] = _log_odds(self.head, signals) - usual
        return log_odds


def _log_odds(head: Head, signals: FloatArray) -> FloatArray:
    scores = head.scores(signals)
    return np.asarray(scores[:, 1] - scores[:, 0])


def _candidates(view: WhiteBox, rng: np.random.Generator) -> dict[SplitName, IntArray]:
    """All of forget and unseen; of retain as many of each class as unseen has."""
    retained = [np.empty(0, dtype=np.int64)]
    for label, count in zip(*np.unique(view.labels("unseen"), return_counts=True), strict=True):
        of_class = np.flatnonzero(view.labels("retain") == label).astype(np.int64)
        retained.append(some(of_class, int(count), rng))
    return {
        "forget": np.arange(len(view.labels("forget")), dtype=np.int64),
        "unseen": np.arange(len(view.labels("unseen")), dtype=np.int64),
        "retain": np.sort(np.concatenate(retained)),
    }


def _pairs(
    view: WhiteBox, own: Mapping[SplitName, IntArray], max_fit: int, rng: np.random.Generator
) -> list[_Pair]:
    """Members and others of each class among some rows."""
    labels = {split: view.labels(split)[rows] for split, rows in own.items()}
    most = max(MIN_OF_CLASS, max_fit // view.n_classes)
    retained = set(np.unique(view.labels("retain")).tolist())
    pairs = []
    for label in np.unique(labels["unseen"]).tolist():
        split: SplitName = "retain" if label in retained else "forget"
        members = rng.permutation(own[split][labels[split] == label])
        others = rng.permutation(own["unseen"][labels["unseen"] == label])
        count = min(len(members), len(others), most)
        if count >= MIN_OF_CLASS:
            pairs.append(_Pair(label, split, members[:count], others[:count]))
    return pairs


def _comparable(
    view: WhiteBox, rows: Mapping[SplitName, IntArray], pairs: list[_Pair]
) -> dict[SplitName, IntArray]:
    """Those of some rows that can be compared with the forget set: of its classes, as far as there
    are pairs of them."""
    classes = np.intersect1d([pair.label for pair in pairs], view.forget_classes)
    return {split: own[np.isin(view.labels(split)[own], classes)] for split, own in rows.items()}


def _in_order(parts: list[tuple[IntArray, FloatArray]]) -> tuple[IntArray, FloatArray]:
    rows = np.concatenate([rows for rows, _ in parts])
    order = np.argsort(rows)
    return rows[order], np.concatenate([scores for _, scores in parts])[order]
