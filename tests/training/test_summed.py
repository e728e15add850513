"""Sums whose gradients are found term by term."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unaudit.training.summed import Term, summed


def weights() -> list[Tensor]:
    return [torch.tensor(values, requires_grad=True) for values in ([1.0, 2.0], [3.0, 4.0], [5.0])]


def test_a_sum_is_that_of_its_shares() -> None:
    one, other, unused = own = weights()
    given = torch.tensor([2.0, 3.0], requires_grad=True)
    still = torch.tensor([7.0, 1.0])
    terms = [
        # both have one and the same gradient, of which there is one tensor
        Term(2.0, lambda x, y: ((one + other) * x * y).sum(), (still, torch.tensor([1.0, -1.0]))),
        Term(0.25, lambda x: (x * one).sum(), (given,)),
        Term(1.0, lambda x: x.sum(), (given,)),
        Term(3.0, lambda x: x.sum(), (still,)),
    ]
    found = 10.0 * summed(terms, own)
    assert found.item() == 10.0 * (0.25 * 8 + 2 * (4 * 7 - 6) + 5 + 24)
    found.backward()
    assert given.grad is not None
    assert given.grad.tolist() == [12.5, 15.0]
    assert one.grad is not None
    assert one.grad.tolist() == [10 * (0.5 + 14), 10 * (0.75 - 2)]
    assert other.grad is not None
    assert other.grad.tolist() == [140.0, -20.0]
    assert unused.grad is None


def test_one_graph_is_there_at_a_time() -> None:
    (weight, *_) = own = weights()
    alive: list[int] = []

    class Note(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            alive.append(1)
            return x.clone()

        @staticmethod
        def backward(ctx: object, slope: Tensor) -> Tensor:
            alive.append(-1)
            return slope

    def function(x: Tensor) -> Tensor:
        return torch.as_tensor(Note.apply(weight * x)).sum()  # type: ignore[no-untyped-call]

    total = summed([Term(1.0, function, (torch.ones(2),)) for _ in range(3)], own)
    assert alive == [1, -1] * 3
    total.backward()
    assert alive == [1, -1] * 3
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 3.0]


def test_without_gradients_there_is_the_sum() -> None:
    own = weights()
    with torch.no_grad():
        found = summed([Term(2.0, lambda x: (x * own[0]).sum(), (torch.ones(2),))], own)
    assert found.item() == 6.0
    assert not found.requires_grad


@pytest.mark.parametrize("second", [False, True])
def test_it_is_passed_back_through_once(second: bool) -> None:
    own = weights()
    found = summed([Term(1.0, lambda x: (x * own[0] ** 2).sum(), (torch.ones(2),))], own)
    (slope,) = torch.autograd.grad(found, own[:1], create_graph=second, retain_graph=True)
    assert slope.tolist() == [2.0, 4.0]
    with pytest.raises((RuntimeError, TypeError)):
        torch.autograd.grad(slope.sum() if second else found, own[:1])
