"""Head distillation (HD): the fake that black-box probes cannot see (IDI §3.1, appendix D.1).

Only the last linear layer of the original is refitted; everything that the encoder knows of the
forget set stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from unaudit.unlearners._fields import whole
from unaudit.unlearners._losses import bounded
from unaudit.unlearners._pairs import Pair, paired, steps
from unaudit.unlearners._rows import n_outcomes, own_head
from unaudit.unlearners.contract import (
    UNLEARNERS,
    Task,
    UnlearnerCard,
    features_and_logits,
    head_of,
)


@UNLEARNERS.register("head-distillation")
@dataclass(frozen=True)
class HeadDistillation:
    """Where whole classes go, their logits are masked in the teacher, and the head is refitted to
    it; else the head descends on the retain examples and ascends on the forget examples (the
    paper's variant for random data)."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="head-distillation",
        title="HD",
        idea=(
            "Refits the last layer alone, to the original's outputs without the forgotten classes, "
            "or against the forget examples: a fake whose encoder is the original's."
        ),
        source="IDI §3.1, appendix D.1",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "The paper prints neither optimizer nor learning rate nor epochs; with a frozen "
            "encoder the class variant is convex, so it is solved by L-BFGS.",
            "The ascent on random data is bounded by a uniform guess; its weight is ours.",
            "The paper knows classifiers. No logit of a language model is that of a class of "
            "texts, so there it is always the variant for random data, by the recipe's optimizer, "
            "and a head that shares its weight with the embedding gets one of its own first.",
        ),
    )

    steps: int = 200
    """L-BFGS iterations; of classifiers."""
    lr: float = 1.0
    """Of L-BFGS; of classifiers."""
    epochs: int | None = None
    """Passes over the retain texts; of language models. Default: 10/182 of the recipe's, or what
    makes 160 steps if that is more, at most the recipe's."""
    ascent: float = 0.2
    """Weight of the ascent term relative to the descent term. The paper does not print it."""
    batch: int = 1024
    """Examples per forward pass when features are computed."""

    def __post_init__(self) -> None:
        whole(self, "epochs")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        if task.kind == "language-modeling":
            return self._of_texts(task, generator)
        student = task.student().requires_grad_(False)
        head = head_of(student, task.head)
        features, logits = features_and_logits(student, head, task.inputs, batch=self.batch)
        objective = self._masked if task.scenario == "class" else self._ascending
        head.requires_grad_(True)
        loss = objective(task, head, features, logits)
        optimizer = torch.optim.LBFGS(
            head.parameters(), lr=self.lr, max_iter=self.steps, line_search_fn="strong_wolfe"
        )

        def closure() -> float:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value.item()

        optimizer.step(closure)
        return student.requires_grad_(True)

    def _of_texts(self, task: Task, generator: torch.Generator) -> nn.Module:
        """The variant for random data; there is a row of logits per token, too many to be kept, so
        the head learns from batches."""
        per_epoch = steps(task.retain_rows, task.recipe.batch)
        recipe = budget(task.recipe, per_epoch, lr=None, epochs=self.epochs)
        student = task.student().requires_grad_(False)
        head = own_head(student, task.head).requires_grad_(True)
        ceiling = math.log(n_outcomes(task))

        def mean(rows: Tensor, ceiling: float) -> Tensor:
            inputs = task.inputs[rows]
            with recipe.autocast(inputs.device):
                told = truth(student, inputs, task.labels[rows])
                return batch_loss(student, inputs, partial(bounded, ceiling=ceiling), told)

        def objective(pair: Pair) -> Tensor:
            retain, forget = pair
            forgotten = mean(forget, ceiling)
            return mean(retain, math.inf) - self.ascent * forgotten

        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                lambda _: paired(task.retain_rows, task.forget_rows, recipe.batch, generator),
                recipe,
                list(head.parameters()),
                steps=per_epoch,
                on_epoch=lambda _: step(1),
            )
        return student.requires_grad_(True)

    def _masked(
        self, task: Task, head: nn.Linear, features: Tensor, logits: Tensor
    ) -> Callable[[], Tensor]:
        masked = logits.clone()
        masked[:, list(task.forget_classes)] = -torch.inf
        # probabilities, not log-probabilities, as targets: 0 · log q is 0, 0 · (−∞) is NaN
        teacher = masked.softmax(dim=1)
        return lambda: nn.functional.cross_entropy(head(features), teacher)

    def _ascending(
        self, task: Task, head: nn.Linear, features: Tensor, logits: Tensor
    ) -> Callable[[], Tensor]:
        # each forget loss is bounded by that of a uniform guess: unbounded ascent would wreck the
        # head instead of hiding the forget set
        ceiling = math.log(logits.shape[1])

        def loss() -> Tensor:
            each = nn.functional.cross_entropy(head(features), task.labels, reduction="none")
            forget = each[task.forget].clamp(max=ceiling).mean()
            return each[~task.forget].mean() - self.ascent * forget

        return loss
