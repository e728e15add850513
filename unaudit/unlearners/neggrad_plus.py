"""NegGrad+: climb the loss of the forget examples, held by the retain examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.tokens import truth
from unaudit.training import descend
from unaudit.training.in_parts import batch_loss
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, share, whole
from unaudit.unlearners._freezing import evaluating
from unaudit.unlearners._losses import bounded
from unaudit.unlearners._pairs import Pair, inputs_of, paired, steps
from unaudit.unlearners._rows import n_outcomes
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("neggrad-plus")
@dataclass(frozen=True)
class NegGradPlus:
    """α · cross-entropy of retain examples − (1 − α) · cross-entropy of forget examples; of texts,
    per token."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="neggrad-plus",
        title="NegGrad+",
        idea=(
            "Descends on retain examples and ascends on forget examples in every step, over all "
            "weights."
        ),
        source="Kurmanji et al. 2023 (SCRUB), §4, NegGrad+",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "The ascent of each example ends at the loss of a uniform guess: without a bound a "
            "few steps more or less decide between nothing and collapse.",
            "Kurmanji et al. take 10 epochs at 0.01; here the rate starts at the recipe's and "
            "follows its schedule.",
            "Their code passes both batches in train mode; here forget batches pass in eval mode "
            "and leave the running statistics to the retain examples. They are not augmented.",
        ),
    )

    lr: float | None = None
    """Initial; it follows the recipe's schedule. Default: the recipe's."""
    epochs: int | None = None
    """Passes over the retain examples. Default: 10/182 of the recipe's, or what makes 160 steps if
    that is more, at most the recipe's."""
    alpha: float = 0.95
    """Weight of the retain loss; the ascent has 1 − α."""
    ceiling: float | None = None
    """Loss of a forget example, or of a token of one, in nats, above which it is not climbed any
    further; a large number never ends the ascent. Default: that of a uniform guess, ln C."""
    forget_batch: int | None = None
    """Forget examples of a step. Default: the recipe's batch, at most all."""

    def __post_init__(self) -> None:
        positive(self, "lr", "ceiling")
        whole(self, "epochs", "forget_batch")
        share(self, "alpha")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        per_epoch = steps(task.retain_rows, task.recipe.batch)
        recipe = budget(task.recipe, per_epoch, lr=self.lr, epochs=self.epochs)
        student = task.student()

        ceiling = math.log(n_outcomes(task)) if self.ceiling is None else self.ceiling

        def mean(rows: Tensor, ceiling: float) -> Tensor:
            with recipe.autocast(task.inputs.device):
                inputs = inputs_of(task, rows, generator)
                told = truth(student, inputs, task.labels[rows])
                return batch_loss(student, inputs, partial(bounded, ceiling=ceiling), told)

        def objective(pair: Pair) -> Tensor:
            retain, forget = pair
            kept = mean(retain, math.inf)
            # batch normalization: the running statistics become those of the retain examples, and
            # what is climbed is the loss of the model as it will be used
            with evaluating(student):
                forgotten = mean(forget, ceiling)
            return self.alpha * kept - (1 - self.alpha) * forgotten

        student.train()
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                lambda _: paired(
                    task.retain_rows,
                    task.forget_rows,
                    recipe.batch,
                    generator,
                    forget_batch=self.forget_batch,
                ),
                recipe,
                list(student.parameters()),
                steps=per_epoch,
                on_epoch=lambda _: step(1),
            )
        return student.eval()
