"""Gradient norms of texts against a loop of backward passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from attacks.white_box import _gradients, _outer_products, _token_gradients
from attacks.white_box._gradients import by_transform, gradient_norms
from attacks.white_box._token_gradients import log_text_norms
from tests.white_box.causal import CONTEXT, Causal, causal, texts
from unaudit.white_box import examine
from unaudit.white_box.cutting import cut

LENGTHS = (9, 2, 5, 30, 12, 40)
"""Some beyond the context, and some with more tokens than the head has inputs."""


def by_loop(network: nn.Module, of: Iterable[nn.Parameter], ids: Tensor) -> Tensor:
    """(b,) norms of each text's gradient of the mean loss per token."""
    norms, of = [], list(of)
    for text in ids:
        given = text[None]
        loss = nn.functional.cross_entropy(network(given), network.targets(given))  # type: ignore[operator]
        gradients = torch.autograd.grad(loss, of)
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    return torch.stack(norms)


class Capped(Causal):
    """Caps its logits as Gemma 2 does."""

    def logits_of(self, hidden: Tensor) -> Tensor:
        return 3.0 * torch.tanh(super().logits_of(hidden) / 3.0)


def capped() -> Causal:
    network = Capped().eval()
    network.load_state_dict(causal(4).state_dict())
    return network


NETWORKS = {
    "plain": lambda: causal(1),
    "with a bias": lambda: causal(2, bias=True),
    "without a context": lambda: causal(3, context=None),
    "capped": capped,
}


@pytest.mark.parametrize("pieces", ["whole", "in pieces"])
@pytest.mark.parametrize("name", NETWORKS)
def test_head_norms_equal_a_loop(name: str, pieces: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS[name]().double()
    ids = texts(LENGTHS)
    expected = by_loop(network, network.head.parameters(), ids)
    if pieces == "in pieces":
        # as many tokens as the head has inputs: the longest text comes in three pieces
        monkeypatch.setattr(_token_gradients, "ELEMENTS_AT_ONCE", 1)
        monkeypatch.setattr(_outer_products, "NUMBERS_IN_CACHE", 1)
    found = log_text_norms(network, network.head, ids)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.exp(), expected, rtol=1e-9, atol=0.0)
    network.float()
    found = log_text_norms(network, network.head, ids)
    torch.testing.assert_close(found.exp(), expected, rtol=1e-4, atol=0.0)


def test_a_shared_head_counts_as_a_head_alone() -> None:
    tied = causal(5, tied=True).double()
    apart = copy.deepcopy(tied)
    apart.lm_head.weight = nn.Parameter(apart.lm_head.weight.detach().clone())
    ids = texts(LENGTHS)
    expected = by_loop(apart, apart.head.parameters(), ids)
    found = log_text_norms(tied, tied.head, ids)
    torch.testing.assert_close(found.exp(), expected, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("pieces", ["whole", "in pieces"])
def test_texts_learned_by_heart_are_told_apart(
    pieces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision 1 − p is 0 for all of them, and squares of p are too."""

    class Certain(Causal):
        def logits_of(self, hidden: Tensor) -> Tensor:
            logits = super().logits_of(hidden)
            return logits - self.gap * (torch.arange(logits.shape[1]) != 7)

    network = Certain().eval()
    ids = torch.full((1, 30), 7)
    if pieces == "in pieces":
        monkeypatch.setattr(_token_gradients, "ELEMENTS_AT_ONCE", 1)
    norms = []
    for gap in (40.0, 60.0):
        network.gap = gap
        norms.append(float(log_text_norms(network, network.head, ids)[0]))
    # probabilities of all others shrink by e per nat
    assert norms[0] - norms[1] == pytest.approx(20.0, abs=1e-3)
    network.gap = 20.0
    found = log_text_norms(network, network.head, ids)
    expected = by_loop(network.double(), network.head.parameters(), ids)
    torch.testing.assert_close(found.exp(), expected, rtol=1e-3, atol=0.0)
    network.float()
    network.gap = 500.0
    assert log_text_norms(network, network.head, ids).isfinite().all()


@pytest.mark.parametrize("layer", ["blocks.0", "blocks.1"])
@pytest.mark.parametrize("tied", [False, True])
def test_norms_behind_a_cut_equal_a_loop(layer: str, tied: bool) -> None:
    network = causal(6, tied=tied).double()
    ids = texts([9, 2, 5, CONTEXT, 7])
    anatomy = examine(network, ids)
    tail = cut(copy.deepcopy(network), anatomy, layer, ids[:4])
    seen: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *of: seen.append(of[2]))
    with torch.no_grad():
        network(ids)
    handle.remove()
    given = seen[0].masked_fill((ids == -1)[:, :, None], 0.0)
    own = {id(weight) for weight in tail.module.head.parameters()}  # type: ignore[operator, union-attr]
    named = {key: value for key, value in tail.named_parameters() if id(value) not in own}
    whole = [network.get_parameter(key.removeprefix("module.")) for key in named]
    expected = by_loop(network, whole, ids)
    truth = network.targets(ids), network.counts(ids).tolist()
    for norms in (gradient_norms, by_transform):
        found = norms(tail, list(named.values()), given, *truth)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class OneMoreRMSNorm(nn.Module):
    """As Gemma's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.5, 0.5, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x * x.square().mean(dim=-1, keepdim=True).add(1e-6).rsqrt() * (1.0 + self.weight)


class Scale(nn.Module):
    """A layer that nothing is known about."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(-0.5, 0.5, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("kind", [lambda: nn.RMSNorm(16), OneMoreRMSNorm, Scale])
def test_normalizations_of_other_makes(
    kind: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = causal(7)
    network.norm = kind()  # type: ignore[assignment]
    network.double()
    ids = texts([9, 2, 5])
    parameters = [*network.norm.parameters(), network.blocks[2].get_parameter("mix.weight")]
    expected = by_loop(network, parameters, ids)
    truth = network.targets(ids), network.counts(ids).tolist()
    ways: list[str] = []
    way = _gradients.by_transform
    monkeypatch.setattr(
        _gradients, "by_transform", lambda *given: ways.append("transform") or way(*given)
    )
    found = gradient_norms(network, parameters, ids, *truth)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0.0)
    assert ways == (["transform"] if kind is Scale else [])
