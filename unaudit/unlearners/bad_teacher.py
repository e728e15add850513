"""Bad teaching (Bad-T): learn from a fool on the forget set, from the original on the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.training import descend, initialize, shuffled
from unaudit.training.in_parts import batch_loss
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, share, whole
from unaudit.unlearners._freezing import on_cpu
from unaudit.unlearners._losses import distillation
from unaudit.unlearners._pairs import inputs_of, steps
from unaudit.unlearners._rows import of_rows
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("bad-teacher")
@dataclass(frozen=True)
class BadTeacher:
    """KL from a network of fresh random weights on the forget examples and from the original on
    some of the retain examples, in mixed batches, over all weights."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="bad-teacher",
        title="Bad-T",
        idea=(
            "Distills into one student a randomly initialized network on the forget examples and "
            "the original on a part of the retain examples."
        ),
        source="Chundawat et al. 2023 (bad teaching), unlearning loss with both teachers",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "The paper takes 1 epoch of Adam at 1e-4 on 20,000 images; the recipe's own optimizer "
            "at 0.03 × its rate, for a sixth of its epochs, shows on small data too.",
            "The divergence is summed over the classes; the released loss takes the mean over "
            "them, which divides the learning rate by their number.",
            "Student and teachers stay in eval mode, as in the released loop, which never leaves "
            "it: batches hold other shares of the classes than the data, and a moving "
            "normalization would take those for the truth.",
        ),
    )

    lr: float | None = None
    """Default: 0.03 × the recipe's."""
    epochs: int | None = None
    """Default: 1/6 of the recipe's, at least 1."""
    temperature: float = 1.0
    """Of both teachers and the student."""
    retain_share: float = 0.3
    """Of the retain examples, drawn once; at least one is taken."""

    def __post_init__(self) -> None:
        positive(self, "lr", "temperature")
        whole(self, "epochs")
        share(self, "retain_share")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        recipe = budget(
            task.recipe,
            lr=self.lr,
            epochs=self.epochs,
            lr_share=0.03,
            epochs_share=1 / 6,
            constant=True,
        )
        student, good, bad = task.student(), task.teacher(), task.teacher()
        with on_cpu(bad):
            initialize(bad, generator)
        rows = torch.cat([task.forget_rows, self._kept(task, generator)])

        def loss(student: Tensor, bad: Tensor, good: Tensor, foolish: Tensor) -> Tensor:
            return distillation(student, torch.where(foolish, bad, good), self.temperature)

        def objective(chosen: Tensor) -> Tensor:
            inputs = inputs_of(task, chosen, generator)
            foolish = of_rows(student, inputs, task.forget[chosen]).unsqueeze(1)
            with recipe.autocast(inputs.device):
                return batch_loss(student, inputs, loss, bad, good, foolish)

        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                lambda _: shuffled(rows, recipe.batch, generator),
                recipe,
                list(student.parameters()),
                steps=steps(rows, recipe.batch),
                on_epoch=lambda _: step(1),
            )
        return student

    def _kept(self, task: Task, generator: torch.Generator) -> Tensor:
        rows = task.retain_rows
        count = max(1, round(self.retain_share * len(rows)))
        return rows[torch.randperm(len(rows), generator=generator)[:count]]
