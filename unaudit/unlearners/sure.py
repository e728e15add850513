"""SURE: make the features of forget examples pass for those of validation examples (SURE §4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.training import descend, shuffled
from unaudit.unlearners._budget import budget
from unaudit.unlearners._features import encode
from unaudit.unlearners._fields import positive, share, whole
from unaudit.unlearners._judges import judge
from unaudit.unlearners._pairs import cycled, inputs_of, steps
from unaudit.unlearners._statistics import statistics_kept
from unaudit.unlearners._validation import class_mix
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard, head_of

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Rows of retain and of forget examples, and positions among the validation examples."""


@UNLEARNERS.register("sure")
@dataclass(frozen=True)
class Sure:
    """α · cross-entropy of retain examples + (1 − α) · the loss of a domain classifier that tells
    forget from validation features, whose gradient is reversed where it enters the encoder."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="sure",
        title="SURE",
        idea=(
            "Trains all weights on the retain examples, while the encoder learns to fool a "
            "classifier that tells the features of forget examples from those of validation "
            "examples."
        ),
        source="SURE §4, equations 1–4; appendix C, equations 7–9; appendix G",
        consumes=frozenset({"forget", "retain", "validation"}),
        deviations=(
            "The paper prints no number of epochs; its rates are 4.5 and 3.7 times that of the "
            "original's training, which diverge from a usual rate, so ours is the recipe's own.",
            "Its λ is taken to be 1 − α, where α is the weight of the retain loss in tables 3 and "
            "4.",
            "Validation examples are drawn in the class mix of the forget set: the paper's come "
            "from its distribution, and others would give the classes away.",
            "Batch normalization takes its running statistics from retain examples alone; the "
            "paper says nothing of it.",
            "Width of the domain classifier and batch sizes are ours.",
        ),
    )

    lr: float | None = None
    """Initial. Default: the recipe's."""
    epochs: int | None = None
    """Default: 20/150 of the recipe's, or 160 steps if that is more."""
    alpha: float | None = None
    """Weight of the retain loss, the domain loss has 1 − α. Default: 0.807 where forget examples
    are spread over classes (table 3), else 0.4241 (table 4)."""
    decay: float = 0.5
    """Share of the epochs after which the rate falls to a tenth; the paper's epochs 10 and 4 are of
    an unknown number."""
    forget_batch: int | None = None
    """Forget examples of a step, and validation examples. Default: the recipe's batch."""
    hidden: int = 128
    """Units of the domain classifier's hidden layer."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        share(self, "alpha", "decay")
        whole(self, "epochs", "forget_batch", "hidden")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        inputs, labels = task.need_validation(self.card.name)
        spread = task.scenario == "sample"
        alpha = (0.807 if spread else 0.4241) if self.alpha is None else self.alpha
        per_epoch = steps(task.retain_rows, task.recipe.batch)
        recipe = budget(
            task.recipe,
            per_epoch,
            lr=self.lr,
            epochs=self.epochs,
            epochs_share=20 / 150,
            constant=True,
        )
        student = task.student()
        head = head_of(student, task.head)
        domain = judge((head.in_features, self.hidden, 1), generator).to(task.inputs.device)
        size = self.forget_batch or recipe.batch
        forget_rows = cycled(task.forget_rows, size, generator)
        weights = class_mix(task, labels)

        def objective(batch: Batch) -> Tensor:
            retain, forget, unseen = batch
            kept = inputs_of(task, retain, generator)
            with recipe.autocast(kept.device):
                logits = student(kept)
                # both domains in one pass, or their batch statistics would tell them apart, and
                # none of it in the running statistics, which are to be those of retain examples.
                # Eval mode would not do: nothing would bound features that two sides fight over
                with statistics_kept(student):
                    both = torch.cat([task.inputs[forget], inputs[unseen]])
                    features, _ = encode(student, head, both)
                is_forget = domain(reverse_gradient(features)).float().squeeze(1)
            told = domain_loss(is_forget[: len(forget)], is_forget[len(forget) :])
            classified = nn.functional.cross_entropy(logits.float(), task.labels[retain])
            return alpha * classified + (1.0 - alpha) * told

        def batches(_: int) -> Iterator[Batch]:
            for retain in shuffled(task.retain_rows, recipe.batch, generator):
                if len(retain) == 1:  # has no batch statistics
                    continue
                drawn = torch.multinomial(weights, size, replacement=True, generator=generator)
                yield retain, next(forget_rows), drawn

        fast = round(recipe.epochs * self.decay)
        student.train()
        slow = replace(recipe, lr=recipe.lr / 10, epochs=recipe.epochs - fast)
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            for part in (replace(recipe, epochs=fast), slow):
                descend(
                    objective,
                    batches,
                    part,
                    [*student.parameters(), *domain.parameters()],
                    steps=per_epoch,
                    on_epoch=lambda _: step(1),
                )
        return student.eval()


class _Reversal(torch.autograd.Function):
    """The identity; its derivative is taken to be minus the identity."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].neg()


def reverse_gradient(features: Tensor) -> Tensor:
    """``features`` as they are; gradients change their sign on the way back (SURE §4, ℛ)."""
    same: Tensor = _Reversal.apply(features)  # type: ignore[no-untyped-call]
    return same


def domain_loss(forget: Tensor, unseen: Tensor) -> Tensor:
    """Equation 4 without λ: binary cross-entropy, where both domains weigh the same whatever their
    sizes.

    Args:
        forget: (a,) log-odds that the classifier gives forget examples of being such.
        unseen: (b,) the same of validation examples.
    """
    return nn.functional.softplus(-forget).mean() + nn.functional.softplus(unseen).mean()
