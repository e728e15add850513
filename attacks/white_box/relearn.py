"""Relearning: how fast a copy of the model learns the forget set (again)."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._parameters import require_share
from attacks.white_box._rows import some
from unaudit.evidence import (
    ANY_TASK,
    PROBES,
    Evidence,
    FloatArray,
    IntArray,
    ProbeCard,
    Scores,
    Skipped,
)
from unaudit.relearn_time import relearn_time

if TYPE_CHECKING:
    from attacks.white_box._relearning import Schedule, Watched
    from unaudit.white_box import WhiteBox

SOURCE = (
    "Golatkar et al. 2020 and Tarun et al. 2023 (relearn time); Chundawat et al. 2023 (Anamnesis "
    "Index)"
)
COST = (
    "runs × steps × batch examples trained on, 16,000 by default: about one pass of training; "
    "2,000 more passed forward"
)
REWRITING = (
    "Rescaling units, channels or layers changes nothing, but other ways to write the same "
    "function can change the speed: units that cancel each other, weights that no input reaches."
)


@dataclass(frozen=True)
class Relearning(ABC):
    """Mean probability of the true class on forget examples while a copy relearns.

    The measure is the area under the learning curve over the logarithm of the steps, per forget
    example and averaged over runs; it exists for every model, while a relearn time does not (never
    regained, or regained before the first step) and depends on a target. The probability of the
    true class, because it is bounded, which the loss is not, and moves where accuracy stands still.
    Step 0 is in the curve, not in the measure: it says what the model answers, not how it learns.
    For a language model it is the geometric mean of the probabilities of a text's tokens, one over
    its perplexity, and accuracy is the share of tokens that come first.

    In the class scenario half of the forget examples are learned and the other half is watched,
    then the reverse: the speed is that of the class, not of memorizing. Elsewhere retrained models
    know the classes anyway, so the very examples that are learned are watched.

    Descent takes place in coordinates in which it does not matter at what scale the weights of
    units, channels and layers are written (``_scales.py``): whoever hands in a model can choose
    that without changing an output. Normalization layers stay as they are.

    All models get the same batches in the same order; what remains of the noise of a run shows in
    the spread of the retrained models, and by run in the detail. The relearn time in the detail is
    taken from the mean accuracy curve at a fixed target; with the curves of several models
    :mod:`unaudit.relearn_time` gives it at any target, such as the original's own accuracy.
    """

    card: ClassVar[ProbeCard]
    fresh_head: ClassVar[bool]

    steps: int = 64
    """SGD steps of one run: the cap of the relearn time."""
    runs: int = 4
    """Copies that are trained; an even number lets every forget example be watched equally."""
    batch: int = 64
    """Examples per step."""
    forget_share: float = 0.1
    """Part of a batch that is drawn from the forget set, the rest from retain."""
    lr: float = 0.03
    """Learning rate of SGD on weights whose rows have norm 1; the same for all models."""
    momentum: float = 0.9
    clip: float = 1.0
    """Largest norm of their gradient: over-unlearned models with huge losses must not diverge."""
    spread: float = 100.0
    """Total variance of the features in the coordinates in which the head is trained: how fast it
    learns next to the layers before it. Our choice."""
    max_examples: int = 1000
    """Forget examples that are looked at, drawn at random."""
    target_accuracy: float = 0.9
    """Of the relearn time in the detail; the same for all models."""

    def __post_init__(self) -> None:
        require_whole(self, "steps", 1)
        require_whole(self, "runs", 2)
        require_whole(self, "batch", 2)
        require_whole(self, "max_examples", MIN_EXAMPLES)
        for field in ("forget_share", "target_accuracy"):
            require_share(self, field)
        for field in ("lr", "momentum", "clip", "spread"):
            require_positive(self, field)

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        from attacks.white_box._relearning import RelearningDivergedError, relearn, scales_of

        if (skip := absent(self.card, view)) is not None:
            return skip
        for split, kind in (("forget", "forget examples"), ("retain", "retain examples")):
            if (found := len(view.labels(split))) < MIN_EXAMPLES:  # type: ignore[arg-type]
                return too_few(found, kind)
        everyone = np.arange(len(view.labels("forget")), dtype=np.int64)
        chosen = some(everyone, self.max_examples, rng)
        parts = self._parts(chosen, view.scenario == "class", rng)
        # every run draws from a generator of its own: one model's runs never shift another's
        schedule = self._schedule()
        seed = int(rng.integers(1 << 63))
        scales = scales_of(view, schedule, chosen, seed, fresh_head=self.fresh_head)
        try:
            runs = [
                relearn(view, schedule, scales, learned, watched, own, fresh_head=self.fresh_head)
                for (learned, watched), own in zip(parts, rng.spawn(self.runs), strict=True)
            ]
        except RelearningDivergedError:
            return Skipped(f"relearning diverged; lower probes.{self.card.name}.lr")
        rows_of = [watched for _, watched in parts]
        scores, rows = _scores(runs, rows_of)
        return Scores(
            forget=scores,
            statistic="mean",
            rows={} if len(rows) == len(everyone) else {"forget": rows},
            detail=self._detail(runs, schedule.marks, view.scenario == "class"),
        )

    def _parts(
        self, chosen: IntArray, halved: bool, rng: np.random.Generator
    ) -> list[tuple[IntArray, IntArray]]:
        """Rows to learn and rows to watch for each run."""
        parts: list[tuple[IntArray, IntArray]] = []
        while len(parts) < self.runs:
            order = rng.permutation(chosen)
            one, other = np.sort(order[::2]), np.sort(order[1::2])
            parts += [(one, other), (other, one)] if halved else [(chosen, chosen)]
        return parts[: self.runs]

    def _schedule(self) -> Schedule:
        from attacks.white_box._relearning import Schedule

        n_forget = min(max(1, round(self.batch * self.forget_share)), self.batch - 1)
        # about three marks per doubling; doubling again and again, they are even in log-steps
        marks = np.unique(np.round(np.geomspace(1, self.steps, 2 + 2 * self.steps.bit_length())))
        return Schedule(
            marks=(0, *(int(mark) for mark in marks)),
            lr=self.lr,
            momentum=self.momentum,
            clip=self.clip,
            spread=self.spread,
            n_forget=n_forget,
            n_retain=self.batch - n_forget,
        )

    def _detail(self, runs: list[Watched], marks: tuple[int, ...], halved: bool) -> dict[str, Any]:
        curves = {
            "forget_confidence": np.array([run.confidence.mean(axis=1) for run in runs]),
            "forget_accuracy": np.array([run.correct.mean(axis=1) for run in runs]),
            "forget_loss": np.array([run.loss.mean(axis=1) for run in runs]),
        }
        by_run = [_area(run.confidence).mean() for run in runs]
        accuracy = curves["forget_accuracy"].mean(axis=0).tolist()
        time = relearn_time(marks, accuracy, self.target_accuracy)
        return {
            "steps": list(marks),
            **{name: curve.mean(axis=0).tolist() for name, curve in curves.items()},
            **{f"{name}_stderr": _stderr(curve).tolist() for name, curve in curves.items()},
            "watched": "held-out forget examples" if halved else "learned forget examples",
            "stderr_of_runs": float(_stderr(np.array(by_run))),
            "relearn_target": self.target_accuracy,
            "relearn_steps": time.steps,
            "relearn_censored": time.censored,
        }


@PROBES.register("relearn")
@dataclass(frozen=True)
class Relearn(Relearning):
    """Relearning of the model as it was handed in."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="relearn",
        title="Relearning speed",
        family="recoverability",
        measures=(
            "Mean probability of the true class (or of a text's tokens) on forget examples over "
            "the first SGD steps (even in log-steps) of a copy that is trained on forget and "
            "retain examples: high = it comes back quickly, or never left."
        ),
        source=f"{SOURCE}; the area under the curve in place of a time to target is ours",
        cost=COST,
        blind_spots=(
            "A last layer that masks the forget class must be unlearned first: the head-distilled "
            "fake starts as low as a retrained model and looks nearly like one (see "
            "relearn-fresh-head).",
            "An original that never left the target stands at the top from the first step, so the "
            "axis shows what the model answers as much as how it learns.",
            "Depends on the learning rate, which is the same for all models.",
            REWRITING,
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain"}),
    )
    fresh_head: ClassVar[bool] = False


@PROBES.register("relearn-fresh-head")
@dataclass(frozen=True)
class RelearnFreshHead(Relearning):
    """Relearning after the head was set to zero, so that the encoder alone decides the speed.

    Every model starts from a uniform guess: neither a masked class nor an intact head gives a lead.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="relearn-fresh-head",
        title="Relearning, fresh head",
        family="recoverability",
        measures=(
            "As relearning speed, but the last layer is set to zero first and all layers are then "
            "trained: high = the encoder lets the forget set come back quickly, whatever was done "
            "to the last layer."
        ),
        source=f"Ours, after {SOURCE} and head recovery (IDI §3.2)",
        cost=COST,
        blind_spots=(
            "What a model memorized in its last layer alone is lost before it is looked at.",
            "Weak in the sample scenario, where retrained models know the classes as well.",
            REWRITING,
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain"}),
    )
    fresh_head: ClassVar[bool] = True

    spread: float = 1000.0
    """As in relearning speed; more, because the head starts from nothing."""


def _area(curve: FloatArray) -> FloatArray:
    """(n,) mean over the marks after step 0 of a (marks, n) curve."""
    return np.asarray(curve[1:].mean(axis=0))


def _scores(runs: list[Watched], rows: list[IntArray]) -> tuple[FloatArray, IntArray]:
    """Mean area of each watched example over the runs that watched it, and its row, ascending."""
    where = np.concatenate(rows)
    areas = np.concatenate([_area(run.confidence) for run in runs])
    found, at, counts = np.unique(where, return_inverse=True, return_counts=True)
    return np.bincount(at, weights=areas) / counts, found


def _stderr(by_run: FloatArray) -> FloatArray:
    """Of the mean over runs, which are the first axis."""
    return np.asarray(by_run.std(axis=0, ddof=1) / np.sqrt(len(by_run)))
