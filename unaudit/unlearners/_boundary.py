"""Boundary unlearning (Chen et al. 2023): what shrinking and expanding have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.training import Recipe, descend
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, whole
from unaudit.unlearners._pairs import cycled, steps
from unaudit.unlearners.contract import Task, UnlearnerCard

STEPS = 780
"""Of the paper: 10 epochs of 5,000 images in batches of 64."""

Judge: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(b,) forget rows → the loss and the (b, C) logits."""

DEVIATIONS = (
    "Ends with the first pass in which no forget example was given its true class; the paper "
    "always takes 10 epochs at 1e-5, which do nothing to one network and wreck another.",
    "Batch normalization stays in eval mode; the released code trains in train mode, where forget "
    "examples alone would turn the running statistics into theirs.",
    "The paper unlearns whole classes; scattered examples are refused, as nothing would hold the "
    "others of their classes.",
)


@dataclass(frozen=True)
class BoundaryShift:
    """Train all weights on the forget examples alone, with labels that are not theirs."""

    card: ClassVar[UnlearnerCard]
    lr_share: ClassVar[float]
    """Of the recipe's learning rate."""

    lr: float | None = None
    """Default: 0.001 × the recipe's to shrink, 0.01 × to expand."""
    epochs: int | None = None
    """Passes over the forget examples at most. Default: what makes 780 steps, as in the paper."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        whole(self, "epochs")

    def _recipe(self, task: Task) -> Recipe:
        epochs = self.epochs
        if epochs is None:
            epochs = -(-STEPS // steps(task.forget_rows, task.recipe.batch))
        return budget(task.recipe, lr=self.lr, epochs=epochs, lr_share=self.lr_share, constant=True)

    def _shift(
        self,
        task: Task,
        judge: Judge,
        parameters: Iterable[nn.Parameter],
        generator: torch.Generator,
    ) -> None:
        """Descend on the forget examples until none is given its true class.

        Args:
            judge: loss and logits of a batch; modes are the caller's.
            parameters: what is trained.

        Raises:
            DivergedError: the loss became NaN or infinite.
        """
        recipe = self._recipe(task)
        per_epoch = steps(task.forget_rows, recipe.batch)
        passes = cycled(task.forget_rows, recipe.batch, generator)
        known = True

        def objective(rows: Tensor) -> Tensor:
            nonlocal known
            with recipe.autocast(task.inputs.device):
                loss, logits = judge(rows)
            known = known or bool((logits.argmax(dim=1) == task.labels[rows]).any())
            return loss

        def batches(_: int) -> Iterator[Tensor]:
            nonlocal known
            if known:
                known = False
                yield from islice(passes, per_epoch)

        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                list(parameters),
                steps=per_epoch,
                on_epoch=lambda _: step(1),
            )
