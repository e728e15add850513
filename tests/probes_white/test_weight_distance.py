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

from attacks.white_box import _canonical
from attacks.white_box._rebasin import Permutations, align, apply
from attacks.white_box._symmetries import Symmetries, UnsupportedError, find_symmetries
from attacks.white_box.weight_distance import WeightDistance, stderr_of_minimum
from unaudit.evidence import FloatArray, Scalar, Scenario, Skipped
from unaudit.loading.networks import mlp
from unaudit.training import initialize
from unaudit.white_box import WhiteBox

from .known import InMemory, digest_of, known, make_views
from .rescaling import (
    NETWORKS,
    Draw,
    by_unit,
    every_draw,
    every_network,
    lively,
    parameters_of,
    rescaled,
)


def examples(shape: tuple[int, ...]) -> InMemory:
    inputs = torch.randn((40, *shape), generator=torch.Generator().manual_seed(6))
    return InMemory(inputs, np.arange(40) % 3)


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
            examples(shape),
            {"forget": np.arange(20), "retain": np.arange(20, 40)},
            "sample",
            tmp_path / name,
        )
        before = digest_of(copy)
        same = WeightDistance()(views["own"], views["copy"], np.random.default_rng(0))
        assert isinstance(same, Scalar)
        assert same.value == pytest.approx(0.0, abs=1e-9)
        assert same.detail["unaligned"] > 0.1
        assert digest_of(copy) == before
        far = WeightDistance()(views["own"], views["other"], np.random.default_rng(0))
        assert isinstance(far, Scalar)
        assert 0.0 < far.value < far.detail["unaligned"]
        parts = np.square(list(far.detail["by_tensor"].values()))
        assert far.value == pytest.approx(np.sqrt(parts.sum()), rel=1e-5)


def distance(subject: WhiteBox, reference: WhiteBox) -> float:
    found = WeightDistance()(subject, reference, np.random.default_rng(0))
    assert isinstance(found, Scalar)
    return found.value


@every_network
@every_draw
def test_rescaling_is_no_distance(name: str, make: Callable[[], Draw], tmp_path: Path) -> None:
    network, shape = lively(name), NETWORKS[name][1]
    views = make_views(
        {"own": network, "rescaled": rescaled(network, make()), "other": lively(name, 8)},
        examples(shape),
        {"forget": np.arange(20), "retain": np.arange(20, 40)},
        "sample",
        tmp_path,
    )
    own, again, other = (views[key] for key in ("own", "rescaled", "other"))
    far, back = distance(own, other), distance(other, own)
    assert distance(own, again) < 1e-4 * far
    assert distance(again, other) == pytest.approx(far, rel=1e-4)
    assert distance(other, again) == pytest.approx(back, rel=1e-4)


def test_an_honest_model_in_another_scale_is_no_outlier(tmp_path: Path) -> None:
    world = known("class")
    names = [name for name in world.views if name.startswith("retrained")]
    own, *others = names
    honest = [distance(world.views[own], world.views[other]) for other in others]
    networks = {
        "rescaled": rescaled(world.networks[own], by_unit()),
        **{name: world.networks[name] for name in others},
    }
    digits = world.digits
    views = make_views(
        networks,
        InMemory(digits.inputs, digits.labels.numpy()),
        {"forget": digits.forget, "retain": digits.retain},
        "class",
        tmp_path,
    )
    found = [distance(views["rescaled"], views[other]) for other in others]
    np.testing.assert_allclose(found, honest, rtol=1e-4)
    raw = [parameters_of(networks[name]) for name in ("rescaled", others[0])]
    apart = np.sqrt(sum(np.square(raw[0][key] - raw[1][key]).sum() for key in raw[0]))
    assert apart > 2 * max(honest)


@pytest.mark.parametrize("scenario", ["class", "sample"])
def test_it_cannot_tell_the_original_from_retrained_models(scenario: Scenario) -> None:
    """The blind spot that the card names: seeds differ more than forgetting changes."""
    views = known(scenario).views
    names = [name for name in views if name.startswith("retrained")]

    def to_others(name: str) -> float:
        return float(
            np.mean([distance(views[name], views[other]) for other in names if other != name])
        )

    among = [to_others(name) for name in names]
    assert abs(to_others("original") - np.mean(among)) < 0.15 * np.mean(among)


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
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(3), nn.Linear(3, 2)), "does not fit"),
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False)), "no stored"),
    ],
    ids=["custom", "layer norm", "no weights", "grouped", "misfit", "other norm", "no statistics"],
)
def test_other_architectures_are_refused_with_the_reason(network: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        find_symmetries(network)


def skipped(subject: nn.Module, reference: nn.Module, folder: Path) -> str:
    """Why the distance between two networks of 12 inputs is not measured."""
    views = make_views(
        {"subject": subject, "reference": reference},
        examples((12,)),
        {"forget": np.arange(20), "retain": np.arange(20, 40)},
        "sample",
        folder,
    )
    found = WeightDistance()(views["subject"], views["reference"], np.random.default_rng(0))
    assert isinstance(found, Skipped)
    return found.reason


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
    assert reason in skipped(subject, reference, tmp_path)


@pytest.mark.parametrize("whose", ["model", "reference"])
def test_a_changed_function_is_no_rewriting(
    whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = _canonical.canonical, iter(("model", "reference"))

    def wrong(symmetries: Symmetries, state: _canonical.Weights) -> dict[str, FloatArray]:
        written = right(symmetries, state)
        if next(calls) == whose:
            written["head.bias"] = written["head.bias"] + np.arange(3.0)
        return written

    monkeypatch.setattr(_canonical, "canonical", wrong)
    assert f"the {whose} " in skipped(lively("mlp"), lively("mlp", 1), tmp_path)


def test_standard_error_of_a_minimum() -> None:
    values = np.array([3.0, 1.0, 2.5])
    minima = [min(draw) for draw in product(values, repeat=3)]
    assert stderr_of_minimum(values) == pytest.approx(np.std(minima))
    assert stderr_of_minimum(np.array([2.0])) == 0.0
