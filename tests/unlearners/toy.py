"""A small problem with known truth: four overlapping blobs, a batch-normalized network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unaudit.evidence import Scenario
from unaudit.training import Recipe, fit, initialize
from unaudit.unlearners import UNLEARNERS, Task, Unlearner

FORGET_CLASS = 2
RECIPE = Recipe(lr=0.05, epochs=15)


def network() -> nn.Sequential:
    """64 … 4 inputs, 16 batch-normalized hidden units, head ``3``."""
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, 4) inputs and (n,) labels, classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    return 1.5 * torch.eye(4)[labels] + 0.4 * torch.randn(n, 4, generator=generator), labels


def task(scenario: Scenario = "class", **changes: Any) -> Task:
    """Forget class 2, half of it, or every tenth example; 200 validation examples."""
    inputs, labels = blobs(400, 0)
    generator = torch.Generator().manual_seed(0)
    model = initialize(network(), generator)
    fit(model, inputs, labels, RECIPE, generator)
    forget = labels == FORGET_CLASS
    if scenario == "partial-class":
        forget &= torch.arange(400) < 200
    elif scenario == "sample":
        forget = torch.arange(400) % 10 == 0
        forget[0], forget[3], forget[5] = False, True, True
    given = {
        "original": model,
        "inputs": inputs,
        "labels": labels,
        "forget": forget,
        "n_classes": 4,
        "scenario": scenario,
        "recipe": RECIPE,
        "validation": blobs(200, 7),
    }
    return Task(**{**given, **changes})


def task_of_one() -> Task:
    """Forget a single example."""
    return task("sample", forget=torch.arange(400) == 7)


def run(name: str, given: Task, seed: int = 1, **parameters: Any) -> nn.Module:
    """Unlearn with a registered method."""
    method: Unlearner = UNLEARNERS.get(name)(**parameters)
    return method(given, torch.Generator().manual_seed(seed))


def accuracy(model: nn.Module, given: Task, mask: Tensor) -> float:
    """Share of the masked training examples that are classified right."""
    with torch.no_grad():
        return float((model(given.inputs[mask]).argmax(1) == given.labels[mask]).float().mean())


def loss(model: nn.Module, given: Task, mask: Tensor) -> float:
    """Mean cross-entropy of the masked training examples, nats."""
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(given.inputs[mask]), given.labels[mask]))


def same(a: nn.Module, b: nn.Module, *, skip: tuple[str, ...] = ()) -> bool:
    """Whether parameters and buffers are bit-identical, but for names that start with ``skip``."""
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith(skip))
