"""What it will cost to make the models of a plan on this machine, before any of them is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from unaudit.engine.jobs import Job
from unaudit.engine.local import LocalProcesses
from unaudit.engine.store import Store
from unaudit.shadows.job import BATCH, layout_of, network
from unaudit.shadows.stacked import TOGETHER
from unaudit.training import Recipe, n_batches
from unaudit.training.augment import AUGMENTATIONS
from unaudit.training.pace import (
    BACKWARD,
    Specimen,
    asked,
    forward_operations,
    trained_alone,
    trained_stacked,
)
from unaudit.training.together import FEWEST, worth_stacking
from unaudit.unlearners import load_unlearners
from unaudit.unlearners._budget import budget
from unaudit.workshop import Workshop

Kind: TypeAlias = Literal["original", "retrained model", "calibrator", "shadow model"]

START = 3.0
"""Seconds in which a worker process starts."""
SHARES: Mapping[str, float] = {"eu-k": 1.0, "cf-k": 30 / 62, "bad-teacher": 1 / 6, "scrub": 1 / 6}
"""Epochs, as a share of the recipe's, of unlearners that take many more than the others."""

TIMINGS: Mapping[str, Callable[..., float]] = {
    "alone": trained_alone,
    "crew": trained_alone,
    "stacked": trained_stacked,
    "asked": asked,
}


@dataclass(frozen=True)
class Effort:
    """Examples that pass through the network, every time that they do."""

    trained: int = 0
    """In training from scratch, which stacks can share."""
    unlearned: int = 0
    """In training steps of unlearners, which always stand alone."""
    asked: int = 0
    """In forward passes."""

    def __mul__(self, count: int) -> Effort:
        return Effort(self.trained * count, self.unlearned * count, self.asked * count)

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.trained + other.trained,
            self.unlearned + other.unlearned,
            self.asked + other.asked,
        )


@dataclass(frozen=True)
class Lot:
    """Models of one kind, which are made together."""

    kind: Kind
    missing: int
    """How many are made."""
    stored: int
    """How many the store holds."""
    effort: Effort
    """Of all that are made."""


@dataclass(frozen=True)
class Cost:
    """Of all models that a plan asks for."""

    lots: tuple[Lot, ...]
    seconds: float
    """On this machine, roughly."""
    operations: int | None
    """Floating-point operations; None: torch knows none of the network's."""
    forward: int | None
    """The same of one forward pass of one example; None also where nothing is to be made."""

    @property
    def missing(self) -> int:
        return sum(lot.missing for lot in self.lots)

    @property
    def stored(self) -> int:
        return sum(lot.stored for lot in self.lots)

    @property
    def effort(self) -> Effort:
        return sum((lot.effort for lot in self.lots), Effort())


class Estimator:
    """Knows how fast the models of a workshop are made; times what it is asked for, once."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._recipe: Recipe = workshop.setting.recipe
        others = workshop.executor.others
        # a cluster's pace is not known; what is told is that of this machine alone
        here = others if isinstance(others, LocalProcesses) else LocalProcesses.for_machine()
        self._crew = here if workshop.device == "cpu" else LocalProcesses(1)
        self._known: dict[tuple[str, Kind], float] = {}

    def cost(self, lots: Sequence[Lot]) -> Cost:
        """Of all lots, one after the other."""
        made = [lot for lot in lots if lot.missing]
        seconds = sum(self.seconds(lot) for lot in made)
        forward = self.forward if made else None
        total = sum((lot.effort for lot in made), Effort())
        passes = (total.trained + total.unlearned) * (1 + BACKWARD) + total.asked
        return Cost(tuple(lots), seconds, None if forward is None else passes * forward, forward)

    def seconds(self, lot: Lot) -> float:
        """Wall time of a lot.

        Raises:
            InputError: the network cannot be trained on the inputs.
        """
        if not lot.missing:
            return 0.0
        effort, kind = lot.effort, lot.kind
        questions = effort.asked * self._once("asked", kind, BATCH) if effort.asked else 0.0
        if self._stacks(lot):
            members = min(lot.missing, TOGETHER)
            together = effort.trained * self._once("stacked", kind, members)
            alone = effort.unlearned * self._once("alone", kind) if effort.unlearned else 0.0
            return together + alone + questions
        workers = min(self._crew.workers, lot.missing)
        if workers == 1:
            return (effort.trained + effort.unlearned) * self._once("alone", kind) + questions
        pace = self._once("crew", kind, workers, self._crew.threads)
        steps = (effort.trained + effort.unlearned) * pace
        # the last ones may leave workers idle
        turns = -(-lot.missing // workers)
        return START + (steps + questions) / lot.missing * turns

    @cached_property
    def forward(self) -> int | None:
        """Floating-point operations of a forward pass of one example."""
        return forward_operations(self._specimen)

    def _stacks(self, lot: Lot) -> bool:
        """Whether :class:`unaudit.training.together.Together` stacks them."""
        alike = lot.kind in ("retrained model", "shadow model")
        return alike and lot.missing >= FEWEST and self._stackable

    @cached_property
    def _stackable(self) -> bool:
        if self._workshop.device != "cpu":
            return False
        specimen = self._specimen
        labels = torch.zeros(len(specimen.inputs), dtype=torch.int64)
        return worth_stacking(specimen.build, specimen.inputs, labels, self._recipe)

    def _once(self, what: str, kind: Kind, *arguments: int) -> float:
        """Seconds per example, timed when first asked for; that lots differ in size is no reason to
        do it again."""
        if (what, kind) not in self._known:
            specimen = self._laid_out if kind == "shadow model" else self._specimen
            self._known[what, kind] = TIMINGS[what](specimen, *arguments)
        return self._known[what, kind]

    @cached_property
    def _specimen(self) -> Specimen:
        """As references are trained."""
        return self._as_laid_out(torch.contiguous_format)

    @cached_property
    def _laid_out(self) -> Specimen:
        """As shadow models are trained."""
        specimen = self._specimen
        return self._as_laid_out(layout_of(specimen.build(), specimen.inputs[:2]))

    def _as_laid_out(self, layout: torch.memory_format) -> Specimen:
        workshop, world = self._workshop, self._workshop.world()
        return Specimen(
            build=lambda: network(world),
            inputs=self._examples,
            recipe=self._recipe,
            device=torch.device(workshop.device),
            augment=AUGMENTATIONS[workshop.setting.augment],
            layout=layout,
        )

    @cached_property
    def _examples(self) -> torch.Tensor:
        train = self._workshop.train
        count = min(self._recipe.batch, len(train))
        (inputs,) = train.batches(np.arange(count, dtype=np.int64), count)
        return inputs


def lot_of(kind: Kind, held: Sequence[bool], efforts: Sequence[Effort]) -> Lot:
    """Models, of which the store holds some.

    Args:
        kind: of all of them.
        held: (m,) whether the store holds the model.
        efforts: (m,) what it takes to make it.
    """
    lacking = [effort for effort, there in zip(efforts, held, strict=True) if not there]
    return Lot(kind, len(lacking), sum(held), sum(lacking, Effort()))


def held_by(store: Store, jobs: Sequence[Job]) -> list[bool]:
    """(m,) whether the store holds the result of each job, whole or damaged; nothing is read."""
    return [store.holds(job.key) for job in jobs]


def unlearning(name: str, parameters: Mapping[str, Any], recipe: Recipe, trained: int) -> int:
    """Examples that pass in training steps of an unlearner, as far as its epochs tell.

    Counted like most: every epoch takes all training examples, and there are as many as fine-tuning
    takes if nothing else is known. Methods that train the last layer only, or look at the forget
    set alone, take less.

    Args:
        name: of the unlearner.
        parameters: its hyperparameters that are set.
        recipe: of the original.
        trained: examples that the model was trained on.
    """
    if load_unlearners().get(name).card.exact:
        return recipe.epochs * trained
    stated = parameters.get("epochs")
    epochs = stated if isinstance(stated, int) else None
    if name in SHARES:
        short = budget(recipe, lr=None, epochs=epochs, epochs_share=SHARES[name])
    else:
        short = budget(recipe, n_batches(trained, recipe.batch), lr=None, epochs=epochs)
    return short.epochs * trained


def duration(seconds: float) -> str:
    """How long, as people say it: ``3 s``, ``12 min``, ``2.5 h``, ``3 days``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"
