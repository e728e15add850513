"""Networks that predict tokens: trained on their own targets, measured, timed; never stacked."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.training.causal import (
    CAUSAL_RECIPE,
    VOCABULARY,
    TinyCausal,
    loss_of,
    some_texts,
)
from unaudit.tokens import PADDING
from unaudit.training import Recipe, fit, initialize, likelihood, pace
from unaudit.training._stack import Problem
from unaudit.training._stacking import NotStackable, examine, footprint
from unaudit.training.defaults import setting_of
from unaudit.training.likelihood import log_p, mean_log_p, per_text, texts_at_once
from unaudit.training.many import fit_many
from unaudit.training.pace import Specimen


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(seed: int = 0) -> TinyCausal:
    network = TinyCausal()
    initialize(network, generator(seed))
    return network


def test_fit_is_a_plain_loop_over_texts() -> None:
    """Mean loss over the tokens of a batch, whatever the labels."""
    ids = some_texts(20, 1)
    recipe = Recipe(lr=0.1, momentum=0.0, weight_decay=0.0, epochs=2, batch=8, schedule="constant")
    ours = fit(fresh(), ids, torch.full((20,), 7), recipe, generator(3))
    naive, order = fresh(), generator(3)
    for _ in range(2):
        rows = torch.randperm(20, generator=order)
        for part in rows.split(8):
            losses = []
            for row in ids[part]:
                text = row[row != PADDING]
                logits = naive(text[None])
                losses.append(nn.functional.cross_entropy(logits, text[1:], reduction="none"))
            gradients = torch.autograd.grad(torch.cat(losses).mean(), list(naive.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(naive.parameters(), gradients, strict=True):
                    weight.sub_(0.1 * gradient)
    for one, other in zip(ours.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert isinstance(ours, TinyCausal)
    assert ours.head.weight is ours.token_embedding.weight


def test_texts_are_learned_by_heart() -> None:
    ids = some_texts(40, 1)
    trained = fit(fresh(), ids, torch.zeros(40, dtype=torch.int64), CAUSAL_RECIPE, generator())
    assert loss_of(trained, ids) < 1.2
    assert loss_of(trained, some_texts(40, 2)) > 4.0


def test_log_p_is_that_of_each_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = fresh(), some_texts(12, 4)
    monkeypatch.setattr(likelihood, "ELEMENTS", 3 * VOCABULARY)  # slices of three tokens
    found, means = log_p(network, ids), mean_log_p(network, ids)
    wanted = []
    with torch.no_grad():
        for row in ids:
            text = row[row != PADDING]
            rows = network(text[None]).double().log_softmax(1)
            wanted.append(rows[torch.arange(len(text) - 1), text[1:]])
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-6, atol=1e-6)
    own = torch.stack([text.mean() for text in wanted])
    torch.testing.assert_close(means, own, rtol=1e-6, atol=1e-6)


def test_a_slice_of_the_predictions_is_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = fresh(), some_texts(12, 4)
    sizes: list[int] = []
    monkeypatch.setattr(likelihood, "ELEMENTS", 5 * VOCABULARY)
    network.head.register_forward_hook(lambda _, args, output: sizes.append(len(output)))
    log_p(network, ids)
    assert max(sizes) == 5
    assert sum(sizes) == 1 + int(network.counts(ids).sum())  # one more tells the vocabulary
    assert texts_at_once(1 << 20) == 1
    assert texts_at_once(64) * 64 == likelihood.TOKENS


def test_means_over_texts() -> None:
    values, counts = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2, 1])
    assert per_text(values, counts).tolist() == [2.0, 5.0]


def test_language_models_are_trained_one_by_one() -> None:
    ids, labels = some_texts(24, 1), torch.zeros(24, dtype=torch.int64)
    recipe = replace(CAUSAL_RECIPE, epochs=2)
    problem = Problem(ids, labels, recipe)
    batch = torch.arange(8)
    size = footprint(TinyCausal, problem, batch)
    assert size.bytes > 0
    found = examine(TinyCausal, problem, batch, size)
    assert isinstance(found, NotStackable)
    assert "tokens" in found.reason
    rows = [torch.arange(20), torch.arange(4, 24)]
    made, choice = fit_many(
        TinyCausal, ids, labels, rows, recipe, [generator(1), generator(2)], way="stacked"
    )
    assert choice.way == "loop"
    for seed, own, model in zip((1, 2), rows, made, strict=True):
        draws = generator(seed)
        alone = initialize(TinyCausal(), draws)
        fit(alone, ids, labels, recipe, draws, rows=own)
        for one, other in zip(model.parameters(), alone.parameters(), strict=True):
            assert torch.equal(one, other)


def test_members_may_start_from_given_weights() -> None:
    inputs = torch.randn(30, 4, generator=generator())
    labels = (inputs[:, 0] > 0).long()
    recipe = Recipe(epochs=3, batch=8)

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    base = copy.deepcopy(initialize(network(), generator(9)).state_dict())
    for part in (base, {name: base[name] for name in ("0.weight", "0.bias")}):
        rows = [torch.arange(30), torch.arange(20)]
        draws = [generator(1), generator(2)]
        made, choice = fit_many(
            network, inputs, labels, rows, recipe, draws, way="stacked", base=part
        )
        assert choice.way == "stacked"
        for seed, own, model in zip((1, 2), rows, made, strict=True):
            alone_draws = generator(seed)
            alone = initialize(network(), alone_draws, part)
            assert torch.equal(alone.state_dict()["0.weight"], base["0.weight"])
            same_head = torch.equal(alone.state_dict()["2.weight"], base["2.weight"])
            assert same_head == (len(part) == 4)
            fit(alone, inputs, labels, recipe, alone_draws, rows=own)
            for one, other in zip(model.parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_the_base_fills_need_not_be_known() -> None:
    """No way is known to draw an embedding, and none is needed."""
    layers = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    base = {"0.weight": torch.arange(6.0).reshape(3, 2)}
    initialize(layers, generator(), base)
    assert torch.equal(layers.state_dict()["0.weight"], base["0.weight"])


def specimen() -> Specimen:
    return Specimen(fresh, some_texts(6, 1), replace(CAUSAL_RECIPE, batch=4), torch.device("cpu"))


def test_steps_and_answers_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MOMENT", 0.005)
    assert pace.trained_alone(specimen()) > 0.0
    assert pace.asked(specimen(), 6) > 0.0
    # 2 · 2 products of 64 and 16 units and one of 16 and 20, each a multiplication and an addition
    each = 2 * (32 * 64 + 64 * 16)
    least = each * 4 + 2 * 16 * VOCABULARY * 3
    found = pace.forward_operations(specimen())
    assert found is not None
    assert least <= found <= 3 * least


def test_few_long_texts_are_asked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MOMENT", 0.001)
    monkeypatch.setattr(likelihood, "TOKENS", 27)  # three texts of nine tokens
    sizes: list[int] = []
    kept = TinyCausal.hidden

    def hidden(self: TinyCausal, ids: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        return kept(self, ids)

    monkeypatch.setattr(TinyCausal, "hidden", hidden)
    pace.asked(specimen(), 1024)
    assert max(sizes) == 3


def test_what_is_usual() -> None:
    causal = setting_of({}, TinyCausal(), (9,)).recipe
    assert (causal.kind, causal.batch, causal.lr) == ("adamw", 32, 1e-4)
    pretrained = setting_of({"epochs": None}, TinyCausal(), (9,), pretrained=True).recipe
    assert (pretrained.lr, pretrained.epochs, pretrained.batch) == (5e-5, 10, 32)
    reader = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    assert setting_of({}, reader, (9,)).recipe.batch == 128
