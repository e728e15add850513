"""Saliency unlearning (SalUn): random labels, on the weights that the forget set pulls at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.tokens import truth
from unaudit.training import descend, shuffled
from unaudit.training.in_parts import batch_loss
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, share, whole
from unaudit.unlearners._pairs import inputs_of, steps
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard
from unaudit.unlearners.random_labels import WrongTargets


@UNLEARNERS.register("salun")
@dataclass(frozen=True)
class SalUn:
    """Cross-entropy on forget examples with random labels and on retain examples with theirs, over
    the weights with the largest gradient of the original's loss on the forget examples."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="salun",
        title="SalUn",
        idea=(
            "Trains the half of the weights at which the forget examples pull most, with wrong "
            "labels for those and right ones for the retain examples; the rest stays as it was."
        ),
        source="Fan et al. 2024, §4, saliency mask and random labeling",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "The paper's 10 epochs at 0.013 after 182 at 0.1 are the same shares of the recipe.",
            "Weights outside the mask keep every bit; masking their gradients alone, as in early "
            "releases, leaves them to weight decay and momentum.",
            "Labels are never the true one, as in the paper; the released code draws that too.",
            "Forget and retain examples share batches, as in the released code for CIFAR-100.",
            "Of a text every token to be predicted gets a wrong one of its own.",
            "Running statistics of batch normalization, which are no weights, move as in training.",
        ),
    )

    lr: float | None = None
    """Default: 0.13 × the recipe's."""
    epochs: int | None = None
    """Default: 10/182 of the recipe's, at least 1."""
    salient: float = 0.5
    """Share of the weights that train, over all layers together. Weights without any gradient
    never do."""

    def __post_init__(self) -> None:
        positive(self, "lr", "salient")
        whole(self, "epochs")
        share(self, "salient")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        recipe = budget(task.recipe, lr=self.lr, epochs=self.epochs, lr_share=0.13, constant=True)
        student = task.student()
        parameters = list(student.parameters())
        masks = saliency(student, task, self.salient, recipe.batch)
        before = [parameter.detach().clone() for parameter in parameters]
        everything = torch.cat([task.forget_rows, task.retain_rows])
        told = WrongTargets(task)

        def objective(rows: Tensor) -> Tensor:
            with recipe.autocast(task.inputs.device):
                inputs = inputs_of(task, rows, generator)
                wrong = told(student, rows, inputs)
                return batch_loss(student, inputs, nn.functional.cross_entropy, wrong)

        def batches(_: int) -> Iterator[Tensor]:
            told.draw(generator)
            return shuffled(everything, recipe.batch, generator)

        @torch.no_grad()
        def put_back() -> None:
            for parameter, mask, value in zip(parameters, masks, before, strict=True):
                parameter.copy_(torch.where(mask, parameter, value))

        student.train()
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                parameters,
                steps=steps(everything, recipe.batch),
                after_step=put_back,
                on_epoch=lambda _: step(1),
            )
        return student.eval()


def saliency(module: nn.Module, task: Task, most: float, batch: int) -> list[Tensor]:
    """For each parameter, in its shape, which of its entries have one of the largest gradients.

    Args:
        module: in eval mode: the gradient is that of the model as it is used.
        task: of which the forget examples are taken, all at once as far as the result goes.
        most: share of the entries of all parameters.
        batch: examples per pass.
    """
    parameters = list(module.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    sums = partial(nn.functional.cross_entropy, reduction="sum")
    for rows in task.forget_rows.split(batch):
        inputs = task.inputs[rows]
        told = truth(module, inputs, task.labels[rows])
        loss = batch_loss(module, inputs, sums, told, total=True)
        for part, gradient in zip(
            total,
            torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True),
            strict=True,
        ):
            part += gradient
    size = torch.cat([part.abs().flatten() for part in total])
    # the largest by rank: a threshold at their median would let everything pass where more than
    # half of the gradients are 0
    chosen = torch.zeros_like(size, dtype=torch.bool)
    chosen[size.topk(round(most * len(size))).indices] = True
    chosen &= size > 0
    parts = chosen.split([parameter.numel() for parameter in parameters])
    return [part.view_as(weight) for part, weight in zip(parts, parameters, strict=True)]
