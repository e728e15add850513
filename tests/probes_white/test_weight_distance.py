"""Alignment: planted permutations come back, renaming changes nothing, distances are distances."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations as orders
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attacks.white_box._rebasin import (
    Permutations,
    Symmetries,
    UnsupportedError,
    align,
    apply,
    find_symmetries,
)
from attacks.white_box.weight_distance import WeightDistance, parameters_of, stderr_of_minimum
from unaudit.evidence import Scalar, Scenario, Skipped
from unaudit.loading.networks import mlp, resnet
from unaudit.training import initialize

from .known import InMemory, digest_of, known, make_views


def plain_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 2),
        nn.ReLU(), nn.Flatten(), nn.Linear(20, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int]]] = {
    "mlp": (lambda: mlp((12, 9, 8, 3)), (12,), [9, 8]),
    "plain": (plain_cnn, (2, 8, 8), [6, 5, 7]),
    # stem and the first stage's sums; its inside; sums and inside of the others
    "residual": (lambda: resnet(14, 4, 3, 2), (2, 8, 8), [4, 4, 4, 8, 8, 8, 16, 16, 16]),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def lively(name: str, seed: int = 0) -> nn.Module:
    """A network whose normalization is not that of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    network = initialize(NETWORKS[name][0](), generator).eval()
    for tensor in network.state_dict().values():
        if tensor.ndim == 1:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network


def planted(symmetries: Symmetries, seed: int) -> Permutations:
    rng = np.random.default_rng(seed)
    return tuple(rng.permutation(size) for size in symmetries.sizes)


def is_inverse(found: Permutations, planted: Permutations) -> bool:
    pairs = zip(found, planted, strict=True)
    return all((there[back] == np.arange(len(back))).all() for back, there in pairs)


@every_network
def test_renaming_units_changes_no_output(name: str) -> None:
    network, shape, sizes = lively(name), NETWORKS[name][1], NETWORKS[name][2]
    symmetries = find_symmetries(network)
    assert symmetries.sizes == sizes
    inputs = torch.randn((5, *shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(inputs)
        state = {key: value.numpy().copy() for key, value in network.state_dict().items()}
        shifted = tuple(np.roll(np.arange(size), 1) for size in sizes)
        renamed = apply(symmetries, state, shifted)
        changed = [key for key in state if not np.array_equal(state[key], renamed[key])]
        assert set(changed) == {axis.tensor for axis in symmetries.axes}
        network.load_state_dict(
            {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in renamed.items()}
        )
        torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-5)


@every_network
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_planted_permutations_come_back(name: str, noise: float) -> None:
    rng = np.random.default_rng(3)
    for seed in range(5):
        network = lively(name, seed)
        symmetries, weights = find_symmetries(network), parameters_of(network)
        hidden = planted(symmetries, seed)
        moved = {
            key: value + noise * weights[key].std() * rng.normal(size=value.shape)
            for key, value in apply(symmetries, weights, hidden).items()
        }
        (squared, found), *_ = align(symmetries, weights, moved, 1, rng)
        assert is_inverse(found, hidden)
        if noise == 0.0:
            assert squared == 0.0


def test_random_starts_find_planted_permutations_of_an_mlp() -> None:
    rng = np.random.default_rng(4)
    network = lively("mlp")
    symmetries, weights = find_symmetries(network), parameters_of(network)
    hidden = planted(symmetries, 5)
    starts = align(symmetries, weights, apply(symmetries, weights, hidden), 6, rng)[1:]
    assert any(is_inverse(found, hidden) for _, found in starts)


def test_the_optimum_of_a_tiny_network_is_found() -> None:
    """By trying every permutation."""
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        one, two = (initialize(mlp((5, 4, 3, 2)), generator) for _ in range(2))
        symmetries = find_symmetries(one)
        fixed, moved = parameters_of(one), parameters_of(two)
        every = product(orders(range(4)), orders(range(3)))
        least = min(
            sum(
                np.square(fixed[key] - value).sum()
                for key, value in apply(
                    symmetries, moved, tuple(np.array(part) for part in both)
                ).items()
            )
            for both in every
        )
        found = align(symmetries, fixed, moved, 20, np.random.default_rng(seed))
        assert min(squared for squared, _ in found) == pytest.approx(least)


def test_distance_of_a_renamed_copy_is_zero_and_its_tensors_add_up(tmp_path: Path) -> None:
    for name in NETWORKS:
        network, shape = lively(name), NETWORKS[name][1]
        symmetries = find_symmetries(network)
        copy = lively(name)
        state = {key: value.numpy().copy() for key, value in network.state_dict().items()}
        renamed = apply(symmetries, state, planted(symmetries, 1))
        copy.load_state_dict(
            {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in renamed.items()}
        )
        views = make_views(
            {"own": network, "copy": copy, "other": lively(name, 8)},
            InMemory(torch.randn((40, *shape)), np.arange(40) % 3),
            {"forget": np.arange(20), "retain": np.arange(20, 40)},
            "sample",
            tmp_path / name,
        )
        before = digest_of(copy)
        same = WeightDistance()(views["own"], views["copy"], np.random.default_rng(0))
        assert isinstance(same, Scalar)
        assert same.value == 0.0
        assert same.detail["unaligned"] > 0.1
        assert digest_of(copy) == before
        far = WeightDistance()(views["own"], views["other"], np.random.default_rng(0))
        assert isinstance(far, Scalar)
        assert 0.0 < far.value < far.detail["unaligned"]
        parts = np.square(list(far.detail["by_tensor"].values()))
        assert far.value == pytest.approx(np.sqrt(parts.sum()), rel=1e-5)


@pytest.mark.parametrize("scenario", ["class", "sample"])
def test_it_cannot_tell_the_original_from_retrained_models(scenario: Scenario) -> None:
    """The blind spot that the card names: seeds differ more than forgetting changes."""
    views = known(scenario).views
    names = [name for name in views if name.startswith("retrained")]

    def distance(name: str) -> float:
        found = [
            WeightDistance()(views[name], views[other], np.random.default_rng(0))
            for other in names
            if other != name
        ]
        return float(np.mean([scalar.value for scalar in found if isinstance(scalar, Scalar)]))

    among = [distance(name) for name in names]
    assert abs(distance("original") - np.mean(among)) < 0.15 * np.mean(among)


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(x))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Custom(), "no plain sequence"),
        (nn.Sequential(nn.Linear(12, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "LayerNorm"),
        (nn.Sequential(nn.Flatten()), "no layers with weights"),
        (nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2)), "grouped"),
        (nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Linear(9, 3)), "does not fit"),
    ],
    ids=["custom", "layer norm", "no weights", "grouped", "misfit"],
)
def test_other_architectures_are_refused_with_the_reason(network: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        find_symmetries(network)


@pytest.mark.parametrize(
    ("subject", "reference", "reason"),
    [
        (Custom(), Custom(), "Custom is no plain sequence"),
        (mlp((12, 5, 3)), mlp((12, 6, 3)), "different names or shapes"),
    ],
    ids=["custom", "sizes"],
)
def test_what_cannot_be_aligned_is_skipped(
    subject: nn.Module, reference: nn.Module, reason: str, tmp_path: Path
) -> None:
    views = make_views(
        {"subject": subject, "reference": reference},
        InMemory(torch.randn((40, 12)), np.arange(40) % 3),
        {"forget": np.arange(20), "retain": np.arange(20, 40)},
        "sample",
        tmp_path,
    )
    found = WeightDistance()(views["subject"], views["reference"], np.random.default_rng(0))
    assert isinstance(found, Skipped)
    assert reason in found.reason


def test_standard_error_of_a_minimum() -> None:
    values = np.array([3.0, 1.0, 2.5])
    minima = [min(draw) for draw in product(values, repeat=3)]
    assert stderr_of_minimum(values) == pytest.approx(np.std(minima))
    assert stderr_of_minimum(np.array([2.0])) == 0.0
