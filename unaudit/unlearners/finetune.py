"""Finetuning (FT): keep training the original on the retain examples alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unaudit.evidence import ANY_TASK
from unaudit.training import fit, n_batches
from unaudit.unlearners._budget import budget
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("finetune")
@dataclass(frozen=True)
class Finetune:
    """Cross-entropy on the retain examples, over all weights."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="finetune",
        title="FT",
        idea="Keeps training every weight on the retain examples and hopes that the rest fades.",
        source="Warnecke et al. 2023; Jia et al. 2023 (l1-sparse), baseline FT",
        consumes=frozenset({"retain"}),
        tasks=ANY_TASK,
        deviations=(
            "Jia et al. train 182 epochs at 0.1 and finetune 10 at 0.01; the shares of the "
            "original's own recipe are the same here, with a least number of steps.",
        ),
    )

    lr: float | None = None
    """Default: 0.1 × the recipe's."""
    epochs: int | None = None
    """Default: 10/182 of the recipe's, or as many as make 160 steps, at most the recipe's."""

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        per_epoch = n_batches(len(task.retain_rows), task.recipe.batch)
        recipe = budget(task.recipe, per_epoch, lr=self.lr, epochs=self.epochs, lr_share=0.1)
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            return fit(
                task.student(),
                task.inputs,
                task.labels,
                recipe,
                generator,
                rows=task.retain_rows,
                augment=task.augment,
                on_epoch=lambda _: step(1),
            )
