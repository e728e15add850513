"""l1-sparse: finetuning on the retain examples under a fading penalty on all weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.tokens import truth
from unaudit.training import Recipe, descend, shuffled
from unaudit.training.in_parts import batch_loss
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import not_negative, positive, whole
from unaudit.unlearners._pairs import inputs_of, steps
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard

TUNED = 4.4e-4
"""The penalty's weight that SURE tuned for random data on CIFAR-10 (table 3)."""
SHRINKAGE = TUNED * 0.01 / (1 - 0.9) * 158 * 5.5
"""Sum of rate × penalty over the schedule of Jia et al.: 10 epochs of 158 batches at 0.01 with
momentum 0.9, fading over 1, 0.9, … 0.1. So much (0.038) a weight loses that nothing else holds."""


@UNLEARNERS.register("l1-sparse")
@dataclass(frozen=True)
class L1Sparse:
    """Cross-entropy on the retain examples + α (1 − t/T) ‖θ‖₁ in epoch t of T, counted from 0;
    θ are all parameters, batch normalization's included."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="l1-sparse",
        title="ℓ1-sparse",
        idea=(
            "Keeps training every weight on the retain examples while a fading ℓ1 penalty "
            "shrinks what these do not need."
        ),
        source="Jia et al. 2023 (l1-sparse), linearly decreasing penalty",
        consumes=frozenset({"retain"}),
        tasks=ANY_TASK,
        deviations=(
            "Jia et al. take 10 epochs at 0.01 after 182 at 0.1; here the rate starts at the "
            "recipe's and follows its schedule.",
            "What the penalty takes from a weight grows with rate and steps; the default α keeps "
            "the total that 0.00044 (SURE, table 3) has under the schedule of Jia et al.",
        ),
    )

    lr: float | None = None
    """Initial; it follows the recipe's schedule. Default: the recipe's."""
    epochs: int | None = None
    """Default: 10/182 of the recipe's, or what makes 160 steps if that is more, at most the
    recipe's."""
    alpha: float | None = None
    """Initial weight of the penalty. Default: what takes :data:`SHRINKAGE` from a weight under SGD;
    :data:`TUNED` for Adam and AdamW, whose steps do not grow with the gradient."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        whole(self, "epochs")
        not_negative(self, "alpha")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        per_epoch = steps(task.retain_rows, task.recipe.batch)
        recipe = budget(task.recipe, per_epoch, lr=self.lr, epochs=self.epochs)
        student = task.student()
        parameters = list(student.parameters())
        alpha = default_alpha(recipe, per_epoch) if self.alpha is None else self.alpha

        def objective(batch: tuple[Tensor, float]) -> Tensor:
            rows, weight = batch
            with recipe.autocast(task.inputs.device):
                inputs = inputs_of(task, rows, generator)
                told = truth(student, inputs, task.labels[rows])
                loss = batch_loss(student, inputs, nn.functional.cross_entropy, told)
            norm = torch.stack([parameter.abs().sum() for parameter in parameters]).sum()
            return loss + weight * norm

        def batches(epoch: int) -> Iterator[tuple[Tensor, float]]:
            weight = alpha * (1 - epoch / recipe.epochs)
            for rows in shuffled(task.retain_rows, recipe.batch, generator):
                yield rows, weight

        student.train()
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                parameters,
                steps=per_epoch,
                on_epoch=lambda _: step(1),
            )
        return student.eval()


def default_alpha(recipe: Recipe, per_epoch: int) -> float:
    """The initial penalty whose sum over a run is :data:`SHRINKAGE`.

    Args:
        recipe: of the run.
        per_epoch: steps.
    """
    if recipe.kind != "sgd":
        return TUNED
    total = 0.0
    for epoch in range(recipe.epochs):
        done = (epoch + 0.5) / recipe.epochs
        rate = (1 + math.cos(math.pi * done)) / 2 if recipe.schedule == "cosine" else 1.0
        total += rate * (1 - epoch / recipe.epochs)
    return SHRINKAGE * (1 - recipe.momentum) / (recipe.lr * per_epoch * total)
