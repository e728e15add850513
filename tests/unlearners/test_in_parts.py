"""Unlearners of language models, a part of each batch at a time."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.training.causal import CAUSAL_RECIPE, VOCABULARY, TinyCausal
from tests.unlearners.text_toy import text_task
from tests.unlearners.toy import run, same
from unaudit.evidence import ANY_TASK
from unaudit.tokens import PADDING, are_present, longest
from unaudit.training import in_parts, likelihood
from unaudit.training.in_parts import tokens_at_once
from unaudit.unlearners import UNLEARNERS, Task
from unaudit.unlearners._fisher import empirical_fisher
from unaudit.unlearners._freezing import Partly
from unaudit.unlearners._guard import retain_accuracy
from unaudit.unlearners._outputs import at_a_time
from unaudit.unlearners._rows import at_once
from unaudit.unlearners.scrub import _wrong

ABLE = [name for name, kind in UNLEARNERS.items() if kind.card.tasks == ANY_TASK]
CPU = torch.device("cpu")


def double_task() -> Task:
    """In double precision, so that rounding is not what differs, and without Adam, which makes as
    much of small gradients as of large ones."""
    given = text_task()
    recipe = replace(CAUSAL_RECIPE, kind="sgd", lr=0.05, epochs=6)
    return replace(given, original=copy.deepcopy(given.original).double(), recipe=recipe)


def small_bounds(patch: pytest.MonkeyPatch, network: nn.Module) -> None:
    """16 rows of logits at a time and 40 tokens, of batches of 16 texts of up to nine."""
    each = in_parts.KEPT["cpu"] / tokens_at_once(network, CPU)
    patch.setattr(in_parts, "LOGITS", {"cpu": 1, "cuda": 1})
    patch.setattr(in_parts, "ROWS", 1)
    patch.setattr(in_parts, "TOKENS", 1)
    patch.setattr(in_parts, "KEPT", {"cpu": int(40 * each) + 1, "cuda": 1})
    patch.setattr(likelihood, "ELEMENTS", 10 * VOCABULARY)
    patch.setattr(likelihood, "TOKENS", 40)


@pytest.mark.parametrize("name", ABLE)
def test_what_comes_out_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = double_task()
    whole = run(name, given)
    assert not same(whole, given.original)
    small_bounds(monkeypatch, given.original)
    rows: list[int] = []
    tokens: list[int] = []
    hidden, logits_of = TinyCausal.hidden, TinyCausal.logits_of

    def read(self: TinyCausal, ids: Tensor) -> Tensor:
        tokens.append(len(ids) * longest(are_present(ids)))
        return hidden(self, ids)

    def say(self: TinyCausal, states: Tensor) -> Tensor:
        rows.append(len(states))
        return logits_of(self, states)

    monkeypatch.setattr(TinyCausal, "hidden", read)
    monkeypatch.setattr(TinyCausal, "logits_of", say)
    parts = run(name, given)
    assert 8 <= max(rows) <= 16
    assert 8 <= max(tokens) <= 40
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_a_part_of_a_network_tells_what_the_whole_does() -> None:
    network = TinyCausal()
    part = Partly(network, [network.back])
    for name in ("targets", "hidden", "logits_of", "counts", "head", "context"):
        assert getattr(part, name) == getattr(network, name)
    with pytest.raises(AttributeError, match="windows"):
        part.windows  # noqa: B018
    plain = Partly(nn.Sequential(nn.Linear(2, 2)), [])
    assert not hasattr(plain, "targets")


def test_errors_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = text_task()
    count = partial(_wrong, given.original, given, (given.inputs, given.labels), given.forget_rows)
    wrong, accuracy = count(), retain_accuracy(given.original, given)
    assert at_once(given, 1024) == 1024
    small_bounds(monkeypatch, given.original)
    assert at_once(given, 1024) == 4  # of nine tokens, 40 at a time
    assert torch.equal(count(), wrong)
    assert retain_accuracy(given.original, given) == accuracy


def test_what_layers_are_moved_on_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    given = text_task()
    wide = nn.functional.pad(given.inputs, (0, 50), value=PADDING)
    assert at_a_time(given.original, given.inputs) > len(given.inputs)
    small_bounds(monkeypatch, given.original)
    assert at_a_time(given.original, wide) == 40 // int((given.inputs != PADDING).sum(1).max())
    assert at_a_time(nn.Linear(2, 2), torch.zeros(77, 2)) == 77


def test_squared_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = double_task()
    network, rows = given.original, given.forget_rows[:4]
    wanted = empirical_fisher(network, given.inputs, given.labels, rows)
    small_bounds(monkeypatch, network)
    monkeypatch.setattr(TinyCausal, "windows", lambda self, length: halves(length), raising=False)
    found = empirical_fisher(network, given.inputs, given.labels, rows)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-15)


def halves(length: int) -> list[tuple[int, int, int]]:
    """To a network that sees two tokens at a time, it is all the same."""
    return [(0, 4, 1), (2, length, 4)] if length > 4 else [(0, length, 1)]
