"""Losses that unlearners share, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import rel_entr, softmax

from unaudit.unlearners._losses import bounded, distillation


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("n_classes", [3, 50])
def test_divergence_is_summed_over_classes_and_averaged_over_examples(
    temperature: float, n_classes: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(7, n_classes, generator=generator) for _ in range(2))
    ours, theirs = (softmax(z.numpy() / temperature, axis=1) for z in (student, teacher))
    expected = rel_entr(theirs, ours).sum(axis=1).mean() * temperature**2
    assert float(distillation(student, teacher, temperature)) == pytest.approx(expected, rel=1e-4)


def test_sure_teachers_do_not_make_it_infinite() -> None:
    student = torch.tensor([[0.0, 1.0]])
    assert torch.isfinite(distillation(student, torch.tensor([[2e4, -2e4]])))


def test_gradients_reach_the_student_alone() -> None:
    student = torch.zeros(2, 3, requires_grad=True)
    teacher = torch.eye(3)[:2].requires_grad_()
    distillation(student, teacher).backward()
    assert student.grad is not None
    # d KL / d student logits = (q − p) / b
    expected = (torch.full((2, 3), 1 / 3) - teacher.detach().softmax(1)) / 2
    assert torch.allclose(student.grad, expected, atol=1e-6)
    assert teacher.grad is None


def test_losses_end_at_the_ceiling() -> None:
    logits = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.arange(30) % 5
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    value = bounded(logits, targets, 1.5)
    assert value.item() == pytest.approx(each.clamp(max=1.5).mean().item())
    (slope,) = torch.autograd.grad(value, logits)
    assert torch.equal(slope.abs().sum(dim=1) == 0, each > 1.5)
    free = bounded(logits, targets, math.inf)
    torch.testing.assert_close(free, torch.nn.functional.cross_entropy(logits, targets))
