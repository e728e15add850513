"""A batch in parts is the batch: losses and gradients against those of the whole, and what is there
at a time."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.hugging_face import causal_folder
from tests.training.causal import CAUSAL_RECIPE, VOCABULARY, TinyCausal, some_texts
from tests.white_box.causal import Causal, causal
from unaudit.loading import LoadedModel, load_model
from unaudit.tokens import PADDING
from unaudit.training import fit, in_parts, initialize
from unaudit.training.in_parts import batch_loss, groups_of, rows_loss, tokens_at_once, trained
from unaudit.unlearners._losses import bounded, distillation

CPU = torch.device("cpu")
cross_entropy = nn.functional.cross_entropy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(seed: int = 0, *, tied: bool = True, vocabulary: int = VOCABULARY) -> TinyCausal:
    network = TinyCausal(vocabulary, tied=tied)
    initialize(network, generator(seed))
    return network.double()


def long_texts(count: int = 7, most: int = 40) -> Tensor:
    """Some of one window, some of several, one that predicts nothing."""
    ids = torch.randint(20, (count, most), generator=generator(3))
    lengths = torch.randint(2, most + 1, (count, 1), generator=generator(4))
    lengths[:3, 0] = torch.tensor([most, 1, 5])[:count]
    return torch.where(torch.arange(most) < lengths, ids, PADDING)


def gpt2(folder: Path) -> nn.Module:
    model = load_model(str(causal_folder(folder, n_positions=12)), arch=None)
    assert isinstance(model, LoadedModel)
    return model.module.double().eval()


def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few rows of logits at a time as can be: as many as a hidden state has numbers."""
    monkeypatch.setattr(in_parts, "LOGITS", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(in_parts, "ROWS", 1)


def pieces(monkeypatch: pytest.MonkeyPatch, network: nn.Module, tokens: int) -> None:
    """So many tokens are trained on at a time."""
    monkeypatch.setattr(in_parts, "TOKENS", 1)
    each = in_parts.KEPT["cpu"] / tokens_at_once(network, CPU)
    monkeypatch.setattr(in_parts, "KEPT", {"cpu": int(tokens * each) + 1, "cuda": 1})
    assert tokens_at_once(network, CPU) == tokens


def told(network: nn.Module, ids: Tensor) -> Tensor:
    reads: Any = network
    found: Tensor = reads.targets(ids)
    return found


def loss_of(kind: str, network: nn.Module, ids: Tensor) -> Tensor:
    """As unlearners form them."""
    teachers = [copy.deepcopy(network) for _ in range(2)]
    for teacher, scale in zip(teachers, (0.5, 2.0), strict=True):
        for weight in teacher.parameters():
            weight.detach().mul_(scale)
    targets = told(network, ids)
    foolish = torch.arange(len(targets))[:, None] % 3 == 0
    if kind == "cross-entropy":
        return 3.0 * batch_loss(network, ids, cross_entropy, targets)
    if kind == "sum":
        summed = partial(cross_entropy, reduction="sum")
        return batch_loss(network, ids, summed, targets, total=True)
    if kind == "bounded":
        return -batch_loss(network, ids, partial(bounded, ceiling=3.0), targets)

    def followed(logits: Tensor, fool: Tensor, other: Tensor, rows: Tensor, own: Tensor) -> Tensor:
        assert not fool.requires_grad
        taught = distillation(logits, torch.where(rows, fool, other), 2.0)
        return 0.5 * taught + cross_entropy(logits, own)

    return batch_loss(network, ids, followed, *teachers, foolish, targets)


KINDS = ("cross-entropy", "sum", "bounded", "teachers")


def derived(kind: str, network: nn.Module, ids: Tensor) -> tuple[Tensor, ...]:
    value = loss_of(kind, network, ids)
    slopes = torch.autograd.grad(value, list(network.parameters()), materialize_grads=True)
    return value.detach(), *slopes


def equal(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_slices_of_logits_add_up(kind: str, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = tiny(tied=tied), some_texts(12, 4)
    wanted = derived(kind, network, ids)
    slices(monkeypatch)
    sizes: list[int] = []
    network.head.register_forward_hook(lambda _, args, output: sizes.append(len(output)))
    equal(derived(kind, network, ids), wanted)
    # of copies as well, which are hooked like the network; a row more tells the vocabulary
    rows = int(network.counts(ids).sum()) * (3 if kind == "teachers" else 1)
    assert max(sizes) == 16
    assert sum(sizes) == rows + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_texts_and_windows_add_up(kind: str, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = causal(1, tied=tied).double(), long_texts()
    wanted = derived(kind, network, ids)
    slices(monkeypatch)
    for tokens in (1, 12, 40):
        with monkeypatch.context() as patch:
            pieces(patch, network, tokens)
            equal(derived(kind, network, ids), wanted)


def test_a_real_one_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = gpt2(tmp_path), long_texts()
    wanted = derived("teachers", network, ids)
    slices(monkeypatch)
    pieces(monkeypatch, network, 30)
    assert len(groups_of(network, ids)) > 3
    equal(derived("teachers", network, ids), wanted)


def test_classifiers_are_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    slices(monkeypatch)
    monkeypatch.setattr(in_parts, "KEPT", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(in_parts, "TOKENS", 1)
    network, teacher = nn.Linear(2, 50), nn.Linear(2, 50)
    inputs = torch.randn(30, 2, generator=generator())
    found = batch_loss(network, inputs, distillation, teacher)
    assert torch.equal(found, distillation(network(inputs), teacher(inputs)))
    assert torch.autograd.grad(found, list(teacher.parameters()), allow_unused=True) == (None, None)


def test_what_is_small_is_not_cut() -> None:
    network, ids = tiny().float(), some_texts(12, 4)
    sizes: list[int] = []
    network.head.register_forward_hook(lambda _, args, output: sizes.append(len(output)))
    found = batch_loss(network, ids, cross_entropy, network.targets(ids))
    assert sizes == [int(network.counts(ids).sum())]
    wanted = cross_entropy(network(ids), network.targets(ids))
    weights = list(network.parameters())
    assert torch.equal(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found, weights), torch.autograd.grad(wanted, weights), strict=True
    ):
        assert torch.equal(one, other)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(made) if isinstance(one, Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return made


@pytest.mark.parametrize("kind", KINDS)
def test_logits_have_a_bound(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, teachers included: no more than the gradient of the head."""
    network, ids = tiny(vocabulary=5000), some_texts(40, 4)
    rows = int(network.counts(ids).sum())
    with Largest() as whole:
        derived(kind, network, ids)
    assert whole.numbers == rows * 5000
    slices(monkeypatch)
    with Largest() as largest:
        derived(kind, network, ids)
    assert largest.numbers == 16 * 5000


class Kept:
    """Most bytes that were kept for backward passes at one time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> Kept:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda box: box[0])
        self._hooks.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._hooks.__exit__(*details)

    def _pack(self, tensor: Tensor) -> Any:
        box = _Box([tensor.detach()])
        size = tensor.numel() * tensor.element_size()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(box, self._gone, size)
        return box

    def _gone(self, size: int) -> None:
        self.now -= size


class _Box(list[Tensor]):
    """A list that can be watched."""


def test_what_layers_keep_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text of many windows counts as many of one."""
    network = causal(1).double()
    for ids in (long_texts(16), long_texts(1, 400)):
        with Kept() as whole:
            derived("cross-entropy", network, ids)
        with monkeypatch.context() as patch:
            slices(patch)
            pieces(patch, network, 24)
            with Kept() as parts:
                derived("cross-entropy", network, ids)
        assert parts.now == 0
        assert parts.most < 0.3 * whole.most


def test_groups_are_consecutive_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = causal(1), long_texts()
    pieces(monkeypatch, network, 30)
    groups = groups_of(network, ids)
    assert all(
        len(group) == 1 or len(group) * max(one.stop - one.start for one in group) <= 30
        for group in groups
    )
    found = [(one.text, place) for g in groups for one in g for place in range(one.first, one.stop)]
    lengths = (ids != PADDING).sum(dim=1).tolist()
    assert found == [(row, place) for row, size in enumerate(lengths) for place in range(1, size)]
    # a batch with much padding is small nevertheless
    assert len(groups_of(network, nn.functional.pad(ids[2:3], (0, 99), value=PADDING))) == 1


def test_more_tokens_fit_where_layers_are_narrow() -> None:
    ours = in_parts.KEPT["cpu"] // (in_parts.KEPT_PER_SIDE * (32 + 64 + 64 + 16))
    assert tokens_at_once(tiny(), CPU) == tokens_at_once(tiny(tied=False), CPU) == ours
    there = in_parts.KEPT["cuda"] * ours // in_parts.KEPT["cpu"]
    for kind in ("cuda", "xpu"):
        assert tokens_at_once(tiny(), torch.device(kind)) == pytest.approx(there, rel=1e-5)
    assert tokens_at_once(nn.Identity(), CPU) > 0


def test_without_gradients_the_value_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = tiny(), some_texts(12, 4)
    wanted = loss_of("teachers", network, ids).detach()
    slices(monkeypatch)
    pieces(monkeypatch, network, 20)
    with torch.no_grad():
        found = loss_of("teachers", network, ids)
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted)
    network.requires_grad_(False)
    torch.testing.assert_close(loss_of("teachers", network, ids), wanted)


def test_frozen_layers_get_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = tiny(tied=False), some_texts(12, 4)
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    assert [id(weight) for weight in trained(network)] == [id(network.head.weight)]
    wanted = torch.autograd.grad(loss_of("bounded", network, ids), network.head.weight)
    slices(monkeypatch)
    pieces(monkeypatch, network, 20)
    loss_of("bounded", network, ids).backward()
    assert network.head.weight.grad is not None
    equal([network.head.weight.grad], wanted)
    assert network.mix.weight.grad is None


def test_states_get_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    head = nn.Linear(4, 30).double()
    states = torch.randn(21, 4, dtype=torch.float64, generator=generator(), requires_grad=True)
    targets = torch.arange(21)
    wanted = torch.autograd.grad(2.0 * cross_entropy(head(states), targets), [states, head.weight])
    slices(monkeypatch)
    value = 2.0 * rows_loss(head, list(head.parameters()), states, cross_entropy, targets)
    equal(torch.autograd.grad(value, [states, head.weight]), wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_half_precision_is_that_of_the_whole(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast makes one copy of a weight for all slices; its gradient must come back."""
    network, ids = tiny(tied=tied).float(), some_texts(12, 4)

    def slopes() -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            value = batch_loss(network, ids, cross_entropy, network.targets(ids))
        return torch.autograd.grad(value, list(network.parameters()))

    wanted = slopes()
    slices(monkeypatch)
    for tokens in (10_000, 20):
        with monkeypatch.context() as patch:
            pieces(patch, network, tokens)
            for one, other in zip(slopes(), wanted, strict=True):
                assert one.dtype == torch.float32
                assert (one - other).norm() < 0.01 * other.norm()


class Dropping(Causal):
    """With dropout before its head."""

    def hidden(self, ids: Tensor) -> Tensor:
        return nn.functional.dropout(super().hidden(ids), 0.2, self.training)


def test_training_in_parts_follows_its_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained_on(ids: Tensor, network: nn.Module) -> nn.Module:
        recipe = replace(CAUSAL_RECIPE, kind="sgd", lr=0.1, epochs=3)
        return fit(network, ids, torch.zeros(len(ids)), recipe, generator(2))

    def fresh(kind: type[Causal]) -> Causal:
        network = kind(tied=True)
        network.load_state_dict(causal(1, tied=True).state_dict())
        return network

    ids = long_texts(9, 20)
    whole, other = trained_on(ids, fresh(Causal)), trained_on(ids, fresh(Dropping))
    slices(monkeypatch)
    pieces(monkeypatch, whole, 30)
    again = trained_on(ids, fresh(Causal))
    for one, two in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    first, second = (trained_on(ids, fresh(Dropping)) for _ in range(2))
    for name, weight in first.named_parameters():
        assert torch.equal(weight, second.get_parameter(name))
    assert not torch.equal(first.get_parameter("norm.weight"), other.get_parameter("norm.weight"))
