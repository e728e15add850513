"""RFA-LoRA: low-rank updates, merged, that pin some features and move others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unaudit.unlearners.rfa_lora  # noqa: F401
from tests.unlearners.toy import accuracy, run, same, task
from unaudit.errors import InputError, UsageError
from unaudit.loading.networks import resnet
from unaudit.unlearners import Task
from unaudit.unlearners._lora import LowRank
from unaudit.unlearners._outputs import adaptable
from unaudit.unlearners.contract import head_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def convolutional() -> nn.Module:
    """Plain and grouped convolutions, then a linear head."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(4 * 16, 3),
    ).requires_grad_(False)


def test_nothing_changes_before_training() -> None:
    network = convolutional()
    inputs = torch.randn(5, 2, 6, 6, generator=generator())
    updates = LowRank(network, ["0", "2", "4"], 2, generator())
    assert torch.equal(updates(inputs), network(inputs))


def test_the_merged_network_is_the_updated_one() -> None:
    network = convolutional()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    inputs = torch.randn(5, 2, 6, 6, generator=generator())
    updates = LowRank(network, ["0", "2"], 2, generator())
    for parameter in updates.parameters:
        nn.init.normal_(parameter, generator=generator(7))
    wanted = updates(inputs)
    assert (wanted - network(inputs)).abs().max() > 0.1
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    updates.merge()
    torch.testing.assert_close(network(inputs), wanted)
    after = network.state_dict()
    assert list(after) == list(before)
    for name in ("0", "2"):
        change = (after[f"{name}.weight"] - before[f"{name}.weight"]).flatten(1)
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
    assert all(torch.equal(before[key], after[key]) for key in ("0.bias", "4.weight", "4.bias"))


def test_gradients_reach_the_updates_alone() -> None:
    network = convolutional()
    updates = LowRank(network, ["0"], 50, generator())
    up, down = updates.parameters
    assert up.shape == (6, 6)
    assert down.shape == (6, 18)
    updates(torch.ones(2, 2, 6, 6)).sum().backward()
    assert up.grad is not None
    assert up.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


class Odd(nn.Module):
    """A layer that runs, one that runs twice, one that never does, one across examples."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(4, 4)
        self.first = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)
        self.across = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.first(x)))
        x = x + self.across(x.mean(0, keepdim=True))
        output: Tensor = self.head(x)
        return output


def test_layers_are_those_that_run_once_per_example() -> None:
    odd = Odd()
    assert adaptable(odd, odd.head, torch.ones(2, 4)) == ["first"]
    network = resnet(8, 4, 3, 1).eval()
    found = adaptable(network, head_of(network), torch.ones(2, 1, 8, 8))
    kinds = [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    assert sorted(found) == sorted(kinds)
    assert found[0] == "stem.0"


def test_without_a_layer_before_the_head_it_refuses() -> None:
    given = task(original=nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(InputError, match="rfa-lora needs a linear or convolution layer"):
        run("rfa-lora", given)


def test_all_else_is_bit_identical() -> None:
    """Head, biases and batch normalization, its statistics included."""
    given = task()
    student = run("rfa-lora", given, rank=2)
    assert same(given.original, student, skip=("0.weight",))
    assert list(student.state_dict()) == list(given.original.state_dict())
    change = student.state_dict()["0.weight"] - given.original.state_dict()["0.weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-3) == 2


def outputs(model: nn.Module, given: Task) -> Tensor:
    """(n, 16) of the first layer, the only one that is adapted."""
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        first: Tensor = model[0](given.inputs)
    return first


def test_forget_features_go_to_the_mean_of_the_others_which_stay() -> None:
    given = task()
    student = run("rfa-lora", given, gamma=1.0, beta=1.0, epochs=40)
    before, after = outputs(given.original, given), outputs(student, given)
    mean = before[~given.forget].mean(0)
    moved = (after - before).norm(dim=1)
    away, was = (after - mean).norm(dim=1), (before - mean).norm(dim=1)
    assert moved[~given.forget].mean() < 0.5 * moved[given.forget].mean()
    assert away[given.forget].mean() < 0.5 * was[given.forget].mean()


def test_the_class_goes_and_the_others_stay() -> None:
    given = task()
    student = run("rfa-lora", given, epochs=40)
    assert accuracy(student, given, given.forget) < 0.3
    assert accuracy(student, given, ~given.forget) > 0.95


def test_labels_of_forget_examples_are_averages_of_the_others() -> None:
    """With labels alone, outputs on the forget set become the mix of retain labels."""
    given = task()
    student = run("rfa-lora", given, gamma=0.0, mu=1.0, epochs=60)
    with torch.no_grad():
        mean = student(given.inputs[given.forget]).softmax(1).mean(0)
    assert mean[2] < 0.05
    assert mean[[0, 1, 3]].min() > 0.1


def test_batches_without_both_kinds_are_left_out() -> None:
    """One forget example: one step per epoch, for which the mean is that of its own batch."""
    forget = torch.zeros(400, dtype=torch.bool)
    forget[2] = True
    given = task("sample", forget=forget)
    student = run("rfa-lora", given, epochs=1, lr=0.01)
    change = (student.state_dict()["0.weight"] - given.original.state_dict()["0.weight"]).abs()
    # B is 0, so A has no gradient in the only step; AdamW moves each entry of B by its rate
    down = LowRank(given.original, ["0"], 8, generator(1)).parameters[1].detach()
    assert change.max() > 0.0
    assert (change <= 0.01 * down.abs().sum(0) * 1.01).all()


def test_the_rate_follows_the_kind_of_the_recipe() -> None:
    given = task()
    assert same(run("rfa-lora", given), run("rfa-lora", given, lr=0.1 * given.recipe.lr))


@pytest.mark.parametrize(("field", "value"), [("rank", 0), ("gamma", 2.0), ("mu", -1.0)])
def test_silly_values_are_refused(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^unlearners\.rfa-lora\.{field} must be .* \(got "):
        run("rfa-lora", task(), **{field: value})
