"""Scales of weights: rows and columns of even norm, and the same steps however a network is
written."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.white_box import _scales
from attacks.white_box._scales import Scales, balance, find_scales
from unaudit.evidence import FloatArray
from unaudit.loading.networks import mlp
from unaudit.training import initialize

from .rescaling import NETWORKS, Draw, every_draw, every_network, lively, rescaled
from .transformer import SHAPE, Transformer


def scales_of(network: nn.Module, shape: tuple[int, ...], head: str, spread: float = 9.0) -> Scales:
    inputs = [
        torch.randn((20, *shape), generator=torch.Generator().manual_seed(seed))
        for seed in range(2)
    ]
    return find_scales(network, head, spread, inputs, torch.Generator().manual_seed(5))


def head_of(name: str) -> str:
    return "10" if name == "plain" else "head"


def by_hand(squares: FloatArray) -> FloatArray:
    """One number at a time."""
    n, m = squares.shape
    left = squares.copy()
    for _ in range(2000):
        for j in range(m):
            left[:, j] *= n / m / left[:, j].sum()
        for i in range(n):
            left[i] /= left[i].sum()
    return squares / left


def test_rows_and_columns_get_even_norms() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 5, 7)) * rng.uniform(0.01, 9, (2, 1, 7))
    found = balance(np.square(weights))
    left = np.square(weights) / found
    np.testing.assert_allclose(left.sum(axis=2), 1.0)
    np.testing.assert_allclose(left.sum(axis=1), 5 / 7, rtol=1e-5)
    for one, matrix in zip(found, weights, strict=True):
        np.testing.assert_allclose(one, by_hand(np.square(matrix)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3000, 16), (16, 3000)])
def test_long_and_narrow_matrices_are_balanced_in_few_rounds(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # such as embeddings of a large vocabulary, one of whose rows is that of padding
    squares = np.square(np.random.default_rng(2).normal(size=shape))
    squares[0] = 0.0
    found = balance(squares)
    assert np.isfinite(found).all()
    left = squares[1:] / found[1:]
    np.testing.assert_allclose(left.sum(axis=1), 1.0)
    np.testing.assert_allclose(left.sum(axis=0), (shape[0] - 1) / shape[1], rtol=1e-5)
    monkeypatch.setattr(_scales, "MAX_ROUNDS", 30)
    np.testing.assert_array_equal(balance(squares), found)


def test_what_is_all_zero_has_no_scale() -> None:
    squares = np.square(np.random.default_rng(1).normal(size=(4, 3)))
    squares[1], squares[:, 2] = 0.0, 0.0
    found = balance(squares)
    assert not found[1].any()
    assert not found[:, 2].any()
    rest = np.ix_([0, 2, 3], [0, 1])
    left = squares[rest] / found[rest]
    np.testing.assert_allclose(left.sum(axis=1), 1.0)
    np.testing.assert_allclose(left.sum(axis=0), left.sum() / 2, rtol=1e-5)
    assert not balance(np.zeros((2, 3))).any()


def test_weights_that_cannot_be_balanced_come_to_an_end() -> None:
    found = balance(np.tri(6))
    assert np.isfinite(found).all()


@every_network
@every_draw
def test_scales_follow_the_weights(name: str, make: Callable[[], Draw]) -> None:
    network, shape = lively(name), NETWORKS[name][1]
    other = rescaled(network, make())
    one, two = (scales_of(each, shape, head_of(name)) for each in (network, other))
    weights = dict(network.named_parameters()), dict(other.named_parameters())
    assert set(one) == set(two)
    for key, scale in one.items():
        assert scale.shape == weights[0][key].shape
        torch.testing.assert_close(
            two[key] * weights[0][key], scale * weights[1][key], rtol=1e-3, atol=1e-6
        )


def test_normalization_and_what_is_no_matrix_stays() -> None:
    found = scales_of(lively("residual"), NETWORKS["residual"][1], "head")
    assert {"head.weight", "head.bias", "stem.0.weight", "stage2.0.shortcut.0.weight"} <= set(found)
    assert not any("bn" in key or key.endswith(".1.weight") for key in found)
    network = initialize(Transformer(), torch.Generator().manual_seed(0)).eval()
    found = scales_of(network, SHAPE, "head")
    assert {"block.self_attn.in_proj_weight", "block.linear1.bias", "head.bias"} <= set(found)
    assert not any("norm" in key for key in found)


def test_normalization_of_several_axes_stays_too() -> None:
    layers = (nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    found = scales_of(nn.Sequential(*layers).eval(), (3, 4), "4")
    assert set(found) == {"2.weight", "2.bias", "4.weight", "4.bias"}


def test_groups_of_a_convolution_are_balanced_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = initialize(nn.Conv2d(4, 6, 3, groups=2), generator)
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3)).eval()
    grouped = scales_of(network, (4, 4, 4), "2")["0.weight"]
    for group in range(2):
        own = nn.Conv2d(2, 3, 3)
        rows = slice(3 * group, 3 * group + 3)
        with torch.no_grad():
            own.weight.copy_(layer.get_parameter("weight")[rows])
            own.bias.copy_(layer.get_parameter("bias")[rows])  # type: ignore[union-attr]
        alone = nn.Sequential(own, nn.Flatten(), nn.Linear(12, 3)).eval()
        torch.testing.assert_close(scales_of(alone, (2, 4, 4), "2")["0.weight"], grouped[rows])


def features(network: nn.Module, inputs: Tensor) -> FloatArray:
    with torch.no_grad():
        return np.asarray(network[:-1](inputs).double().numpy())  # type: ignore[index]


def test_features_have_the_spread_that_was_asked_for() -> None:
    network = initialize(mlp((12, 9, 8, 3)), torch.Generator().manual_seed(0)).eval()
    inputs = torch.randn((50, 12), generator=torch.Generator().manual_seed(1))
    found = find_scales(network, "head", 25.0, [inputs], torch.Generator().manual_seed(2))
    root = found["head.weight"][0].double().numpy()
    assert (features(network, inputs) * root).var(axis=0).sum() == pytest.approx(25.0, rel=1e-5)
    assert (found["head.weight"] == found["head.weight"][0]).all()
    assert (found["head.bias"] == 1).all()


def test_a_feature_is_measured_by_how_far_jitter_moves_it() -> None:
    """Of one linear layer that distance is known: the norm of its scaled inputs."""
    generator = torch.Generator().manual_seed(0)
    network = initialize(nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2)), generator)
    inputs = torch.randn((30, 4), generator=generator)
    found = find_scales(network.eval(), "1", 1.0, [inputs], torch.Generator().manual_seed(0))
    scale = found["0.weight"].double()
    moved = (scale.square() @ inputs.double().square().T).max(dim=1).values
    measured = found["1.weight"][0].double().square() * moved
    # 32 jitters leave a quarter of noise
    assert (measured / measured.mean() - 1).abs().max() < 0.6


def test_a_network_without_hidden_weights_is_measured_by_its_spread() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    inputs = torch.randn((30, 4), generator=torch.Generator().manual_seed(0))
    inputs = inputs * torch.tensor([1.0, 10.0, 0.1, 0.0])
    found = find_scales(network, "1", 3.0, [inputs], torch.Generator())["1.weight"][0]
    np.testing.assert_allclose((inputs * found).var(dim=0, correction=0), [1, 1, 1, 0], atol=1e-6)
    assert found[3] == 0


def test_the_network_stays_as_it_is_and_the_generator_decides() -> None:
    network = lively("mlp")
    before = copy.deepcopy(network.state_dict())
    one, two = (scales_of(network, (12,), "head") for _ in range(2))
    for key, scale in one.items():
        torch.testing.assert_close(scale, two[key], rtol=0, atol=0)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
