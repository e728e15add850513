"""Retain batches and what goes with them."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from tests.unlearners.toy import task
from unaudit.unlearners._budget import LEAST, budget
from unaudit.unlearners._pairs import cycled, inputs_of, paired, steps

RETAIN, FORGET = torch.arange(100, 125), torch.arange(7)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_epoch_has_every_retain_row_once() -> None:
    pairs = list(paired(RETAIN, FORGET, 4, generator()))
    assert len(pairs) == steps(RETAIN, 4) == 6
    assert torch.equal(torch.cat([retain for retain, _ in pairs]).sort().values, RETAIN)
    assert [len(retain) for retain, _ in pairs] == [4, 4, 4, 4, 4, 5]


def test_the_forget_rows_start_over_in_fresh_order() -> None:
    batches = list(islice(cycled(FORGET, 4, generator()), 6))
    passes = [torch.cat(batches[at : at + 2]) for at in (0, 2, 4)]
    assert all(torch.equal(rows.sort().values, FORGET) for rows in passes)
    assert not torch.equal(passes[0], passes[1])
    assert [len(batch) for batch in batches] == [4, 3] * 3


def test_no_forget_batch_is_a_remnant() -> None:
    for n in range(1, 40):
        sizes = [len(rows) for rows in islice(cycled(torch.arange(n), 8, generator()), -(-n // 8))]
        assert sum(sizes) == n
        assert max(sizes) <= 8
        assert max(sizes) - min(sizes) <= 1


def test_forget_batches_may_have_a_size_of_their_own() -> None:
    assert {len(forget) for _, forget in paired(RETAIN, FORGET, 4, generator())} == {3, 4}
    sizes = {len(forget) for _, forget in paired(RETAIN, FORGET, 4, generator(), forget_batch=1)}
    assert sizes == {1}


def test_many_forget_rows_do_not_lengthen_the_epoch() -> None:
    pairs = list(paired(FORGET, RETAIN, 4, generator()))
    assert len(pairs) == 2
    seen = torch.cat([forget for _, forget in pairs])
    assert len(seen.unique()) == len(seen) < len(RETAIN)


def test_augmentation_is_for_retain_examples() -> None:
    def shift(inputs: Tensor, _: torch.Generator) -> Tensor:
        assert len(inputs)
        return inputs + 100.0

    given = task("sample", augment=shift)
    before = given.inputs.clone()
    rows = torch.arange(0, 25)
    got = inputs_of(given, rows, generator())
    assert torch.equal(got - given.inputs[rows] > 50, (~given.forget[rows])[:, None].expand(25, 4))
    alone = inputs_of(given, given.forget_rows, generator())
    assert torch.equal(alone, given.inputs[given.forget])
    assert torch.equal(given.inputs, before)


def test_the_budget_is_the_papers_share_where_epochs_are_long() -> None:
    recipe = task().recipe
    long = budget(recipe, 158, lr=None, epochs=None, epochs_share=1 / 3)
    assert (long.epochs, long.lr) == (5, recipe.lr)
    assert budget(recipe, 40, lr=None, epochs=None).epochs == LEAST // 40
    assert budget(recipe, 1, lr=None, epochs=None).epochs == recipe.epochs
    own = budget(recipe, 1, lr=0.5, epochs=3)
    assert (own.lr, own.epochs, own.schedule) == (0.5, 3, recipe.schedule)


def test_a_budget_without_steps_is_a_share_and_at_least_one_epoch() -> None:
    recipe = replace(task().recipe, epochs=60, schedule="cosine")
    for share, epochs in ((1.0, 60), (30 / 62, 29), (1 / 6, 10), (0.001, 1)):
        own = budget(recipe, lr=None, epochs=None, lr_share=0.1, epochs_share=share)
        assert (own.epochs, own.lr, own.schedule) == (epochs, recipe.lr * 0.1, "cosine")
    flat = budget(recipe, lr=0.5, epochs=100, constant=True)
    assert flat == replace(recipe, lr=0.5, epochs=100, schedule="constant")
