"""Twin machine unlearning (TMU): get wrong what a retrained model would get wrong (TMU §3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unaudit.evidence import Scenario
from unaudit.training import descend, shuffled
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import not_negative, positive, whole
from unaudit.unlearners._pairs import steps
from unaudit.unlearners._twin import foresee
from unaudit.unlearners._twin_problem import LEVEL, Twin, value_range
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard


@UNLEARNERS.register("tmu")
@dataclass(frozen=True)
class Tmu:
    """Foretells from the twin problem which forget examples a retrained model would get wrong, the
    hard ones; ascends on their loss and descends on that of the others, with noise on the latter's
    inputs, so that the examples themselves do not look learned."""

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="tmu",
        title="TMU",
        idea=(
            "Learns from validation examples which ones a model gets right untrained, then raises "
            "the loss of the hard forget examples and lowers it in the neighborhood of the easy "
            "ones."
        ),
        source="TMU §3, equations 3–6; §4.1.1",
        consumes=frozenset({"forget", "retain", "validation"}),
        deviations=(
            "The ascent on a hard example ends at the loss of a uniform guess, where it is "
            "misclassified for certain; the paper's is unbounded.",
            "Number of neighbors, norm, attack, noise and all learning rates and epochs but the "
            "classifier's are not printed; distances are Euclidean, the attack is projected "
            "gradient ascent.",
            "The twin is finetuned until its median loss is that of the original on its training "
            "examples, and five classifiers of a cross-validation stand for the one of the paper, "
            "which prints neither.",
            "The fresh network is trained at the recipe's own rate for 2 epochs or 200 steps: at "
            "a tenth of it, it learns nothing in two epochs of small data.",
            "It also runs on examples spread over classes; the paper takes part of one class.",
        ),
        # where whole classes go, a retrained model gets all of it wrong
        scenarios=frozenset[Scenario]({"partial-class", "sample"}),
        moves_inputs=True,
    )

    lr: float | None = None
    """Default: 0.1 × the recipe's."""
    epochs: int | None = None
    """Over the forget examples. Default: 10/182 of the recipe's, or 160 steps if that is more."""
    noise: float = 3.0
    """Standard deviation of the noise on easy examples, in 1/255 of the range of the inputs."""
    twin_lr: float | None = None
    """Of the twin's finetuning on validation examples. Default: the recipe's."""
    twin_epochs: int | None = None
    """Of the twin's finetuning at most. Default: the recipe's; it ends as soon as the twin knows
    the validation examples as well as the original knows its training examples."""
    neighbors: int = 10
    """The paper's N: distances to the nearest retain examples that the classifier is given."""
    epsilon: float = 4.0
    """Budget of the attack, in 1/255 of the range of the inputs."""
    fresh_epochs: int | None = None
    """Of the fresh network whose loss the classifier is given. Default: 2, or 200 steps if that is
    more."""

    def __post_init__(self) -> None:
        positive(self, "lr", "twin_lr", "epsilon")
        not_negative(self, "noise")
        whole(self, "epochs", "twin_epochs", "neighbors", "fresh_epochs")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        twin = Twin(
            owner=self.card.name,
            lr=self.twin_lr,
            epochs=self.twin_epochs,
            neighbors=self.neighbors,
            epsilon=self.epsilon,
            fresh_epochs=self.fresh_epochs,
        )
        easy = torch.zeros_like(task.forget)
        easy[task.forget_rows] = (foresee(task, generator, twin).forget > 0.5).to(easy.device)
        low, high = value_range(task)
        noise = self.noise * LEVEL * (high - low)
        ceiling = math.log(task.n_classes)
        per_epoch = steps(task.forget_rows, task.recipe.batch)
        recipe = budget(task.recipe, per_epoch, lr=self.lr, epochs=self.epochs, lr_share=0.1)
        # in eval mode: the statistics of batch normalization stay those of the training data; a
        # few forget examples, of one class perhaps, would bend them
        student = task.student()

        def objective(rows: Tensor) -> Tensor:
            inputs, calm = task.inputs[rows], easy[rows]
            drawn = torch.randn(inputs.shape, generator=generator).to(inputs)
            spread = (noise * calm).view(-1, *[1] * (inputs.ndim - 1))
            with recipe.autocast(inputs.device):
                logits = student(inputs + spread * drawn)
            each = nn.functional.cross_entropy(logits.float(), task.labels[rows], reduction="none")
            return torch.where(calm, each, -each.clamp(max=ceiling)).mean()

        def batches(_: int) -> Iterator[Tensor]:
            return shuffled(task.forget_rows, recipe.batch, generator)

        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                list(student.parameters()),
                steps=per_epoch,
                on_epoch=lambda _: step(1),
            )
        return student
