"""Recipe fidelity: were the retrained models trained as the original was?

References stand for what the operator's own training would have given without the forget set. If
they are better or worse than the original on data that the request does not touch, their difference
from the original is a difference of recipes, and says nothing of the forget set. That holds of
models that were made from a stated recipe, and of retrained models that were handed in.

How good a classifier is, its accuracy says; of a language model it is the next-token accuracy: the
share of tokens that come first in its predictions, as a mean over texts. How far it was trained,
its mean confidence in the truth says, which moves long after (and before) accuracy does: the
probability of the right class, or of a text per token. Unlike losses, both have a scale on which
one limit holds for all models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from unaudit.case import Candidate, Case
from unaudit.evidence import SplitName
from unaudit.views import BlackBox, Outputs

MADE = "made by unaudit from the recipe"
"""The note on the provenance of a model that was made so."""
LIMIT = 0.05
"""Largest absolute gap in accuracy or confidence between the original and the mean of the retrained
models at which they count as trained alike. This number is ours: large enough for the luck of seeds
(five networks of one recipe lay within 0.01 of one another on 600 unseen digits), small enough to
notice a recipe that stops early or trains another way."""

FEW = 0.1
"""Share of the training set above which the forget set, where it is spread over all classes, may
itself be why retrained models are worse and less sure on unseen examples: these are then not
compared (our choice). Small networks on digits were surer by 0.03 after 1,000 examples than after
600."""

Part = Literal["original", "retrained"]
Quality = Literal["accuracy", "confidence"]
COMPARED: tuple[Literal["retain", "unseen"], ...] = ("retain", "unseen")


@dataclass(frozen=True)
class Reproduction:
    """One quality on one split."""

    quality: Quality
    split: Literal["retain", "unseen"]
    original: float
    """Of the model that the retrained ones are held against."""
    retrained: float
    """Mean over the retrained models."""
    least: float
    """Distance of the nearest retrained model; 0 if it is better on retained examples: it had fewer
    to learn."""

    @property
    def gap(self) -> float:
        return abs(self.original - self.retrained)


@dataclass(frozen=True)
class Fidelity:
    """Whether the retrained models were trained as the original was."""

    made: tuple[Part, ...]
    """What was made from the recipe; nothing where all were handed in."""
    kept_classes_only: bool
    """Whether accuracies are over the classes that the request does not touch."""
    splits: tuple[Reproduction, ...]
    """Accuracies."""
    ok: bool
    reason: str
    """In one line, without a capital and a full stop."""
    limit: float = LIMIT


def fidelity(case: Case, view_of: Mapping[str, BlackBox]) -> Fidelity | None:
    """Compare the original with the retrained models; None without either.

    Where the request touches some classes only, these are left out on both sides: a retrained model
    that lacks a class is right to be worse on it.

    Args:
        case: with references.
        view_of: outputs of the original and the retrained models, by label.
    """
    if case.original is None or not case.retrained:
        return None
    sides: tuple[tuple[Part, tuple[Candidate, ...]], ...] = (
        ("original", (case.original,)),
        ("retrained", case.retrained),
    )
    made = tuple(part for part, models in sides if any(map(_was_made, models)))
    touched = touched_classes(case)
    found = tuple(_compared(case, view_of, case.original, touched))
    ok, reason = _recipe(found, made, _kind(case)) if made else _handed_in(found, _kind(case))
    accuracies = tuple(compared for compared in found if compared.quality == "accuracy")
    return Fidelity(made, bool(touched), accuracies, ok, reason)


def incomparable(case: Case, view_of: Mapping[str, BlackBox], found: Fidelity | None) -> str | None:
    """Why the retrained models may be no measure of the subject, in one line; None: they are one.

    Where the recipe was compared with itself, the subject is the only model that shows what the
    operator's own training gives: if it is as good as the retrained models on data that the request
    does not touch, nothing contradicts the recipe.

    Args:
        case: with references.
        view_of: outputs of the subject and the retrained models, by label.
        found: what :func:`fidelity` says of the same case.
    """
    if found is None or found.ok:
        return None
    if len(found.made) < 2:
        return found.reason
    compared = _compared(case, view_of, case.subject, touched_classes(case))
    worst = max(compared, key=lambda one: one.gap)
    if worst.gap <= LIMIT:
        return None
    return (
        f"original and retrained models were made from the recipe, and {worst.split} "
        f"{_kind(case)}{worst.quality} is {worst.original:.1%} for the subject and "
        f"{worst.retrained:.1%} for the retrained models, more than {100 * LIMIT:g} points apart: "
        "either the operator trains another way, or unlearning cost accuracy; --original settles it"
    )


def _recipe(found: Sequence[Reproduction], made: Sequence[Part], kind: str) -> tuple[bool, str]:
    """A recipe has to show that it is right."""
    if len(made) > 1:
        return False, (
            "the original was made from the recipe as well, so the recipe was compared with "
            "itself; hand in the original with --original"
        )
    worst = max(found, key=lambda compared: compared.gap)
    if worst.gap <= LIMIT:
        return True, (
            f"the recipe reproduces the original: {kind}accuracies and confidences differ "
            f"by {100 * worst.gap:.1f} points at most, {100 * LIMIT:g} are allowed"
        )
    return False, (
        f"the recipe does not reproduce the original: {worst.split} {kind}{worst.quality} is "
        f"{worst.original:.1%} for the original and {worst.retrained:.1%} for the retrained "
        f"models, more than {100 * LIMIT:g} points apart; state in [recipe] how the original "
        "was trained, or hand in retrained models"
    )


def _handed_in(found: Sequence[Reproduction], kind: str) -> tuple[bool, str]:
    """The operator vouches for these models; they are doubted if not one of them, with the luck of
    seeds, comes near the original."""
    worst = max(found, key=lambda compared: compared.least)
    if worst.least <= LIMIT:
        return True, (
            "the retrained models handed in match the original: the nearest comes within "
            f"{100 * worst.least:.1f} points of its {kind}accuracies and confidences, "
            f"{100 * LIMIT:g} are allowed"
        )
    return False, (
        f"the retrained models handed in do not match the original: {worst.split} "
        f"{kind}{worst.quality} is {worst.original:.1%} for the original and "
        f"{worst.retrained:.1%} for them, and not one comes within {100 * LIMIT:g} points; hand in "
        "models retrained as the original was trained"
    )


def _was_made(candidate: Candidate) -> bool:
    return MADE in candidate.model.provenance.notes


def touched_classes(case: Case) -> tuple[int, ...]:
    """Classes that the request changes by itself; none if it is spread over all of them."""
    if case.scenario == "sample" and case.swapped is None:
        return ()
    kept = set(np.unique(case.splits["retain"].labels).tolist()) - set(case.forget_classes)
    return case.forget_classes if kept else ()


def _kind(case: Case) -> str:
    """Of accuracy and confidence."""
    return "" if case.task == "classification" else "next-token "


def _compared(
    case: Case, view_of: Mapping[str, BlackBox], model: Candidate, touched: tuple[int, ...]
) -> Iterator[Reproduction]:
    """Comparisons with the retrained models on each split that has examples of other classes; see
    :data:`FEW`."""
    forgotten, kept = (len(case.splits[name].labels) for name in ("forget", "retain"))
    large = not touched and forgotten > FEW * (forgotten + kept)
    for split in COMPARED:
        if split not in case.splits or np.isin(case.splits[split].labels, touched).all():
            continue
        if split == "unseen" and large:
            continue
        models = (model, *case.retrained)
        own, *others = (_qualities(view_of[one.label], split, touched) for one in models)
        for quality, value in own.items():
            found = [other[quality] for other in others]
            apart = [value - one if split == "retain" else abs(value - one) for one in found]
            yield Reproduction(quality, split, value, fmean(found), max(0.0, min(apart)))


def _qualities(
    view: BlackBox, split: SplitName, touched: tuple[int, ...]
) -> Mapping[Quality, float]:
    """Means over the examples of other classes. A classifier chooses among these alone: that it
    takes some for a class that a retrained model never saw is no matter of how it was trained."""
    answers = view.predictions(split)
    kept = np.flatnonzero(~np.isin(answers.labels, touched))
    others = np.setdiff1d(np.arange(getattr(answers, "n_classes", 0)), touched)
    # of a single class every model is sure
    if touched and isinstance(answers, Outputs) and len(others) > 1:
        labels = np.searchsorted(others, answers.labels)
        parts = [
            Outputs(answers.logits[rows][:, others], labels[rows])
            for rows in np.array_split(kept, len(answers.chunks()))
        ]
        right = np.concatenate([part.hit_rate for part in parts])
        sure = np.concatenate([part.log_confidence for part in parts])
    else:
        right, sure = answers.hit_rate[kept], answers.log_confidence[kept]
    return {"accuracy": float(right.mean()), "confidence": float(np.exp(sure).mean())}
