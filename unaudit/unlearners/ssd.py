"""Selective synaptic dampening (SSD): shrink weights that matter to the forget set above all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.unlearners._fields import positive, share
from unaudit.unlearners._fisher import Diagonal, empirical_fisher
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("ssd")
@dataclass(frozen=True)
class SelectiveSynapticDampening:
    """θ ← min(λ F_D / F_f, 1) θ where F_f > α F_D, once; F is the diagonal of the Fisher
    information at the given labels, of all training examples (D) or the forget examples (f)."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="ssd",
        title="SSD",
        idea=(
            "Scales down, once, the weights whose squared gradients are far larger on the forget "
            "examples than on all training examples; nothing is trained."
        ),
        source="Foster et al. 2024 (SSD), selection and dampening",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "Squared gradients are those of single examples, as the paper writes; the released "
            "code squares the mean gradient of a batch, which depends on its size and order.",
            "F_f / F_D is then at most n / f, so that the paper's α of 10 selects nothing where "
            "one of ten classes goes; unless α is given, it is such that a share of all weights "
            "is dampened, an idea of the authors' later adaptive variant.",
        ),
    )

    alpha: float | None = None
    """How many times as important for the forget examples a dampened weight is. Default: that of
    ``dampened``. The paper's is 10."""
    dampened: float = 0.06
    """Share of the weights that are selected where ``alpha`` is not given."""
    strength: float = 1.0
    """λ of the paper; smaller values dampen more."""

    def __post_init__(self) -> None:
        positive(self, "alpha", "dampened", "strength")
        share(self, "dampened")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        student = task.student()  # in eval mode: no example may depend on others of its batch
        with task.progress.stage(self.card.name, len(task.labels)) as step:
            forget, retain = (
                empirical_fisher(student, task.inputs, task.labels, rows, step)
                for rows in (task.forget_rows, task.retain_rows)
            )
        part = len(task.forget_rows) / len(task.labels)
        ratios = {
            name: _ratio(forget[name], part * forget[name] + (1 - part) * retain[name])
            for name in forget
        }
        alpha = _quantile(ratios, 1 - self.dampened) if self.alpha is None else self.alpha
        with torch.no_grad():
            for name, weight in student.named_parameters():
                factor = (self.strength / ratios[name]).clamp(max=1.0)
                weight.mul_(torch.where(ratios[name] > alpha, factor, 1.0))
        return student


def _ratio(forget: Tensor, everything: Tensor) -> Tensor:
    """F_f / F_D; 0 where nothing depends on a weight."""
    return torch.where(everything > 0, forget / everything, 0.0)


def _quantile(ratios: Diagonal, level: float) -> float:
    """Of all weights together: the value that at most 1 − level of them exceed."""
    values = torch.cat([ratio.flatten() for ratio in ratios.values()])
    rank = min(max(round(level * len(values)), 1), len(values))
    return float(values.kthvalue(rank).values)
