"""Recipe fidelity: does the recipe that references were made from reproduce the original?

References stand for what the operator's own training would have given without the forget set. If
the recipe gives models that are better or worse than the original on data that the request does not
touch, their difference from the original is a difference of recipes, and says nothing of the
forget set.

How good a classifier is, its accuracy says; of a language model it is the next-token accuracy: the
share of tokens that come first in its predictions, as a mean over texts. Unlike a loss it has a
scale on which one limit holds for all models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
import numpy.typing as npt

from unaudit.case import Candidate, Case
from unaudit.evidence import SplitName
from unaudit.views import BlackBox

MADE = "made by unaudit from the recipe"
"""The note on the provenance of a model that was made so."""
LIMIT = 0.05
"""Largest absolute gap in accuracy between the original and the mean of the retrained models at
which the recipe counts as reproducing the original. This number is ours: large enough for the luck
of seeds (five networks of one recipe lay within 0.01 of one another on 600 unseen digits), small
enough to notice a recipe that stops early or trains another way."""

Part = Literal["original", "retrained"]
COMPARED: tuple[Literal["retain", "unseen"], ...] = ("retain", "unseen")


@dataclass(frozen=True)
class Reproduction:
    """Accuracy on one split; next-token accuracy of language models."""

    split: Literal["retain", "unseen"]
    original: float
    retrained: float
    """Mean over the retrained models."""

    @property
    def gap(self) -> float:
        return abs(self.original - self.retrained)


@dataclass(frozen=True)
class Fidelity:
    """Whether the recipe reproduces the original."""

    made: tuple[Part, ...]
    """What was made from the recipe."""
    kept_classes_only: bool
    """Whether accuracies are over the classes that the request does not touch."""
    splits: tuple[Reproduction, ...]
    ok: bool
    reason: str
    """In one line, without a capital and a full stop."""
    limit: float = LIMIT


def fidelity(case: Case, view_of: Mapping[str, BlackBox]) -> Fidelity | None:
    """Compare the original with the retrained models; None if neither was made from a recipe.

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
    if not made:
        return None
    touched = _touched_classes(case)
    splits = tuple(_compared(case, view_of, case.original, touched))
    kind = "" if case.task == "classification" else "next-token "
    worst = max(splits, key=lambda compared: compared.gap)
    near = worst.gap <= LIMIT
    if len(made) == len(sides):
        reason = (
            "the original was made from the recipe as well, so the recipe was compared with "
            "itself; hand in the original with --original"
        )
    elif near:
        reason = (
            f"the recipe reproduces the original: {kind}accuracies differ by "
            f"{100 * worst.gap:.1f} points at most, {100 * LIMIT:g} are allowed"
        )
    else:
        reason = (
            f"the recipe does not reproduce the original: {worst.split} {kind}accuracy is "
            f"{worst.original:.1%} for the original and {worst.retrained:.1%} for the retrained "
            f"models, more than {100 * LIMIT:g} points apart; state in [recipe] how the original "
            "was trained, or hand in retrained models"
        )
    return Fidelity(made, bool(touched), splits, near and len(made) < len(sides), reason)


def _was_made(candidate: Candidate) -> bool:
    return MADE in candidate.model.provenance.notes


def _touched_classes(case: Case) -> tuple[int, ...]:
    """Classes that the request changes by itself; none if it is spread over all of them."""
    if case.scenario == "sample" and case.swapped is None:
        return ()
    kept = set(np.unique(case.splits["retain"].labels).tolist()) - set(case.forget_classes)
    return case.forget_classes if kept else ()


def _compared(
    case: Case, view_of: Mapping[str, BlackBox], original: Candidate, touched: tuple[int, ...]
) -> Iterator[Reproduction]:
    """One comparison for each split that has examples of other classes."""
    for name in COMPARED:
        if name not in case.splits:
            continue
        rows = ~np.isin(case.splits[name].labels, touched)
        if rows.any():
            retrained = [_accuracy(view_of[model.label], name, rows) for model in case.retrained]
            yield Reproduction(
                name, _accuracy(view_of[original.label], name, rows), fmean(retrained)
            )


def _accuracy(view: BlackBox, split: SplitName, rows: npt.NDArray[np.bool_]) -> float:
    return float(view.predictions(split).hit_rate[rows].mean())
