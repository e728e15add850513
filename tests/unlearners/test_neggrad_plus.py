"""NegGrad+: the two losses, their statistics, the bound of the ascent."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.unlearners.toy import accuracy, loss, run, task, task_of_one
from unaudit.errors import UsageError
from unaudit.unlearners._pairs import paired
from unaudit.unlearners.neggrad_plus import NegGradPlus

NAME = NegGradPlus.card.name


def test_it_is_the_weighted_difference_of_two_losses() -> None:
    """Plain SGD by hand over one epoch, the retain pass in train mode, the other in eval mode."""
    given = task()
    given = replace(given, recipe=replace(given.recipe, momentum=0.0, schedule="constant"))
    ours = run(NAME, given, lr=0.05, epochs=1, alpha=0.7, ceiling=0.2)
    naive = given.student()
    rng = torch.Generator().manual_seed(1)
    for retain, forget in paired(given.retain_rows, given.forget_rows, 64, rng):
        naive.train()
        value = 0.7 * nn.functional.cross_entropy(naive(given.inputs[retain]), given.labels[retain])
        naive.eval()
        for row in forget.tolist():
            one = slice(row, row + 1)
            each = nn.functional.cross_entropy(naive(given.inputs[one]), given.labels[one])
            value = value - 0.3 / len(forget) * torch.minimum(each, torch.tensor(0.2))
        gradients = torch.autograd.grad(value, list(naive.parameters()))
        with torch.no_grad():
            for p, g in zip(naive.parameters(), gradients, strict=True):
                p.sub_(0.05 * (g + 5e-4 * p))
    for key, expected in naive.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], expected, rtol=1e-4, atol=1e-6)


def test_the_running_statistics_are_those_of_the_retain_examples() -> None:
    given = task()
    far = given.inputs.clone()
    far[given.forget] += 1e3
    student = run(NAME, replace(given, inputs=far), lr=1e-12, epochs=1)
    moved = student.state_dict()["1.running_mean"] - given.original.state_dict()["1.running_mean"]
    assert moved.abs().max() < 1.0


def test_it_forgets_the_class_and_keeps_the_others() -> None:
    given = task()
    student = run(NAME, given)
    assert accuracy(student, given, given.forget) < 0.1
    assert accuracy(student, given, ~given.forget) > 0.95


def test_the_ascent_is_bounded() -> None:
    given = task()
    bounded = run(NAME, given, epochs=60)
    assert loss(bounded, given, given.forget) < 10 * math.log(4)
    assert accuracy(bounded, given, ~given.forget) > 0.95
    wild = run(NAME, given, epochs=60, ceiling=1e9)
    assert loss(wild, given, given.forget) > 5 * loss(bounded, given, given.forget)


def test_a_single_example_will_do() -> None:
    given = task_of_one()
    assert loss(run(NAME, given), given, given.forget) > loss(given.original, given, given.forget)


def test_silly_values_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unlearners\.neggrad-plus\.alpha must be a number from"):
        NegGradPlus(alpha=1.1)
    with pytest.raises(UsageError, match=r"unlearners\.neggrad-plus\.forget_batch must be"):
        NegGradPlus(forget_batch=0)
