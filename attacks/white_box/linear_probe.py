"""Linear probing: what a new linear head can read from frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._features import are_right, of_training
from attacks.white_box._rows import deal, of_forget_classes, partial, proportional, unlabeled
from attacks.white_box._softmax import Scaling, fit_head
from unaudit.evidence import (
    ANY_TASK,
    PROBES,
    Evidence,
    FloatArray,
    IntArray,
    ProbeCard,
    Scores,
    SplitName,
)

if TYPE_CHECKING:
    import torch

    from unaudit.white_box import WhiteBox


@PROBES.register("linear-probe")
@dataclass(frozen=True)
class LinearProbe:
    """LP(D_f): a new head trained on D = retain ∪ forget, judged on the forget set out of sample.

    MUDA trains and evaluates on the same examples. Here D is dealt into folds and each forget
    example is judged by a head that was fitted without its fold. Unseen examples of the forget
    classes are judged beside them, by one of those heads each: they tell what the encoder knows of
    the class from what it memorized of the examples. In the sample scenario the number says how
    well the labels of forget examples are read when a head is refitted, which is better if the
    encoder was trained on them. LP(D_r), trained and judged on retain, is in the detail.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="linear-probe",
        title="Linear probe, LP(D_f)",
        family="representation",
        measures=(
            "Accuracy on forget examples of a new linear head, fitted to the frozen features of "
            "other retain and forget examples: how readily the representation yields the forgotten "
            "labels. Retrained models say how high it is without any memory of them."
        ),
        source="MUDA, appendix B, linear probing; folds, penalty and convex solver are ours",
        cost="no forward pass beyond the shared one; six convex fits on 10,000 examples",
        blind_spots=(
            "Sees only what can be read linearly at the penultimate layer.",
            "A good general encoder separates classes that it never saw: where retrained models "
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

    l2: float = 1e-3
    """Penalty l2/2 ‖W‖² beside the mean loss in nats, for features of mean square 1."""
    folds: int = 5
    max_fit: int = 10_000
    """Examples of D that heads are fitted on, drawn in proportion from each class of each split."""

    def __post_init__(self) -> None:
        require_positive(self, "l2")
        require_whole(self, "folds", 2)
        require_whole(self, "max_fit", 2 * MIN_EXAMPLES)

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view) or unlabeled(view)) is not None:
            return skip
        trained: tuple[SplitName, SplitName] = ("forget", "retain")
        for split in trained:
            if len(view.labels(split)) < MIN_EXAMPLES:
                return too_few(len(view.labels(split)), f"{split} examples")
        labels = np.concatenate([view.labels(split) for split in trained])
        in_forget = np.arange(len(labels)) < len(view.labels("forget"))
        strata = 2 * labels + in_forget
        chosen = proportional(strata, self.max_fit, rng)
        folds = deal(strata, self.folds, rng)

        features = of_training(view, chosen)
        scaling = Scaling.of(features)
        features, own, fold = scaling(features), labels[chosen], folds[chosen]
        heads = [
            fit_head(features[fold != held_out], own[fold != held_out], self.l2, view.device)
            for held_out in range(self.folds)
        ]
        forget = np.flatnonzero(in_forget).astype(np.int64)
        right = are_right(view, "forget", forget, scaling, heads)[forget, folds[forget]]

        detail: dict[str, Any] = {
            "lp_forget": float(right.mean()),
            "fitted_on": len(chosen),
            "converged": all(head.converged for head in heads),
        }
        of_retain = ~in_forget[chosen]
        detail |= self._lp_retain(features[of_retain], own[of_retain], fold[of_retain], view.device)

        rows: dict[SplitName, IntArray] = {}
        on_unseen = None
        unseen = of_forget_classes(view, "unseen") if "unseen" in view.splits else forget[:0]
        if len(unseen) >= MIN_EXAMPLES:
            judge = rng.integers(self.folds, size=len(unseen))
            judged = are_right(view, "unseen", unseen, scaling, heads)
            on_unseen = judged[np.arange(len(unseen)), judge].astype(np.float64)
            rows["unseen"] = unseen
            detail["lp_forget_unseen"] = float(judged.mean())
        return Scores(
            forget=right.astype(np.float64),
            unseen=on_unseen,
            statistic="mean",
            rows=partial(view, rows),
            detail=detail,
        )

    def _lp_retain(
        self, features: FloatArray, labels: IntArray, fold: IntArray, device: torch.device
    ) -> dict[str, Any]:
        """LP(D_r) out of sample, on one fold."""
        held_out = fold == 0
        if held_out.all() or not held_out.any():
            return {}
        head = fit_head(features[~held_out], labels[~held_out], self.l2, device)
        right = head.predict(features[held_out]) == labels[held_out]
        return {"lp_retain": float(right.mean())}
