"""Gradient ascent: what it climbs, where it ends, what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.unlearners.toy import accuracy, loss, run, same, task, task_of_one
from unaudit.errors import UsageError
from unaudit.training import DivergedError
from unaudit.unlearners.gradient_ascent import GradientAscent

NAME = GradientAscent.card.name


def test_one_step_is_plain_ascent() -> None:
    """Weights + rate × (gradient of the forget loss − weight decay × weights)."""
    given = task()
    ours = run(NAME, given, lr=0.01, epochs=1, stop=1e9)
    naive = given.student()
    rows = given.forget_rows[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    velocity = [torch.zeros_like(p) for p in naive.parameters()]
    for batch in rows.tensor_split(2):
        climbed = nn.functional.cross_entropy(naive(given.inputs[batch]), given.labels[batch])
        gradients = torch.autograd.grad(climbed, list(naive.parameters()))
        with torch.no_grad():
            for p, g, v in zip(naive.parameters(), gradients, velocity, strict=True):
                v.mul_(0.9).add_(5e-4 * p - g)
                p.sub_(0.01 * v)
    for a, b in zip(ours.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_running_statistics_stay() -> None:
    given = task()
    student = run(NAME, given)
    before = dict(given.original.named_buffers())
    assert all(torch.equal(before[name], value) for name, value in student.named_buffers())


def test_it_ends_at_the_loss_of_a_uniform_guess() -> None:
    given = task()
    student = run(NAME, given)
    assert 0.7 * math.log(4) < loss(student, given, given.forget) < 3 * math.log(4)
    assert accuracy(student, given, ~given.forget) > 0.8


def test_the_first_weights_that_are_high_enough_are_kept() -> None:
    """All forget examples in one batch, climbed by hand until their loss is 0.5."""
    given = task()
    given = replace(given, recipe=replace(given.recipe, batch=100))
    naive = given.student()
    recipe = replace(given.recipe, lr=0.01, schedule="constant")
    optimizer = recipe.optimizer(list(naive.parameters()))
    inputs, labels = given.inputs[given.forget], given.labels[given.forget]
    while (climbed := nn.functional.cross_entropy(naive(inputs), labels)).item() < 0.5:
        optimizer.zero_grad()
        (-climbed).backward()
        optimizer.step()
    student = run(NAME, given, lr=0.01, stop=0.5)
    for a, b in zip(student.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert same(run(NAME, given, stop=1e-9), given.original)


def test_other_examples_of_the_class_are_spared() -> None:
    given = task("sample")
    assert loss(run(NAME, given), given, given.forget) < 0.5 * math.log(4)


def test_without_an_end_it_diverges() -> None:
    with pytest.raises(DivergedError, match="lower the learning rate"):
        run(NAME, task(), lr=1.0, epochs=500, stop=1e300)


def test_a_single_example_will_do() -> None:
    given = task_of_one()
    assert loss(run(NAME, given), given, given.forget) > loss(given.original, given, given.forget)


def test_silly_values_are_refused() -> None:
    for field in ("lr", "stop", "epochs"):
        with pytest.raises(UsageError, match=rf"unlearners\.gradient-ascent\.{field} must be"):
            GradientAscent(**{field: 0})
