"""Per-example gradient norms against a loop of backward passes, and the attacks on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

from attacks.white_box import _gradients
from attacks.white_box._gradients import by_transform, gradient_norms, log_head_norms
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

ATTACKS: tuple[GradientAttack, ...] = (HeadGradientAttack(), BlockGradientAttack())
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.card.name)


def by_loop(
    network: nn.Module, parameters: Sequence[nn.Parameter], inputs: Tensor, labels: Tensor
) -> Tensor:
    norms = []
    for own, label in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(network(own[None]), label[None])
        gradients = torch.autograd.grad(loss, list(parameters))
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    return torch.stack(norms)


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Scale(nn.Module):
    """A layer that nothing is known about."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([0.5, 1.0, -2.0, 1.5]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Twice(nn.Module):
    """A layer that runs twice: its gradients add up before the norm is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.shared(torch.relu(self.shared(x)))))


def conv2d(**options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3, **options),  # type: ignore[arg-type]
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: mlp((4, 5, 3)), (4,)),
    "linear over positions": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(15, 3)),
        (3, 4),
    ),
    "convolution": (conv2d(), (4, 7, 7)),
    "strided, padded, dilated": (conv2d(stride=2, padding=2, dilation=2), (4, 9, 7)),
    "same padding": (conv2d(padding="same"), (4, 5, 5)),
    "circular padding": (conv2d(padding=1, padding_mode="circular"), (4, 5, 5)),
    "grouped, no bias": (conv2d(groups=2, bias=False), (4, 6, 6)),
    "one position": (conv2d(), (4, 3, 3)),
    "convolution in 1-D": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, stride=2), nn.Flatten(), nn.Linear(16, 3)),
        (2, 9),
    ),
    "batch norm": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Linear(4, 3),
        ),
        (2, 5, 5),
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Flatten(), nn.Linear(18, 3)),
        (3, 4),
    ),
    "layer norm over all": (
        lambda: nn.Sequential(nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(12, 3)),
        (3, 4),
    ),
    "group norm": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 3)
        ),
        (2, 5, 5),
    ),
    "unknown layer": (lambda: nn.Sequential(nn.Linear(4, 4), Scale(), nn.Linear(4, 3)), (4,)),
    "shared layer": (Twice, (4,)),
    "residual": (lambda: resnet(8, 4, 3, 2), (2, 8, 8)),
}  # fmt: skip


def trained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with lively statistics, and a batch."""
    make, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    network = make().eval()
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(noise, alpha=0.3)
    for key, buffer in network.named_buffers():
        if "running" in key:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.2)
    inputs = torch.randn((7, *shape), generator=generator)
    return network, inputs, torch.randint(3, (7,), generator=generator)


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_equal_a_loop(name: str) -> None:
    network, inputs, labels = trained(name)
    parameters = list(network.parameters())
    expected = by_loop(network, parameters, inputs, labels)
    assert_near(gradient_norms(network, parameters, inputs, labels), expected)
    assert_near(by_transform(network, parameters, inputs, labels), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_of_some_parameters_equal_a_loop(name: str) -> None:
    network, inputs, labels = trained(name)
    parameters = list(network.parameters())[1::2]
    expected = by_loop(network, parameters, inputs, labels)
    assert_near(gradient_norms(network, parameters, inputs, labels), expected)


def test_small_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs, labels = trained("residual")
    parameters = list(network.parameters())
    whole = gradient_norms(network, parameters, inputs, labels)
    monkeypatch.setattr(_gradients, "ELEMENTS_AT_ONCE", 1)
    assert_near(gradient_norms(network, parameters, inputs, labels), whole)


def test_both_ways_to_a_convolution_are_taken() -> None:
    few = nn.Conv2d(16, 16, 3)  # 4 positions against 2304 weights
    many = nn.Conv2d(1, 2, 3)  # 100 positions against 18
    for layer, size in ((few, 4), (many, 12)):
        given = torch.randn(3, layer.in_channels, size, size)
        output = layer(given)
        gradient = torch.randn_like(output)
        expected = []
        for own, back in zip(given, gradient, strict=True):
            pair = torch.autograd.grad((layer(own[None]) * back[None]).sum(), [*layer.parameters()])
            expected.append(torch.cat([part.flatten() for part in pair]).square().sum())
        found = _gradients._convolution(layer, given, gradient)
        torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("bias", [True, False])
def test_head_norms_equal_a_loop(bias: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    head = nn.Linear(5, 4, bias=bias)
    features = torch.randn((9, 5), generator=generator)
    labels = torch.randint(4, (9,), generator=generator)
    expected = by_loop(head, list(head.parameters()), features, labels)
    logits = head(features).detach().double().numpy()
    found = log_head_norms(logits, labels.numpy(), features.double().numpy(), bias)
    np.testing.assert_allclose(np.exp(found), expected.detach().numpy(), rtol=1e-5)


def test_head_norms_survive_certainty() -> None:
    logits = np.array([[0.0, 100.0], [0.0, 200.0], [900.0, 0.0]])
    found = log_head_norms(logits, np.array([1, 1, 1]), np.ones((3, 3)), True)
    # ‖p − y‖ = √2 (1 − p_y) with two classes, ‖(1, 1, 1, 1)‖ = 2
    np.testing.assert_allclose(found, np.log(2 * np.sqrt(2)) + np.array([-100.0, -200.0, 0.0]))
    dead = log_head_norms(logits, np.array([1, 1, 1]), np.zeros((3, 3)), False)
    assert np.isfinite(dead).all()


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
