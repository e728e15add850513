"""Exact unlearning of the last k layers (EU-k): retrain them from scratch, freeze the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unaudit.evidence import ANY_TASK
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, whole
from unaudit.unlearners._freezing import draw_anew, fit_part, last_layers
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("eu-k")
@dataclass(frozen=True)
class ExactUnlearningK:
    """Fresh weights for the last k convolution and linear layers, trained on the retain
    examples; normalization among them trains on from where it is."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="eu-k",
        title="EU-k",
        idea=(
            "Draws the last k convolution and linear layers anew and trains them on the retain "
            "examples by the original's recipe; the layers before them are frozen."
        ),
        source="Goel et al. 2022, EU-k",
        consumes=frozenset({"retain"}),
        tasks=ANY_TASK,
        deviations=(
            "The default number of layers is a share of the network's; papers give absolute ones, "
            "such as IDI's 5 and 10 of ResNet-18's 21.",
            "Frozen layers stay in eval mode; in the authors' code their running statistics move.",
        ),
    )

    k: int | None = None
    """Convolution and linear layers that are drawn anew, counted from the end, shortcuts
    included. Default: 10/21 of them, rounded up."""
    lr: float | None = None
    """Initial; it follows the recipe's schedule. Default: the recipe's."""
    epochs: int | None = None
    """Default: the recipe's."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        whole(self, "k", "epochs")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        recipe = budget(task.recipe, lr=self.lr, epochs=self.epochs, epochs_share=1.0)
        student = task.student()
        part = last_layers(student, self.k, task, self.card.name)
        draw_anew(part, generator)
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            return fit_part(student, part, task, recipe, generator, on_epoch=lambda _: step(1))
