"""Retraining: exact unlearning, and the yardstick of every other method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unaudit.evidence import ANY_TASK
from unaudit.training import fit, initialize
from unaudit.unlearners._freezing import on_cpu
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("retrain")
@dataclass(frozen=True)
class Retrain:
    """The recipe itself, from fresh weights, on the retain examples alone; from those that the
    original was trained from, if it was from any."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="retrain",
        title="Retrain",
        idea=(
            "Draws every weight anew and trains on the retain examples by the original's recipe: "
            "the result never depended on the forget set."
        ),
        source="Cao & Yang 2015; Bourtoule et al. 2021 (SISA), §II",
        consumes=frozenset({"retain"}),
        tasks=ANY_TASK,
        exact=True,
    )

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        student = task.student()
        # of the original only the architecture is left, and buffers that are no statistics
        with on_cpu(student):
            initialize(student, generator, task.base())
        with task.progress.stage(self.card.name, task.recipe.epochs) as step:
            return fit(
                student,
                task.inputs,
                task.labels,
                task.recipe,
                generator,
                rows=task.retain_rows,
                augment=task.augment,
                on_epoch=lambda _: step(1),
            )
