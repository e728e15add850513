"""Catastrophic forgetting of the last k layers (CF-k): finetune them, freeze the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unaudit.evidence import ANY_TASK
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, whole
from unaudit.unlearners._freezing import fit_part, last_layers
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("cf-k")
@dataclass(frozen=True)
class CatastrophicForgettingK:
    """Cross-entropy on the retain examples, over the last k convolution and linear layers."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="cf-k",
        title="CF-k",
        idea=(
            "Keeps training the last k convolution and linear layers on the retain examples; the "
            "layers before them are frozen."
        ),
        source="Goel et al. 2022, CF-k",
        consumes=frozenset({"retain"}),
        tasks=ANY_TASK,
        deviations=(
            "The default number of layers is a share of the network's; papers give absolute ones, "
            "such as IDI's 5 and 10 of ResNet-18's 21.",
            "The authors' script finetunes for 30 of 62 epochs with warm restarts of the rate; "
            "here the recipe's schedule runs once.",
            "Frozen layers stay in eval mode; in the authors' code their running statistics move.",
        ),
    )

    k: int | None = None
    """Convolution and linear layers that train, counted from the end, shortcuts included.
    Default: 10/21 of them, rounded up."""
    lr: float | None = None
    """Initial; it follows the recipe's schedule. Default: the recipe's."""
    epochs: int | None = None
    """Default: 30/62 of the recipe's, at least 1."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        whole(self, "k", "epochs")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        recipe = budget(task.recipe, lr=self.lr, epochs=self.epochs, epochs_share=30 / 62)
        student = task.student()
        part = last_layers(student, self.k, task, self.card.name)
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            return fit_part(student, part, task, recipe, generator, on_epoch=lambda _: step(1))
