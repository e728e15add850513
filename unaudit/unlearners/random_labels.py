"""Random labels (RL): teach wrong labels of the forget examples and right ones of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.errors import InputError, UsageError
from unaudit.evidence import ANY_TASK
from unaudit.tokens import are_present, truth
from unaudit.training import descend, shuffled
from unaudit.training.in_parts import batch_loss
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, whole
from unaudit.unlearners._freezing import evaluating
from unaudit.unlearners._pairs import cycled, inputs_of, steps
from unaudit.unlearners._rows import n_outcomes
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard

Order: TypeAlias = Literal["mixed", "forget-first"]


@UNLEARNERS.register("random-labels")
@dataclass(frozen=True)
class RandomLabels:
    """Cross-entropy on forget examples with random labels and on retain examples with theirs."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="random-labels",
        title="RL",
        idea=(
            "Keeps training every weight on all examples, with wrong labels drawn for the forget "
            "examples."
        ),
        source="Golatkar et al. 2020; Graves et al. 2021 (amnesiac unlearning)",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "Labels are drawn among the wrong classes, as in the papers' text; the code of Fan et "
            "al. 2024 draws among all.",
            "Forget examples are not augmented.",
            "Of a text every token to be predicted gets a wrong one of its own, drawn evenly from "
            "the vocabulary.",
        ),
    )

    lr: float | None = None
    """Initial; it follows the recipe's schedule. Default: 0.1 × the recipe's."""
    epochs: int | None = None
    """Default: 10/182 of the recipe's, or what makes 160 steps if that is more, at most the
    recipe's."""
    order: Order = "mixed"
    """``mixed``: one shuffled pass over all examples per epoch. ``forget-first``: a pass over the
    forget examples, then one over the retain examples."""
    redraw: bool = True
    """Whether labels are drawn in each epoch, not just once."""
    true_too: bool = False
    """Whether the true label may be drawn."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        whole(self, "epochs")
        if self.order not in ("mixed", "forget-first"):
            raise UsageError(
                "unlearners.random-labels.order must be 'mixed' or 'forget-first' "
                f"(got {self.order!r:.40})"
            )

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        student = task.student()
        told = WrongTargets(task, true_too=self.true_too)
        forget, retain = task.forget_rows, task.retain_rows
        everything = torch.cat([forget, retain])
        per_epoch = steps(everything, task.recipe.batch)
        recipe = budget(task.recipe, per_epoch, lr=self.lr, epochs=self.epochs, lr_share=0.1)
        passes = cycled(forget, recipe.batch, generator)
        apart = self.order == "forget-first"

        def loss(rows: Tensor) -> Tensor:
            with recipe.autocast(task.inputs.device):
                inputs = inputs_of(task, rows, generator)
                wrong = told(student, rows, inputs)
                return batch_loss(student, inputs, nn.functional.cross_entropy, wrong)

        def objective(rows: Tensor) -> Tensor:
            # batches of forget examples alone must not turn the running statistics into theirs;
            # mixed ones have those that the original was trained with
            if apart and bool(task.forget[rows].all()):
                with evaluating(student):
                    return loss(rows)
            return loss(rows)

        def batches(epoch: int) -> Iterator[Tensor]:
            if self.redraw or epoch == 0:
                told.draw(generator)
            if apart:
                for _ in range(steps(forget, recipe.batch)):
                    yield next(passes)
                yield from shuffled(retain, recipe.batch, generator)
            else:
                yield from shuffled(everything, recipe.batch, generator)

        student.train()
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                list(student.parameters()),
                steps=per_epoch,
                on_epoch=lambda _: step(1),
            )
        return student.eval()


class WrongTargets:
    """What examples are taught: retain examples the truth, forget examples something else."""

    def __init__(self, task: Task, *, true_too: bool = False) -> None:
        """
        Args:
            task: whose forget examples they are.
            true_too: whether the truth may be drawn for them.
        """
        self._task, self._true_too = task, true_too
        self._outcomes = n_outcomes(task)
        self._told = task.labels.clone()
        # what the texts of the forget set are taught is a text as well, of the same length
        self._texts = task.inputs[task.forget_rows] if task.kind == "language-modeling" else None
        self._place = task.forget.long().cumsum(0) - 1

    def draw(self, generator: torch.Generator) -> None:
        """Draw wrong labels anew, for all forget examples.

        Raises:
            InputError: there is no other class.
        """
        forget, task = self._task.forget_rows, self._task
        true = task.labels[forget] if self._texts is None else task.inputs[forget]
        drawn = random_labels(true, self._outcomes, generator, true_too=self._true_too)
        if self._texts is None:
            self._told[forget] = drawn
        else:
            self._texts = torch.where(are_present(true), drawn, true)

    def __call__(self, network: nn.Module, rows: Tensor, inputs: Tensor) -> Tensor:
        """(rows of logits,) int64: what ``network(inputs)`` should say.

        Args:
            network: a classifier or a language model.
            rows: (b,) of the task.
            inputs: (b, …) theirs.
        """
        if self._texts is None:
            return self._told[rows]
        forget = self._task.forget[rows]
        inputs = inputs.clone()
        inputs[forget] = self._texts[self._place[rows[forget]]]
        return truth(network, inputs, self._told[rows])


def random_labels(
    labels: Tensor, n_classes: int, generator: torch.Generator, *, true_too: bool = False
) -> Tensor:
    """(n,) labels drawn evenly from all classes but the true ones, or from all.

    Args:
        labels: (n,) int64.
        n_classes: how many there are.
        generator: on the CPU.
        true_too: whether the true class may be drawn.

    Raises:
        InputError: there is no other class.
    """
    if n_classes < 2 and not true_too:
        raise InputError("random labels need at least two classes; the model has one")
    shift = torch.randint(0 if true_too else 1, n_classes, labels.shape, generator=generator)
    return (labels + shift.to(labels.device)) % n_classes
