"""MUDA-like: move forget features into the space of the retain features; forget and recover in
turn.

Only the paper's appendix is at hand. The losses are our reading of what it calls them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.evidence import Scenario
from unaudit.training import descend
from unaudit.unlearners._budget import budget
from unaudit.unlearners._features import encode
from unaudit.unlearners._fields import not_negative, positive, share, whole
from unaudit.unlearners._pairs import cycled, inputs_of
from unaudit.unlearners._statistics import statistics_kept
from unaudit.unlearners.contract import (
    UNLEARNERS,
    Task,
    UnlearnerCard,
    features_and_logits,
    head_of,
)

Batch: TypeAlias = tuple[bool, Tensor, Tensor]
"""Whether the step is one that forgets; rows of forget and of retain examples."""


@UNLEARNERS.register("muda")
@dataclass(frozen=True)
class Muda:
    """Steps that forget, on 1 − DA and self-distillation without the forgotten classes, alternate
    with steps that recover, on the cross-entropy of retain examples; the last one recovers."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="muda",
        title="MUDA-like",
        idea=(
            "Moves the features of forget examples into the leading directions of the retain "
            "features and their outputs to the other classes, in turn with training on retain "
            "examples."
        ),
        source="MUDA, appendices A, B and D (alternating, 200 iterations); losses by our reading",
        consumes=frozenset({"forget", "retain"}),
        deviations=(
            "The paper's formulas are not at hand: 1 − tr(P Σ_f)/tr(Σ_f) and −log(1 − p) are our "
            "reading of its dimensional alignment and self-distillation losses.",
            "Weights, learning rate and the number of directions are ours.",
            "It runs where whole classes go; the paper also knows subclasses and groups, which a "
            "list of examples does not name.",
        ),
        scenarios=frozenset[Scenario]({"class"}),
    )

    lr: float | None = None
    """Default: 0.1 × the recipe's."""
    iterations: int = 200
    """Pairs of a step that forgets and one that recovers."""
    alignment: float = 1.0
    """Weight of 1 − DA relative to self-distillation."""
    energy: float = 0.95
    """Share of the retain features' energy that the leading directions carry."""
    bank: int = 2048
    """Retain examples from which the directions are computed."""
    renewal: int = 10
    """Iterations after which the directions are computed anew, from the features as they are."""

    def __post_init__(self) -> None:
        positive(self, "lr", "energy")
        share(self, "energy")
        not_negative(self, "alignment")
        whole(self, "iterations", "bank", "renewal")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        epochs = -(-self.iterations // self.renewal)
        recipe = budget(task.recipe, lr=self.lr, epochs=epochs, lr_share=0.1, constant=True)
        student = task.student()
        head = head_of(student, task.head)
        to_forget = cycled(task.forget_rows, recipe.batch, generator)
        to_retain = cycled(task.retain_rows, recipe.batch, generator)
        gone = list(task.forget_classes)
        directions = torch.empty(0)

        def objective(batch: Batch) -> Tensor:
            forgets, forget, retain = batch
            inputs = inputs_of(task, retain, generator)
            if not forgets:
                with recipe.autocast(inputs.device):
                    logits = student(inputs)
                return nn.functional.cross_entropy(logits.float(), task.labels[retain])
            # among retain examples, since the batch statistics of a single class would take away
            # what is its own; and without a trace in the running statistics, as if never seen
            with recipe.autocast(inputs.device), statistics_kept(student):
                both = torch.cat([task.inputs[forget], inputs])
                features, logits = encode(student, head, both)
            own = slice(0, len(forget))
            off = off_space(features[own].float(), directions)
            return self.alignment * off + self_distillation(logits[own].float(), gone)

        def batches(number: int) -> Iterator[Batch]:
            nonlocal directions
            order = torch.randperm(len(task.retain_rows), generator=generator)
            some = task.retain_rows[order[: self.bank]]
            features, _ = features_and_logits(student, head, task.inputs, rows=some, batch=1024)
            directions = leading(features.float(), self.energy)
            for _ in range(min(self.renewal, self.iterations - number * self.renewal)):
                rows = next(to_forget), next(to_retain)
                yield True, *rows
                yield False, *rows

        student.train()
        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                list(student.parameters()),
                steps=2 * self.renewal,
                on_epoch=lambda _: step(1),
            )
        return student.eval()


def leading(features: Tensor, energy: float) -> Tensor:
    """(d, k) eigenvectors of the second moment of (n, d) features, the fewest that carry ``energy``
    of its trace."""
    values, vectors = torch.linalg.eigh(features.T @ features / len(features))
    carried = values.flip(0).clamp(min=0.0).cumsum(0)
    # rounding may leave the last sum below the whole
    k = min(int((carried < energy * carried[-1]).sum()) + 1, len(values))
    chosen: Tensor = vectors.flip(1)[:, :k]
    return chosen


def off_space(features: Tensor, directions: Tensor) -> Tensor:
    """1 − DA of (n, d) features: the share of their energy outside (d, k) directions."""
    total = features.square().sum()
    inside = (features @ directions).square().sum()
    return 1.0 - inside / total.clamp(min=torch.finfo(total.dtype).tiny)


def self_distillation(logits: Tensor, gone: list[int]) -> Tensor:
    """Mean over examples of −log(1 − p), p the probability of the classes that go.

    This is KL(q ‖ own probabilities), where q, the target, is what is left of the own probabilities
    without those classes: it comes to rest where they have none, and leaves the proportions of the
    others to the model.
    """
    rest = logits.clone()
    rest[:, gone] = -torch.inf
    return (logits.logsumexp(dim=1) - rest.logsumexp(dim=1)).mean()
