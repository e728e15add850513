"""Networks that draw at random in training follow their generator, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unaudit.training import Recipe, fit, initialize
from unaudit.training.draws import own_draws
from unaudit.training.ensemble import fit_ensemble
from unaudit.training.many import fit_many

WIDTH, CLASSES = 8, 3
CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch=10)


class Attending(nn.Module):
    """Dropout within attention, where no layer of its own stands for it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pair = x.unflatten(1, (2, 4))
        given: Tensor = self.head(self.attention(pair, pair, pair)[0].flatten(1))
        return given


class Hidden(nn.Module):
    """Drops by a function: no layer says so."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.head(nn.functional.dropout(x, 0.5, self.training))
        return given


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5), nn.Linear(WIDTH, CLASSES))


def leaky() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.RReLU(), nn.Linear(WIDTH, CLASSES))


DRAWING = (dropping, Attending, Hidden, leaky)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(45, WIDTH, generator=generator(1))
    return inputs, inputs[:, :CLASSES].argmax(1)


def trained(build: Callable[[], nn.Module], outside: int, seed: int = 0) -> dict[str, Tensor]:
    """Weights, after whatever has drawn ``outside`` from the global generator."""
    inputs, labels = problem()
    with torch.random.fork_rng(devices=[]):
        model = initialize(build(), generator())
        torch.default_generator.manual_seed(outside)
        return fit(model, inputs, labels, RECIPE, generator(seed)).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("build", DRAWING)
def test_the_generator_alone_decides_the_weights(build: Callable[[], nn.Module]) -> None:
    assert same(trained(build, outside=1), trained(build, outside=2))
    assert not same(trained(build, outside=1), trained(build, outside=1, seed=5))


@pytest.mark.parametrize("build", DRAWING)
def test_training_leaves_the_global_generator_alone(build: Callable[[], nn.Module]) -> None:
    inputs, labels = problem()
    model = initialize(build(), generator())
    before = torch.random.get_rng_state()
    fit(model, inputs, labels, RECIPE, generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_left_alone_where_training_fails() -> None:
    inputs, labels = problem()
    model = dropping()
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(model, inputs[:, :3], labels, RECIPE, generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_masks_differ_from_step_to_step_and_from_fit_to_fit() -> None:
    own = generator()
    drawn = []
    for _ in range(2):
        with own_draws(own, CPU):
            drawn += [torch.rand(4), torch.rand(4)]
        torch.rand(1, generator=own)  # as the order of examples does
    assert len({tuple(row.tolist()) for row in drawn}) == 4


def test_nothing_is_drawn_from_the_generator_itself() -> None:
    own = generator()
    with own_draws(own, CPU):
        torch.rand(3)
    assert torch.equal(own.get_state(), generator().get_state())


@pytest.mark.parametrize("build", DRAWING)
def test_ensembles_train_such_networks_as_the_loop_does(build: Callable[[], nn.Module]) -> None:
    inputs, labels = problem()
    rows = [torch.arange(45), torch.arange(40)]
    before = torch.random.get_rng_state()
    found = [
        fit_ensemble(build, inputs, labels, rows, RECIPE, [generator(3), generator(4)]),
        fit_many(build, inputs, labels, rows, RECIPE, [generator(3), generator(4)], way="stacked")[
            0
        ],
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    for number, own in enumerate(rows):
        with torch.random.fork_rng(devices=[]):
            draws = generator(3 + number)
            model = initialize(build(), draws)
        alone = fit(model, inputs, labels, RECIPE, draws, rows=own).state_dict()
        for models in found:
            assert same(alone, models[number].state_dict())
