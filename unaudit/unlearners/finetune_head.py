"""Finetuning the head alone: an encoder that forgets nothing, by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.training import fit
from unaudit.unlearners._budget import budget
from unaudit.unlearners._features import encode
from unaudit.unlearners._fields import positive, whole
from unaudit.unlearners._freezing import fit_part
from unaudit.unlearners._pairs import steps
from unaudit.unlearners._rows import own_head
from unaudit.unlearners.contract import (
    UNLEARNERS,
    Task,
    UnlearnerCard,
    features_and_logits,
)

BATCH = 1024
"""Examples per forward pass when features are computed."""
TOLERANCE = 1e-4
"""How far the head's output may be from the logits, relative to the largest."""


@UNLEARNERS.register("finetune-head")
@dataclass(frozen=True)
class FinetuneHead:
    """Cross-entropy on the retain examples, over the last linear layer."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="finetune-head",
        title="FT-head",
        idea=(
            "Keeps training the last layer on the retain examples; the encoder, batch "
            "normalization included, stays the original's bit for bit."
        ),
        source="MUDA, appendix, table A (classifier-only finetuning)",
        consumes=frozenset({"retain"}),
        tasks=ANY_TASK,
        deviations=(
            "The paper prints neither rate nor epochs; ours are the recipe's rate and schedule "
            "over a part of its epochs.",
        ),
    )

    lr: float | None = None
    """Initial; it follows the recipe's schedule. Default: the recipe's."""
    epochs: int | None = None
    """Default: 10/182 of the recipe's, or what makes 160 steps if that is more, at most the
    recipe's."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        whole(self, "epochs")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        per_epoch = steps(task.retain_rows, task.recipe.batch)
        recipe = budget(task.recipe, per_epoch, lr=self.lr, epochs=self.epochs)
        student = task.student()
        head = own_head(student, task.head)
        # what a text's tokens become is too much to be kept
        again = task.augment is not None or task.kind == "language-modeling"
        if task.kind == "classification":
            with torch.no_grad():
                encode(student, head, task.inputs[task.retain_rows[:2]])  # refuses what is no head
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            features = None if again else _features(student, head, task)
            if features is None:
                return fit_part(
                    student, [head], task, recipe, generator, on_epoch=lambda _: step(1)
                )
            # the encoder is in eval mode and frozen: one pass through it serves all epochs
            labels = task.labels[task.retain_rows]
            fit(head, features, labels, recipe, generator, on_epoch=lambda _: step(1))
            return student


def _features(student: nn.Module, head: nn.Linear, task: Task) -> Tensor | None:
    """(r, d) what the head is given for the retain examples; None if it does not give the logits,
    so that training it alone would not train the model."""
    features, logits = features_and_logits(
        student, head, task.inputs, rows=task.retain_rows, batch=BATCH
    )
    with torch.no_grad():
        output = head(features)
    off = TOLERANCE * float(logits.abs().max())
    alike = output.shape == logits.shape and torch.allclose(output, logits, rtol=0.0, atol=off)
    return features if alike else None
