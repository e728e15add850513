"""Per-example gradient norms against a loop of backward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks.white_box import _gradients, _outer_products
from attacks.white_box._gradients import by_transform, gradient_norms, log_head_norms
from unaudit.loading.networks import mlp, resnet


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
    """To the precision of doubles, which leaves no room for anything but rounding."""
    assert found.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


class Scale(nn.Module):
    """A layer that nothing is known about."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([0.5, 1.0, -2.0, 1.5]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Halving(nn.Module):
    """What it does depends on what it is given, which no transform of many examples can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * (inputs / 2 if bool((inputs > 9).any()) else inputs)


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
    "wide convolution": (
        lambda: nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.Flatten(), nn.Linear(108, 3)),
        (8, 3, 3),
    ),
    "unknown layer": (lambda: nn.Sequential(nn.Linear(4, 4), Scale(), nn.Linear(4, 3)), (4,)),
    "shared layer": (Twice, (4,)),
    "code that looks at values": (lambda: nn.Sequential(Halving(), nn.Linear(4, 3)), (4,)),
    "residual": (lambda: resnet(8, 4, 3, 2), (2, 8, 8)),
}  # fmt: skip


def trained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with lively statistics, and a batch, in double precision."""
    make, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    network = make().eval().double()
    for parameter in network.parameters():
        own = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        # one-dimensional: scales and shifts
        parameter.data = own / own[0].numel() ** 0.5 if own.dim() > 1 else 1.0 + 0.3 * own
    for key, buffer in network.named_buffers():
        if "running" in key:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.2)
    inputs = torch.randn((7, *shape), generator=generator, dtype=torch.float64)
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


@pytest.mark.parametrize("name", ["residual", "wide convolution", "linear over positions"])
def test_small_pieces_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs, labels = trained(name)
    parameters = list(network.parameters())
    outer, formed = (
        norms(network, parameters, inputs, labels) for norms in (gradient_norms, by_transform)
    )
    monkeypatch.setattr(_outer_products, "NUMBERS_IN_CACHE", 1)
    monkeypatch.setattr(_gradients, "ELEMENTS_AT_ONCE", 1)
    assert_near(gradient_norms(network, parameters, inputs, labels), outer)
    assert_near(by_transform(network, parameters, inputs, labels), formed)


def test_single_precision_is_enough() -> None:
    network, inputs, labels = trained("residual")
    expected = by_loop(network, list(network.parameters()), inputs, labels)
    network.float()
    found = gradient_norms(network, list(network.parameters()), inputs.float(), labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0.0)


def test_gradients_that_cancel_leave_no_less_than_zero() -> None:
    """Equal inputs everywhere times what sums to zero: only rounding is left, of either sign."""
    generator = torch.Generator().manual_seed(0)
    convolution, head = nn.Conv2d(64, 64, 3, bias=False), nn.Linear(256, 2)
    weight = torch.randn((2, 64, 4), generator=generator)
    head.weight.data = (weight - weight.mean(dim=2, keepdim=True)).flatten(1)
    network = nn.Sequential(convolution, nn.Flatten(), head)
    inputs = torch.randn((40, 64, 1, 1), generator=generator).mul(1e3).expand(-1, -1, 4, 4)
    labels = torch.randint(2, (40,), generator=generator)
    found = gradient_norms(network, [convolution.weight], inputs, labels)
    assert (found >= 0).all()
    assert (found == 0).any()  # what rounding left was negative


WINDOWS: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "many weights, few positions": (nn.Conv2d(16, 16, 3), (3, 3), "_by_patches"),
    "few weights, many positions": (nn.Conv2d(1, 2, 3), (12, 12), "_formed"),
    "strided": (nn.Conv2d(8, 16, 3, stride=2, padding=1), (16, 16), "_formed"),
    "many of both": (nn.Conv2d(32, 32, 3, padding=1), (6, 6), "by_pixels"),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_a_convolution_goes_the_cheapest_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, size, way = WINDOWS[name]
    taken = []
    for owner, key in (
        (_outer_products, "_formed"),
        (_outer_products, "_by_patches"),
        (_outer_products.Window, "by_pixels"),
    ):
        original = getattr(owner, key)

        def spy(
            *values: object, key: str = key, original: Callable[..., Tensor] = original
        ) -> Tensor:
            taken.append(key)
            return original(*values)

        monkeypatch.setattr(owner, key, spy)
    check_convolution(layer.double(), size)
    assert set(taken) == {way}


def check_convolution(layer: nn.Module, size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Its norms equal a loop's; returns what it was given, what came back and the weight's part."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    generator = torch.Generator().manual_seed(0)
    shape = (3, layer.in_channels, *size)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    outputs = layer(inputs)
    back = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    weights, whole = [], []
    for own, gradient in zip(inputs, back, strict=True):
        parts = torch.autograd.grad(
            (layer(own[None]) * gradient[None]).sum(), [*layer.parameters()]
        )
        squares = [part.square().sum() for part in parts]
        weights.append(squares[0])
        whole.append(torch.stack(squares).sum())
    with torch.no_grad():
        assert_near(_outer_products._convolution(layer, inputs, back), torch.stack(whole))
    return inputs, back, torch.stack(weights)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    padding=st.one_of(st.just("same"), st.tuples(st.integers(0, 5), st.integers(0, 5))),
)
def test_every_way_works_for_every_window(
    size: tuple[int, int],
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] | str,
) -> None:
    assume(padding != "same" or stride == (1, 1))
    around = (0, 0) if isinstance(padding, str) else padding
    for length, width, step, own in zip(size, kernel, dilation, around, strict=True):
        assume(padding == "same" or length + 2 * own > step * (width - 1))
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation).double()
    inputs, back, expected = check_convolution(layer, size)
    window, inputs = _outer_products._window(layer, inputs)
    with torch.no_grad():
        a, g = window.patches(inputs), back.flatten(2).transpose(1, 2)
        assert_near(_outer_products._formed(a, g), expected)
        assert_near(_outer_products._by_patches(a, g), expected)
        if stride == (1, 1):
            assert_near(window.by_pixels(inputs, back), expected)


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
