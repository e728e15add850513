"""Boundary Shrink (BS): give the forget examples to the class across the nearest boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.unlearners._boundary import DEVIATIONS, BoundaryShift
from unaudit.unlearners._fields import positive
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("boundary-shrink")
@dataclass(frozen=True)
class BoundaryShrink(BoundaryShift):
    """Cross-entropy on the forget examples with the label that the original gives to each after
    one step of FGSM, over all weights."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="boundary-shrink",
        title="Boundary Shrink",
        idea=(
            "Relabels each forget example with the nearest other class, found by an adversarial "
            "step on the original, and trains all weights on the forget examples alone."
        ),
        source="Chen et al. 2023 (boundary unlearning), boundary shrink",
        consumes=frozenset({"forget"}),
        deviations=(
            *DEVIATIONS,
            "The bound of 0.1 is a share of the range of each channel among the forget examples; "
            "on unprocessed images that is the paper's.",
            "Where the step does not leave the true class, the most probable other one is taken; "
            "the released code keeps the true label. Where whole classes go, no example is given "
            "to another one of them.",
        ),
        scenarios=frozenset({"class", "partial-class"}),
        moves_inputs=True,
    )
    lr_share: ClassVar[float] = 0.001

    bound: float = 0.1
    """Length of the FGSM step in every entry, relative to the range of its channel; vectors are of
    one channel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bound")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        student = task.student()
        labels = task.labels.clone()
        labels[task.forget] = nearest_labels(task, self.bound)

        def judge(rows: Tensor) -> tuple[Tensor, Tensor]:
            logits = student(task.inputs[rows])
            return nn.functional.cross_entropy(logits, labels[rows]), logits

        self._shift(task, judge, student.parameters(), generator)
        return student


def nearest_labels(task: Task, bound: float) -> Tensor:
    """(f,) for each forget example a class across the nearest boundary of the original.

    Args:
        task: whose original is attacked, in eval mode; so labels are found once, not per epoch.
        bound: of the step, relative to the range of its channel.

    Raises:
        InputError: there is no other class.
    """
    lowest, highest = _range(task.inputs[task.forget])
    teacher = task.teacher()
    gone = list(task.forget_classes) if task.scenario == "class" else []
    found = []
    for rows in task.forget_rows.split(task.recipe.batch):
        inputs = task.inputs[rows].requires_grad_()
        truth = task.labels[rows]
        loss = nn.functional.cross_entropy(teacher(inputs), truth, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, inputs)
        moved = inputs.detach() + bound * (highest - lowest) * gradient.sign()
        with torch.no_grad():
            logits = teacher(torch.clamp(moved, lowest, highest))
        logits.scatter_(1, truth.unsqueeze(1), -torch.inf)
        logits[:, gone] = -torch.inf
        if bool(logits.isneginf().all(dim=1).any()):
            raise InputError(
                "boundary-shrink gives forget examples to other classes; the model has none"
            )
        found.append(logits.argmax(dim=1))
    return torch.cat(found)


def _range(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each channel, or of vectors altogether, broadcastable."""
    dims = [dim for dim in range(inputs.ndim) if dim != 1 or inputs.ndim == 2]
    return inputs.amin(dims, keepdim=True), inputs.amax(dims, keepdim=True)
