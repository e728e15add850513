"""Reference unlearners: what must move, what must not, and what comes of it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.training import Recipe, fit, initialize
from unaudit.unlearners import finetune, head_distillation

FORGET_CLASS = 2


def world() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """An original trained on four overlapping blobs, their inputs, labels, and the forget mask."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    centers = 1.5 * torch.eye(4)[labels]
    inputs = centers + 0.4 * torch.randn(400, 4, generator=generator)
    body = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU()]
    model = initialize(nn.Sequential(*body, nn.Linear(16, 4)), generator)
    fit(model, inputs, labels, Recipe(lr=0.05, epochs=15), generator)
    return model, inputs, labels, labels == FORGET_CLASS


def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(inputs).argmax(1) == labels).float().mean())


def mean_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(inputs), labels))


def same(a: dict[str, Tensor], b: dict[str, Tensor], *, skip: str = "-") -> bool:
    return all(torch.equal(a[key], b[key]) for key in a if not key.startswith(skip))


def test_head_distillation_touches_the_head_alone() -> None:
    model, inputs, labels, forget = world()
    before = copy.deepcopy(model.state_dict())
    fake = head_distillation(model, inputs, labels, forget, (FORGET_CLASS,))
    assert same(before, model.state_dict())
    assert same(before, fake.state_dict(), skip="3.")
    assert not torch.equal(before["3.weight"], fake.state_dict()["3.weight"])


def test_head_distillation_forgets_the_class_and_keeps_the_others() -> None:
    model, inputs, labels, forget = world()
    fake = head_distillation(model, inputs, labels, forget, (FORGET_CLASS,))
    assert accuracy(fake, inputs[forget], labels[forget]) == 0.0
    kept = accuracy(model, inputs[~forget], labels[~forget])
    assert accuracy(fake, inputs[~forget], labels[~forget]) >= kept - 0.02


def test_head_distillation_follows_the_masked_teacher() -> None:
    """Its outputs are those of the original, renormalized without the forgotten class."""
    model, inputs, labels, forget = world()
    fake = head_distillation(model, inputs, labels, forget, (FORGET_CLASS,), steps=500)
    with torch.no_grad():
        teacher = model(inputs)
        teacher[:, FORGET_CLASS] = -torch.inf
        distance = (fake(inputs).softmax(1) - teacher.softmax(1)).abs().sum(1)
    assert distance.mean() < 0.02


def test_head_distillation_of_several_classes() -> None:
    model, inputs, labels, _ = world()
    forget = (labels == 1) | (labels == 2)
    fake = head_distillation(model, inputs, labels, forget, (1, 2))
    assert accuracy(fake, inputs[forget], labels[forget]) == 0.0
    assert accuracy(fake, inputs[~forget], labels[~forget]) > 0.95


def test_head_distillation_of_random_examples_raises_their_loss() -> None:
    model, inputs, labels, _ = world()
    forget = torch.zeros(400, dtype=torch.bool)
    forget[::10] = True
    before = copy.deepcopy(model.state_dict())
    fake = head_distillation(model, inputs, labels, forget, None)
    assert same(before, fake.state_dict(), skip="3.")
    rise = mean_loss(fake, inputs[forget], labels[forget]) - mean_loss(
        model, inputs[forget], labels[forget]
    )
    rise_kept = mean_loss(fake, inputs[~forget], labels[~forget]) - mean_loss(
        model, inputs[~forget], labels[~forget]
    )
    assert rise > max(rise_kept, 0.0)
    assert accuracy(fake, inputs[~forget], labels[~forget]) > 0.9
    assert all(torch.isfinite(value).all() for value in fake.state_dict().values())


def test_head_distillation_needs_a_linear_head() -> None:
    network = nn.Sequential(nn.Conv1d(1, 4, 1), nn.Flatten())
    with pytest.raises(InputError, match="last layer is linear"):
        head_distillation(
            network, torch.ones(4, 1, 1), torch.zeros(4).long(), torch.ones(4) > 0, None
        )


def test_finetune_trains_a_copy_on_what_it_is_given() -> None:
    model, inputs, labels, forget = world()
    before = copy.deepcopy(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    tuned = finetune(
        model, inputs[~forget], labels[~forget], Recipe(), generator, lr=0.1, epochs=20
    )
    assert same(before, model.state_dict())
    assert not same(before, tuned.state_dict())
    assert mean_loss(tuned, inputs[forget], labels[forget]) > mean_loss(
        model, inputs[forget], labels[forget]
    )
    shared = {t.data_ptr() for t in model.state_dict().values()} & {
        t.data_ptr() for t in tuned.state_dict().values()
    }
    assert not shared
