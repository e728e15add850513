"""Gradient ascent (GA): climb the loss of the forget examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.tokens import truth
from unaudit.training import descend
from unaudit.training.in_parts import batch_loss
from unaudit.training.likelihood import mean_log_p
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, whole
from unaudit.unlearners._pairs import cycled, steps
from unaudit.unlearners._rows import at_once, n_outcomes
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard

MOST = 1000
"""Steps within which the ascent is expected to end; it took 30 to 300 on small data."""


@UNLEARNERS.register("gradient-ascent")
@dataclass(frozen=True)
class GradientAscent:
    """Minus cross-entropy on the forget examples, over all weights, until it is high enough."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="gradient-ascent",
        title="GA",
        idea=(
            "Climbs the loss of the forget examples over all weights, with nothing to hold the "
            "others."
        ),
        source="Thudi et al. 2022; Jia et al. 2023 (l1-sparse), baseline GA",
        consumes=frozenset({"forget"}),
        tasks=ANY_TASK,
        deviations=(
            "Jia et al. climb 5 epochs at 0.001 × the rate of training. The loss grows "
            "exponentially, so that a fixed number of steps does nothing on one problem and wrecks "
            "the model on the next; here the ascent ends at a loss, which no paper prints.",
            "Batch normalization stays in eval mode: batches of forget examples alone would turn "
            "the running statistics into theirs. Nothing is augmented.",
        ),
    )

    lr: float | None = None
    """Default: 0.01 × the recipe's."""
    epochs: int | None = None
    """Passes over the forget examples at most. Default: the recipe's, or what makes 1,000 steps if
    that is more."""
    stop: float | None = None
    """The ascent ends when a batch has this mean loss, in nats; a large number never ends it.
    Default: ln C, that of a uniform guess, where whole classes go, else a tenth of it: the others
    of their classes are to stay. Texts are not without loss before: there the whole way, or a tenth
    of it, from the original's mean loss per token on the forget texts to ln C."""

    def __post_init__(self) -> None:
        positive(self, "lr", "stop")
        whole(self, "epochs")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        forget = task.forget_rows
        per_epoch = steps(forget, task.recipe.batch)
        most = max(task.recipe.epochs, -(-MOST // per_epoch))
        epochs = self.epochs or most
        recipe = budget(task.recipe, lr=self.lr, epochs=epochs, lr_share=0.01, constant=True)
        stop = self._end(task)
        student = task.student()  # in eval mode, and it stays there: see the card
        passes = cycled(forget, recipe.batch, generator)
        parameters = list(student.parameters())
        kept: list[Tensor] = []

        def objective(rows: Tensor) -> Tensor:
            with recipe.autocast(task.inputs.device):
                inputs = task.inputs[rows]
                told = truth(student, inputs, task.labels[rows])
                loss = batch_loss(student, inputs, nn.functional.cross_entropy, told)
            if loss.item() >= stop(rows):
                kept.extend(parameter.detach().clone() for parameter in parameters)
            return -loss

        def after_step() -> None:
            # by now a single step may multiply the loss: the weights found high enough are kept
            with torch.no_grad():
                for parameter, value in zip(parameters, kept, strict=bool(kept)):
                    parameter.copy_(value)

        def batches(_: int) -> Iterator[Tensor]:
            for _ in range(per_epoch):
                if kept:
                    return
                yield next(passes)

        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                parameters,
                steps=per_epoch,
                after_step=after_step,
                on_epoch=lambda _: step(1),
            )
        return student

    def _end(self, task: Task) -> Callable[[Tensor], float]:
        """The mean loss of some rows at which the ascent ends."""
        given = self.stop
        if given is not None:
            return lambda _: given
        uniform, by_class = math.log(n_outcomes(task)), task.scenario == "class"
        if task.kind == "classification":
            default = uniform if by_class else uniform / 10
            return lambda _: default
        # no text is without loss, and some have more than others: what counts is the rise
        reads: Any = task.original
        losses, counts = (torch.zeros(len(task.inputs), dtype=torch.float64) for _ in range(2))
        for rows in task.forget_rows.split(at_once(task, task.recipe.batch)):
            counts[rows] = reads.counts(task.inputs[rows]).cpu().double()
            losses[rows] = -mean_log_p(task.original, task.inputs[rows]) * counts[rows]
        before = float(losses.sum() / counts.sum())
        rise = max(uniform - before, 0.0) * (1.0 if by_class else 0.1)
        return lambda rows: float(losses[rows].sum() / counts[rows].sum()) + rise
