"""The fit loop and fresh weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unaudit.errors import InputError
from unaudit.training import DivergedError, Recipe, fit, initialize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.randn(120, 4, generator=generator(1))
    return inputs, (inputs[:, 0] > 0).long()


def network(seed: int = 0) -> nn.Module:
    return initialize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), generator(seed))


def test_fit_learns_a_separable_problem() -> None:
    inputs, labels = problem()
    model = fit(network(), inputs, labels, Recipe(epochs=40), generator())
    assert (model(inputs).argmax(1) == labels).float().mean() > 0.97
    assert not model.training


def test_fit_is_one_plain_sgd_loop() -> None:
    inputs, labels = problem()
    recipe = Recipe(lr=0.05, epochs=2, batch=50, schedule="constant", weight_decay=0.01)
    model = fit(network(), inputs, labels, recipe, generator(3))
    naive, order = network(), generator(3)
    velocity = [torch.zeros_like(p) for p in naive.parameters()]
    for _ in range(2):
        rows = torch.randperm(120, generator=order)
        for batch in (rows[:50], rows[50:100], rows[100:]):
            loss = nn.functional.cross_entropy(naive(inputs[batch]), labels[batch])
            gradients = torch.autograd.grad(loss, list(naive.parameters()))
            with torch.no_grad():
                for p, g, v in zip(naive.parameters(), gradients, velocity, strict=True):
                    v.mul_(0.9).add_(g + 0.01 * p)
                    p.sub_(0.05 * v)
    for ours, theirs in zip(model.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_cosine_schedule_ends_at_zero() -> None:
    inputs, labels = problem()
    model = network()
    short = fit(model, inputs, labels, Recipe(epochs=1, batch=120, lr=0.0), generator())
    assert torch.equal(short[0].weight, network()[0].weight)  # type: ignore[index]


def test_same_generator_same_model() -> None:
    inputs, labels = problem()
    first = fit(network(), inputs, labels, Recipe(epochs=3), generator(5))
    second = fit(network(), inputs, labels, Recipe(epochs=3), generator(5))
    other = fit(network(), inputs, labels, Recipe(epochs=3), generator(6))
    state = first.state_dict()
    assert all(torch.equal(state[k], v) for k, v in second.state_dict().items())
    assert not all(torch.equal(state[k], v) for k, v in other.state_dict().items())


def test_only_the_named_parameters_move() -> None:
    inputs, labels = problem()
    model = network()
    head = list(model[2].parameters())  # type: ignore[index]
    fit(model, inputs, labels, Recipe(epochs=2), generator(), parameters=head)
    fresh = network()
    assert torch.equal(model[0].weight, fresh[0].weight)  # type: ignore[index]
    assert not torch.equal(model[2].weight, fresh[2].weight)  # type: ignore[index]


def test_divergence_is_an_error_that_says_so() -> None:
    inputs, labels = problem()
    with pytest.raises(DivergedError, match="lower the learning rate"):
        fit(network(), inputs * 1e20, labels, Recipe(lr=1e10), generator())


def test_initialize_leaves_the_global_generator_alone() -> None:
    layer = nn.Linear(3, 2)
    before = torch.random.get_rng_state()
    initialize(layer, generator())
    assert torch.equal(before, torch.random.get_rng_state())


def test_initialize_draws_from_the_default_scheme() -> None:
    layer = nn.Linear(100, 400)
    initialize(layer, generator())
    bound = 1 / math.sqrt(100)
    assert layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert layer.bias.abs().max() <= bound


def test_initialize_resets_normalization() -> None:
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(8, 3, 4, 4, generator=generator()))
    with torch.no_grad():
        norm.weight.fill_(5.0)
    initialize(norm, generator())
    assert torch.equal(norm.weight, torch.ones(3))
    assert torch.equal(norm.running_mean, torch.zeros(3))  # type: ignore[arg-type]


def test_initialize_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="Embedding"):
        initialize(nn.Embedding(3, 2), generator())


def test_initialize_knows_attention() -> None:
    layer = nn.MultiheadAttention(8, 2)
    initialize(layer, generator())
    assert layer.in_proj_weight.abs().max() <= math.sqrt(6 / (8 + 24))
    assert torch.equal(layer.in_proj_bias, torch.zeros(24))
    again = initialize(nn.MultiheadAttention(8, 2), generator()).state_dict()
    assert all(torch.equal(again[key], value) for key, value in layer.state_dict().items())
