"""A world of logits in which it is known who saw what, and the statistic of an answer.

Each example has a difficulty and a pattern of confusable classes that all models share; each model
adds its own noise, and lifts the true logit of the examples that it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from unaudit.evidence import (
    BlackBoxProbe,
    ComparativeProbe,
    Evidence,
    IntArray,
    Probe,
    Scalar,
    Scenario,
    Scores,
    SplitName,
)
from unaudit.shadows import Shadows, ShadowScores
from unaudit.views import BlackBox, Marks, Outputs, Predictions

N_CLASSES = 5
SWAPPED = (0, 1)
"""The classes between which a relabeling's forget set swaps labels."""
SIZES: Mapping[SplitName, int] = {"forget": 400, "retain": 1600, "unseen": 1200}
SHADOWS = 40
"""Shadow models, where a probe asks for some."""

Logits = npt.NDArray[np.float32]
Answer = Callable[[SplitName, npt.NDArray[np.float64]], Predictions]
"""Outputs on a split of a new model that remembers a share of every example, (n,) in [0, 1]."""


@dataclass(frozen=True)
class World:
    scenario: Scenario
    original: BlackBox
    retrained: tuple[BlackBox, ...]


def make_view(
    logits: Mapping[SplitName, Logits],
    labels: Mapping[SplitName, IntArray],
    scenario: Scenario,
    relabel: bool = False,
    shadows: Shadows | None = None,
) -> BlackBox:
    """A view of arrays that nobody may write to; every second example of a class is a canary."""
    for split in logits:
        logits[split].setflags(write=False)
        labels[split].setflags(write=False)
    return BlackBox(
        {split: partial(Outputs, logits[split], labels[split]) for split in logits},
        scenario=scenario,
        forget_classes=tuple(int(label) for label in np.unique(labels["forget"])),
        n_classes=logits["forget"].shape[1],
        marks=Marks(
            {split: every_second(labels[split]) for split in logits if split != "retain"},
            SWAPPED if relabel else None,
        ),
        shadows=shadows,
    )


def every_second(labels: IntArray) -> npt.NDArray[np.bool_]:
    """(n,) whether an example is the second, fourth, … of its class."""
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[1::2]] = True
    return chosen


def make_labels(
    scenario: Scenario,
    rng: np.random.Generator,
    sizes: Mapping[SplitName, int] = SIZES,
    relabel: bool = False,
) -> dict[SplitName, IntArray]:
    """Class 0 is forgotten, wholly or in part, or the forget set is spread over all classes, those
    that are swapped in a relabeling."""
    labels = {split: rng.integers(0, N_CLASSES, size) for split, size in sizes.items()}
    if scenario != "sample":
        labels["forget"][:] = 0
    elif relabel:
        labels["forget"] = rng.choice(SWAPPED, sizes["forget"])
    if scenario == "class":
        labels["retain"] = rng.integers(1, N_CLASSES, sizes["retain"])
    return labels


def make_shadows(
    labels: Mapping[SplitName, IntArray],
    answer: Answer,
    rng: np.random.Generator,
    models: int = SHADOWS,
) -> Shadows:
    """Shadow models trained on halves of forget, unseen and every second retain example.

    Two and two complement each other. Each then unlearns a half of what it was trained on, which it
    half forgets.
    """
    splits = {}
    for split, own in labels.items():
        rows = np.arange(0, len(own), 1 + (split == "retain"))
        half = rng.permuted(np.tile([True, False], (len(rows), models // 2)), axis=1).T
        member = np.concatenate([half[: models // 2], ~half[: models // 2]])
        erased = member & rng.permuted(member, axis=0)
        scores = []
        for share in (np.where(member, 1.0, 0.0), np.where(erased, 0.5, member)):
            whole = np.ones((models, len(own)))
            whole[:, rows] = share
            answers = [answer(split, one).logit_confidence[rows] for one in whole]
            scores.append(np.stack(answers)[:, None].astype(np.float32))
        splits[split] = ShadowScores(rows, scores[0], member, scores[1], erased)
    return Shadows(splits, unlearner="half-forget")


def make_world(
    scenario: Scenario,
    seed: int = 0,
    retrained: int = 6,
    sizes: Mapping[SplitName, int] = SIZES,
    relabel: bool = False,
    shadows: bool = False,
) -> World:
    """Models of known truth; in a relabeling, the original confuses the swapped classes."""
    rng = np.random.default_rng(seed)
    labels = make_labels(scenario, rng, sizes, relabel)
    shared = {split: rng.normal(size=(len(own), N_CLASSES)) for split, own in labels.items()}
    ease = {split: rng.normal(2.0, 1.0, len(own)) for split, own in labels.items()}

    def answer(split: SplitName, share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        own = labels[split]
        values = shared[split] + rng.normal(0.0, 0.4, shared[split].shape)
        values[np.arange(len(own)), own] += ease[split] + 2.5 * share
        return values

    def train(trained_on: set[SplitName]) -> BlackBox:
        logits: dict[SplitName, Logits] = {}
        for split, own in labels.items():
            values = answer(split, np.full(len(own), float(split in trained_on)))
            if scenario == "class" and "forget" not in trained_on:
                values[:, 0] -= 9.0
            if relabel and split != "forget" and "forget" in trained_on:
                for one, other in (SWAPPED, SWAPPED[::-1]):
                    values[own == one, other] += 2.0
            logits[split] = values.astype(np.float32)
        return make_view(logits, labels, scenario, relabel, trained)

    def outputs(split: SplitName, share: npt.NDArray[np.float64]) -> Outputs:
        return Outputs(answer(split, share).astype(np.float32), labels[split])

    trained = make_shadows(labels, outputs, np.random.default_rng(seed)) if shadows else None
    return World(
        scenario,
        original=train({"forget", "retain"}),
        retrained=tuple(train({"retain"}) for _ in range(retrained)),
    )


def without(view: BlackBox, split: SplitName) -> BlackBox:
    """The same model, one split not handed in."""
    return BlackBox(
        {name: partial(view.predictions, name) for name in view.splits if name != split},
        scenario=view.scenario,
        forget_classes=view.forget_classes,
        n_classes=view.n_classes,
        marks=view.marks,
        shadows=view.shadows,
    )


def ask(probe: Probe, view: BlackBox, reference: BlackBox, seed: int = 7) -> Evidence:
    """Run a probe, with the reference if it takes one."""
    rng = np.random.default_rng(seed)
    if probe.card.comparative:
        assert isinstance(probe, ComparativeProbe)
        return probe(view, reference, rng)
    assert isinstance(probe, BlackBoxProbe)
    return probe(view, rng)


def measure(evidence: Evidence) -> float:
    """The statistic m of an answer; the AUC from scipy's Mann–Whitney U."""
    if isinstance(evidence, Scalar):
        return evidence.value
    assert isinstance(evidence, Scores)
    if evidence.statistic == "mean":
        return float(evidence.forget.mean())
    assert evidence.unseen is not None
    if evidence.statistic == "mean-difference":
        return float(evidence.forget.mean() - evidence.unseen.mean())
    return auc(evidence.forget, evidence.unseen)


def auc(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> float:
    u = mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(u) / (len(positive) * len(negative))
