"""Attacks on per-example gradient norms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import nn

from attacks.white_box.gradient_mia import (
    SMALLEST,
    BlockGradientAttack,
    GradientAttack,
    HeadGradientAttack,
    last_block,
)
from unaudit.errors import UsageError
from unaudit.evidence import Scenario, Scores, Skipped
from unaudit.loading.networks import mlp, resnet
from unaudit.training import initialize

from .known import InMemory, known, make_views
from .test_gradients import by_loop

ATTACKS: tuple[GradientAttack, ...] = (HeadGradientAttack(), BlockGradientAttack())
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.card.name)


@every_attack
@pytest.mark.parametrize("scenario", ["class", "partial-class", "sample"])
def test_retrained_models_are_at_chance_and_the_original_above(
    attack: GradientAttack, scenario: Scenario
) -> None:
    world = known(scenario)
    found = {name: area(attack, name, scenario) for name in world.views}
    retrained = [found[name] for name in found if name.startswith("retrained")]
    assert abs(np.mean(retrained) - 0.5) < 0.04
    assert found["original"] > np.mean(retrained) + 0.01
    assert abs(found["random"] - 0.5) < 0.05


def area(attack: GradientAttack, name: str, scenario: Scenario) -> float:
    answer = attack(known(scenario).views[name], np.random.default_rng(2))
    assert isinstance(answer, Scores)
    assert answer.unseen is not None
    u = mannwhitneyu(answer.forget, answer.unseen).statistic
    return float(u) / (len(answer.forget) * len(answer.unseen))


@every_attack
def test_a_refitted_head_hides_it(attack: GradientAttack) -> None:
    """The blind spot that the card names."""
    fake, original = (area(attack, name, "class") for name in ("fake", "original"))
    assert fake < original


def test_scores_are_minus_log_norms_of_a_loop() -> None:
    world = known("class")
    view, network = world.views["original"], world.networks["original"]
    digits = world.digits
    rows = digits.forget
    for attack, wanted in ((ATTACKS[0], "head"), (ATTACKS[1], "linear2")):
        parameters = list(network.get_submodule(wanted).parameters())
        expected = by_loop(network, parameters, digits.inputs[rows], digits.labels[rows])
        answer = attack(view, np.random.default_rng(0))
        assert isinstance(answer, Scores)
        np.testing.assert_allclose(answer.forget, -expected.log().numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("network", "shape", "layer", "first"),
    [
        (mlp((6, 5, 4, 3)), (6,), "relu1", "module.linear2.weight"),
        (mlp((6, 4, 3)), (6,), None, "linear1.weight"),
        (resnet(8, 4, 3, 2), (2, 8, 8), "stage2", "module.stage3.0.conv1.weight"),
    ],
    ids=["mlp", "one hidden layer", "resnet"],
)
def test_the_last_block_is_found(
    network: nn.Module, shape: tuple[int, ...], layer: str | None, first: str, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((90, *shape), generator=generator)
    labels = np.arange(90) % 3
    split = np.arange(90, dtype=np.int64)
    view = make_views(
        {"toy": initialize(network, generator)},
        InMemory(inputs, labels),
        {"forget": split[:30], "retain": split[30:60], "unseen": split[60:]},
        "sample",
        tmp_path,
    )["toy"]
    found, behind, parameters = last_block(view)
    assert found == layer
    named = {id(parameter): name for name, parameter in behind.named_parameters()}
    assert named[id(parameters[0])] == first
    assert not any("head" in named[id(parameter)] for parameter in parameters)
    answer = BlockGradientAttack()(view, np.random.default_rng(0))
    assert isinstance(answer, Scores)
    whole = [
        parameter
        for name, parameter in network.named_parameters()
        if any(f"module.{name}" == key or name == key for key in named.values())
        and "head" not in name
    ]
    expected = by_loop(network.eval(), whole, inputs[:30], torch.from_numpy(labels[:30]))
    expected = expected.clamp(min=SMALLEST)
    np.testing.assert_allclose(answer.forget, -expected.log().numpy(), rtol=1e-3, atol=1e-4)


@every_attack
def test_a_network_without_a_linear_head_is_skipped(attack: GradientAttack, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten())
    inputs = torch.randn((90, 2, 4, 4), generator=generator)
    split = np.arange(90, dtype=np.int64)
    view = make_views(
        {"toy": network},
        InMemory(inputs, split % 3),
        {"forget": split[:30], "retain": split[30:60], "unseen": split[60:]},
        "sample",
        tmp_path,
    )["toy"]
    with pytest.raises(Exception, match="no linear layer"):
        _ = view.head
    answer = attack(view, np.random.default_rng(0))
    assert isinstance(answer, Skipped)
    assert "no linear layer" in answer.reason


@every_attack
def test_samples_are_drawn_alike_for_all_models(attack: GradientAttack) -> None:
    world = known("sample")
    small = type(attack)(max_examples=40)
    answers = [
        small(world.views[name], np.random.default_rng(4)) for name in ("original", "random")
    ]
    for answer in answers:
        assert isinstance(answer, Scores)
        assert answer.rows.keys() == {"forget", "unseen", "retain"}
        assert len(answer.forget) == 40
        for split in answer.rows:
            np.testing.assert_array_equal(answer.rows[split], answers[0].rows[split])  # type: ignore[union-attr]


@every_attack
def test_bad_parameters_are_refused(attack: GradientAttack) -> None:
    with pytest.raises(UsageError, match=f"probes.{attack.card.name}.max_examples"):
        type(attack)(max_examples=3)
