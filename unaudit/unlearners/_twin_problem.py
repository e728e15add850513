"""The twin problem (TMU §3.1–3.2): examples of which it is known whether they are right untrained.

The original, finetuned on validation examples, is the twin: a model that was trained on them. The
original itself never was, so it is to the twin what a retrained model is to the original, and
whether it classifies a validation example right can be looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unaudit.errors import UsageError
from unaudit.training import descend, fit, initialize, shuffled
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import positive, share, whole
from unaudit.unlearners._freezing import on_cpu
from unaudit.unlearners._pairs import steps
from unaudit.unlearners.contract import Task, features_and_logits, head_of

BATCH = 512
"""Examples per forward pass."""
LEVEL = 1 / 255
"""One gray level, as a share of the range of the inputs."""
FRESH_STEPS = 200
"""Of the fresh network at least: two epochs of the paper are as many on its smaller data."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a classifier learns from, and what it is to be asked. On the CPU."""

    known: Tensor
    """(v, d) float32 features of the validation examples, seen through the twin."""
    right: Tensor
    """(v,) bool: whether the original classifies them right."""
    asked: Tensor
    """(f, d) float32 features of the forget examples, seen through the original; in the order of
    ``task.forget_rows``."""


@dataclass(frozen=True)
class Twin:
    """How the twin problem is posed."""

    owner: str = "the twin problem"
    """Who asks, for messages."""
    lr: float | None = None
    """Of the twin's finetuning. Default: the recipe's."""
    epochs: int | None = None
    """Of the twin's finetuning at most. Default: the recipe's. It ends as soon as the twin knows
    the validation examples as well as the original knows its training examples."""
    neighbors: int = 10
    """Distances to that many retain examples are features."""
    epsilon: float = 4.0
    """Largest change of an input by the attack, in 1/255 of the range of the inputs."""
    attack_steps: int = 10
    """Of projected gradient ascent."""
    fresh_epochs: int | None = None
    """Of the fresh network. Default: 2, or 200 steps if that is more."""
    fresh_share: float = 0.3
    """Part of the retain examples that the fresh network is trained on."""

    def __post_init__(self) -> None:
        positive(self, "lr", "epsilon", "fresh_share")
        share(self, "fresh_share")
        whole(self, "epochs", "neighbors", "attack_steps", "fresh_epochs")

    def pose(self, task: Task, generator: torch.Generator) -> Problem:
        """Train the twin and the fresh network, and look at all examples through them.

        Raises:
            UsageError: whole classes are to be forgotten.
            InputError: no validation examples, or a layer that cannot be drawn anew.
            DivergedError: a training run left the finite numbers.
        """
        if task.scenario == "class":
            raise UsageError(
                f"{self.owner} is not for the class scenario: what a model makes of classes that "
                "it never saw cannot be learned from classes that it saw"
            )
        inputs, labels = task.need_validation(self.owner)
        twin = self._twin(task, inputs, labels, generator)
        fresh = self._fresh(task, inputs, labels, generator)
        original, rows = task.teacher(), task.forget_rows
        known = self._features(task, twin, fresh, inputs, labels)
        asked = self._features(task, original, fresh, task.inputs[rows], task.labels[rows])
        head = head_of(original, task.head)
        _, logits = features_and_logits(original, head, inputs, batch=BATCH)
        return Problem(known=known, right=(logits.argmax(dim=1) == labels).cpu(), asked=asked)

    def _twin(
        self, task: Task, inputs: Tensor, labels: Tensor, generator: torch.Generator
    ) -> nn.Module:
        """The original, finetuned on the validation examples until their median loss is that of the
        training examples: features of examples that are known less, or better, would mislead."""
        twin = task.student()
        goal = median_loss(task.original, task.inputs, task.labels)
        recipe = budget(
            task.recipe, lr=self.lr, epochs=self.epochs, epochs_share=1.0, constant=True
        )
        everyone = torch.arange(len(inputs))
        enough = False

        def objective(rows: Tensor) -> Tensor:
            batch = inputs[rows]
            if task.augment is not None:
                batch = task.augment(batch, generator)
            with recipe.autocast(batch.device):
                logits = twin(batch)
            return nn.functional.cross_entropy(logits.float(), labels[rows])

        def batches(_: int) -> Iterator[Tensor]:
            nonlocal enough
            enough = enough or median_loss(twin.eval(), inputs, labels) <= goal
            # batch statistics: validation examples are of all classes, as the training examples
            twin.train()
            for rows in () if enough else shuffled(everyone, recipe.batch, generator):
                if len(rows) > 1:  # a single example has no batch statistics
                    yield rows

        descend(
            objective,
            batches,
            recipe,
            list(twin.parameters()),
            steps=steps(everyone, recipe.batch),
        )
        return twin.eval().requires_grad_(False)

    def _fresh(
        self, task: Task, inputs: Tensor, labels: Tensor, generator: torch.Generator
    ) -> nn.Module:
        """A network drawn anew and trained briefly, on some retain examples and all others."""
        retain = task.retain_rows
        size = max(1, round(self.fresh_share * len(retain)))
        rows = retain[torch.randperm(len(retain), generator=generator)[:size]]
        rows = torch.cat([rows, task.forget_rows])
        seen = torch.cat([task.inputs[rows], inputs])
        wanted = torch.cat([task.labels[rows], labels])
        per_epoch = steps(wanted, task.recipe.batch)
        epochs = self.fresh_epochs or max(2, -(-FRESH_STEPS // per_epoch))
        recipe = replace(task.recipe, epochs=epochs, schedule="constant")
        network = task.student()
        with on_cpu(network):
            initialize(network, generator)
        return fit(network, seen, wanted, recipe, generator).requires_grad_(False)

    def _features(
        self, task: Task, network: nn.Module, fresh: nn.Module, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """(n, neighbors + 2) float32: distances to the nearest retain examples among the
        penultimate features, what the attack does to the output, the fresh network's loss.

        Args:
            network: the twin or the original; frozen and in eval mode, as ``fresh`` is.
            fresh: as :meth:`_fresh` made it.
            inputs, labels: n examples that ``network`` was trained on.
        """
        head = head_of(network, task.head)
        bank, _ = features_and_logits(
            network, head, task.inputs, rows=task.retain_rows, batch=BATCH
        )
        bank = bank.float()
        # networks spread their features differently: the typical spread is the unit of distance
        unit = (bank - bank.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        unit = unit.clamp(min=torch.finfo(unit.dtype).tiny)
        low, high = value_range(task)
        budget = self.epsilon * LEVEL * (high - low)
        parts = []
        for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
            attacked = attack(network, x, y, budget, self.attack_steps).clamp(low, high)
            features, logits = features_and_logits(network, head, x, batch=BATCH)
            distances = torch.cdist(features.float(), bank)
            nearest = distances.topk(min(self.neighbors, len(bank)), dim=1, largest=False).values
            with torch.no_grad():
                after = network(attacked).float().softmax(dim=1)
                moved = -(after * logits.float().log_softmax(dim=1)).sum(dim=1)
                early = nn.functional.cross_entropy(fresh(x).float(), y, reduction="none")
            parts.append(torch.cat([nearest / unit, moved[:, None], early[:, None]], dim=1))
        return torch.cat(parts).cpu()


def attack(network: nn.Module, inputs: Tensor, labels: Tensor, budget: float, steps: int) -> Tensor:
    """Inputs, each number moved by at most ``budget``, so that the loss rises: projected gradient
    ascent (Madry et al. 2018), from the inputs themselves.

    Args:
        network: frozen and in eval mode.
        inputs: (n, …)
        labels: (n,)
        budget: above 0.
        steps: of ascent.
    """
    moved = inputs
    for _ in range(steps):
        leaf = moved.clone().requires_grad_()
        loss = nn.functional.cross_entropy(network(leaf).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        # 2.5 budgets in all: enough to cross to the other side of the box
        moved = moved + (2.5 * budget / steps) * gradient.sign()
        moved = inputs + (moved - inputs).clamp(-budget, budget)
    return moved


def median_loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Median cross-entropy, nats, in the mode that the network is in."""
    parts = []
    with torch.no_grad():
        for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
            parts.append(nn.functional.cross_entropy(network(x).float(), y, reduction="none"))
    return float(torch.cat(parts).median())


def value_range(task: Task) -> tuple[float, float]:
    """The smallest and the largest number in any retain input."""
    parts = [task.inputs[rows].aminmax() for rows in task.retain_rows.split(BATCH)]
    return min(float(part.min) for part in parts), max(float(part.max) for part in parts)
