"""Head recovery: how much a fresh head gets back from a handful of examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._features import are_right, of_training
from attacks.white_box._parameters import require_share
from attacks.white_box._rows import of_forget_classes, partial, some, unlabeled
from attacks.white_box._softmax import Scaling, fit_head
from unaudit.evidence import ANY_TASK, PROBES, Evidence, IntArray, ProbeCard, Scores, SplitName

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox

SCALED_BY = 10_000
"""Examples of D that decide how features are scaled."""


@PROBES.register("head-recovery")
@dataclass(frozen=True)
class HeadRecovery:
    """Accuracy on forget examples after the head was replaced and fitted on 2 % of D.

    IDI draws 2 % of D once at random, trains by SGD and reports the accuracy on test examples of
    the forget class. Here each class gives equally many examples (a random draw may hold none of
    the forget class), the fit is convex and solved, and several draws are averaged: a forget
    example's score is how often heads that were not fitted on it get it right. Unseen examples of
    the forget classes are judged beside them. All models are given the same draws, so the noise of
    drawing hardly shows in their differences; it is in the detail.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="head-recovery",
        title="Head recovery (2 % of D)",
        family="representation",
        measures=(
            "Accuracy on forget examples of a fresh linear head on the frozen encoder, fitted on "
            "2 % of the training data: high = the encoder still holds the forgotten labels ready, "
            "a few examples bring them back."
        ),
        source="IDI (2024), §3.2, figure 4; balanced draws, penalty and convex solver are ours",
        cost="no forward pass beyond the shared one; ten small convex fits",
        blind_spots=(
            "Sees only what can be read linearly at the penultimate layer.",
            "A good general encoder learns a new class from few examples: where retrained models "
            "reach the original's accuracy, nothing can be told.",
            "In the sample scenario it sees forget examples that a retrained model gets wrong, and "
            "few others.",
            "Ruin is not forgetting: after gradient ascent the index lies anywhere from 1 to below "
            "0, by how far it went (−.1 to .8 on the digits); read it beside the utility.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain"}),
    )

    share: float = 0.02
    """Part of D that one head is fitted on."""
    draws: int = 10
    max_fit: int = 10_000
    """Largest number of examples that one head is fitted on."""
    l2: float = 1e-2
    """Penalty l2/2 ‖W‖² beside the mean loss in nats, for features of mean square 1."""

    def __post_init__(self) -> None:
        require_share(self, "share")
        require_whole(self, "draws", 2)
        require_whole(self, "max_fit", 1)
        require_positive(self, "l2")

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view) or unlabeled(view)) is not None:
            return skip
        n_forget = len(view.labels("forget"))
        if n_forget < MIN_EXAMPLES:
            return too_few(n_forget, "forget examples")
        labels = np.concatenate([view.labels("forget"), view.labels("retain")])
        scaled_by = some(np.arange(len(labels), dtype=np.int64), SCALED_BY, rng)
        scaling = Scaling.of(of_training(view, scaled_by))
        fitted = self._draw(labels, rng)
        heads = [
            fit_head(scaling(of_training(view, rows)), labels[rows], self.l2, view.device)
            for rows in fitted
        ]
        forget = np.arange(n_forget, dtype=np.int64)
        right = are_right(view, "forget", forget, scaling, heads)
        held_out = np.stack([~np.isin(forget, rows) for rows in fitted], axis=1)
        by_draw = [float(right[out, at].mean()) for at, out in enumerate(held_out.T)]
        detail: dict[str, Any] = {
            "accuracy_by_draw": by_draw,
            "stderr_of_draws": float(np.std(by_draw, ddof=1) / np.sqrt(self.draws)),
            "fitted_on": len(fitted[0]),
            "converged": all(head.converged for head in heads),
        }
        rows_of: dict[SplitName, IntArray] = {}
        on_unseen = None
        unseen = of_forget_classes(view, "unseen") if "unseen" in view.splits else forget[:0]
        if len(unseen) >= MIN_EXAMPLES:
            on_unseen = are_right(view, "unseen", unseen, scaling, heads).mean(axis=1)
            rows_of["unseen"] = unseen
            detail["unseen_accuracy"] = float(on_unseen.mean())
        return Scores(
            forget=(right & held_out).sum(axis=1) / held_out.sum(axis=1),
            unseen=on_unseen,
            statistic="mean",
            rows=partial(view, rows_of),
            detail=detail,
        )

    def _draw(self, labels: IntArray, rng: np.random.Generator) -> list[IntArray]:
        """Rows of D for each draw, equally many of each class.

        Successive draws walk through a shuffled class, and none takes more than half of it: so
        every example is held out at least once.
        """
        classes = np.unique(labels)
        fitted = min(self.share * len(labels), self.max_fit)
        wanted = max(1, round(fitted / len(classes)))
        drawn: list[list[IntArray]] = [[] for _ in range(self.draws)]
        for label in classes:
            order = rng.permutation(np.flatnonzero(labels == label))
            each = min(wanted, len(order) // 2)
            for number, rows in enumerate(drawn):
                rows.append(order[(number * each + np.arange(each)) % len(order)])
        return [np.sort(np.concatenate(rows)) for rows in drawn]
