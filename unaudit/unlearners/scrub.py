"""SCRUB: disobey the original on the forget set, obey it on the rest (Kurmanji et al. 2023)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.evidence import ANY_TASK
from unaudit.tokens import predicts_tokens, truth
from unaudit.training import Recipe, descend
from unaudit.training.in_parts import batch_loss
from unaudit.training.likelihood import by_rows, per_text
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import not_negative, positive, whole
from unaudit.unlearners._losses import distillation
from unaudit.unlearners._pairs import cycled, inputs_of, steps
from unaudit.unlearners._rows import at_once
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard

Batch: TypeAlias = tuple[bool, Tensor]
"""Whether it is one of forget examples, and the (b,) rows."""
Checkpoint: TypeAlias = tuple[float, dict[str, Any]]
"""Forget error after an epoch, in [0, 1], and the weights."""

EVALUATION_BATCH = 1024


@UNLEARNERS.register("scrub")
@dataclass(frozen=True)
class Scrub:
    """The first epochs begin with a pass over the forget examples that maximizes the KL from the
    original; each ends with one over the retain examples that minimizes α KL + γ cross-entropy."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="scrub",
        title="SCRUB",
        idea=(
            "Alternates between leaving the original's outputs on the forget examples and "
            "following them, with the labels, on the retain examples, over all weights."
        ),
        source="Kurmanji et al. 2023, equation 3 and algorithm 1; SCRUB+R: rewind",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "Weights of the losses and temperature are those of the paper's large networks; its "
            "rate of 5e-4 does nothing in the few steps of small data, and 10/60 of the recipe's "
            "epochs at 0.1 × its rate do.",
            "Batches of a pass are of equal size; one of a single example is normalized by the "
            "running statistics, as it has none of its own.",
            "With rewind, classes of validation examples are weighted as in the forget set; the "
            "paper draws a subset. Validation examples are looked at then, and only then.",
        ),
    )

    lr: float | None = None
    """Default: 0.1 × the recipe's."""
    epochs: int | None = None
    """Default: 1/6 of the recipe's, at least 1."""
    max_epochs: int | None = None
    """Epochs, the first ones, that begin with a maximizing pass. Default: 3/10 of them where whole
    classes go, as in the paper, else half of them, rounded up."""
    alpha: float = 0.001
    """Weight of the KL on retain examples."""
    gamma: float = 0.99
    """Weight of the cross-entropy on retain examples."""
    temperature: float = 4.0
    """Of teacher and student in the KL."""
    forget_batch: int | None = None
    """Examples of a maximizing step. Default: the recipe's batch."""
    rewind: bool = False
    """SCRUB+R: take the epoch after which the error on the forget examples was nearest to the
    final error on validation examples of the same classes. Needs validation examples."""

    def __post_init__(self) -> None:
        positive(self, "lr", "temperature")
        whole(self, "epochs", "forget_batch")
        whole(self, "max_epochs", least=0)
        not_negative(self, "alpha", "gamma")
        if self.rewind:
            # of this instance alone: it looks at one more set
            card = replace(self.card, consumes=self.card.consumes | {"validation"})
            object.__setattr__(self, "card", card)

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        recipe = budget(
            task.recipe,
            lr=self.lr,
            epochs=self.epochs,
            lr_share=0.1,
            epochs_share=1 / 6,
            constant=True,
        )
        student, teacher = task.student(), task.teacher()
        shares = _class_shares(task) if self.rewind else None
        history: list[Checkpoint] = []

        def left(logits: Tensor, original: Tensor, _: Tensor) -> Tensor:
            return -distillation(logits, original, self.temperature)

        def followed(logits: Tensor, original: Tensor, told: Tensor) -> Tensor:
            divergence = distillation(logits, original, self.temperature)
            loss = nn.functional.cross_entropy(logits, told)
            return self.alpha * divergence + self.gamma * loss

        def objective(batch: Batch) -> Tensor:
            forget, rows = batch
            # train mode in both passes, as in the released code. Without batch statistics or
            # dropout the student would begin where the KL has its minimum and its gradient is 0
            student.train(len(rows) > 1)
            inputs = inputs_of(task, rows, generator)
            told = truth(student, inputs, task.labels[rows])
            with recipe.autocast(inputs.device):
                loss = left if forget else followed
                return batch_loss(student, inputs, loss, teacher, told)

        def on_epoch(_: int) -> None:
            step(1)
            if self.rewind:
                wrong = _wrong(student, task, (task.inputs, task.labels), task.forget_rows)
                history.append((float(wrong.mean()), copy.deepcopy(student.state_dict())))

        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                lambda epoch: self._passes(task, recipe, epoch, generator),
                recipe,
                list(student.parameters()),
                steps=steps(task.retain_rows, recipe.batch),
                on_epoch=on_epoch,
            )
        if shares is not None:
            _rewind(student, task, shares, history)
        return student.eval()

    def _passes(
        self, task: Task, recipe: Recipe, epoch: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        share = 0.3 if task.scenario == "class" else 0.5
        default = math.ceil(share * recipe.epochs)
        if epoch < (default if self.max_epochs is None else self.max_epochs):
            size = recipe.batch if self.forget_batch is None else self.forget_batch
            yield from ((True, rows) for rows in _one_pass(task.forget_rows, size, generator))
        # last, so that every epoch ends with what is to be kept
        yield from ((False, rows) for rows in _one_pass(task.retain_rows, recipe.batch, generator))


def _one_pass(rows: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    return islice(cycled(rows, batch, generator), steps(rows, batch))


def _rewind(student: nn.Module, task: Task, shares: Tensor, history: list[Checkpoint]) -> None:
    """Put back the weights of the epoch whose forget error was nearest to the final validation
    error; of equals the last, which was repaired most."""
    inputs, labels = task.need_validation("scrub with rewind")
    everyone = torch.arange(len(labels), device=labels.device)
    wrong = _wrong(student, task, (inputs, labels), everyone)
    wanted = float((wrong * shares[labels]).sum())
    nearest = min(reversed(history), key=lambda checkpoint: abs(checkpoint[0] - wanted))
    student.load_state_dict(nearest[1])


def _class_shares(task: Task) -> Tensor:
    """(C,) weight of one validation example by its class; those of all examples sum to 1.

    Raises:
        InputError: there are no validation examples of a class of the forget set.
    """
    _, labels = task.need_validation("scrub with rewind")
    wanted = task.labels[task.forget].bincount(minlength=task.n_classes)
    there = labels.bincount(minlength=task.n_classes)
    absent = ((wanted > 0) & (there == 0)).nonzero().flatten().tolist()
    if absent:
        raise InputError(
            f"scrub with rewind needs validation examples of class {absent[0]}, which the forget "
            "set has; add some to --validation or unset rewind"
        )
    return wanted.double() / wanted.sum() / there.clamp(min=1)


def _wrong(module: nn.Module, task: Task, data: tuple[Tensor, Tensor], rows: Tensor) -> Tensor:
    """(n,) float64, 1 where a row is misclassified, or the share of a text's tokens that are not
    the most probable ones; in eval mode."""
    module.eval()
    inputs, labels = data
    found = []
    for part in rows.split(at_once(task, EVALUATION_BATCH)):
        batch = inputs[part]
        wrong = by_rows(module, batch, labels[part], _missed).double()
        if predicts_tokens(module):
            reads: Any = module
            wrong = per_text(wrong, reads.counts(batch))
        found.append(wrong)
    return torch.cat(found)


def _missed(logits: Tensor, truths: Tensor) -> Tensor:
    return logits.argmax(dim=1) != truths
