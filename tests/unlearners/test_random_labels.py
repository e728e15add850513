"""Random labels: how they are drawn, what is trained on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tests.unlearners.toy import accuracy, loss, run, same, task, task_of_one
from unaudit.errors import InputError, UsageError
from unaudit.training import fit
from unaudit.unlearners.random_labels import RandomLabels, random_labels

NAME = RandomLabels.card.name


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_wrong_labels_are_drawn_evenly() -> None:
    truth = torch.arange(5).repeat(4000)
    drawn = random_labels(truth, 5, generator())
    pairs = Counter(zip(truth.tolist(), drawn.tolist(), strict=True))
    assert all((label, label) not in pairs for label in range(5))
    assert len(pairs) == 20
    # 4,000 draws of probability 1/4: standard deviation 27
    assert all(abs(count - 1000) < 5 * 27 for count in pairs.values())


def test_the_true_label_may_be_allowed() -> None:
    truth = torch.full((5000,), 3)
    drawn = random_labels(truth, 5, generator(), true_too=True).bincount(minlength=5)
    assert all(abs(int(count) - 1000) < 5 * 28 for count in drawn)


def test_one_class_leaves_no_other() -> None:
    with pytest.raises(InputError, match="two classes"):
        random_labels(torch.zeros(3, dtype=torch.int64), 1, generator())


def test_mixed_is_plain_training_on_wrong_labels() -> None:
    """With labels drawn once, one fit on the relabeled data, in the same order."""
    given = task()
    ours = run(NAME, given, lr=0.01, epochs=3, redraw=False)
    rng = generator(1)
    labels = given.labels.clone()
    labels[given.forget] = random_labels(labels[given.forget], 4, rng)
    rows = torch.cat([given.forget_rows, given.retain_rows])
    recipe = replace(given.recipe, lr=0.01, epochs=3)
    assert same(ours, fit(given.student(), given.inputs, labels, recipe, rng, rows=rows))


def test_labels_are_drawn_anew_in_each_epoch() -> None:
    given = task()
    assert not same(run(NAME, given), run(NAME, given, redraw=False))


def test_forget_batches_apart_leave_the_running_statistics_to_the_others() -> None:
    """Those of the first normalization, whose layer stands still at this rate, are as if the
    forget examples had never passed."""
    given = task()
    far = given.inputs.clone()
    far[given.forget] += 1e3
    apart = run(
        NAME, replace(given, inputs=far), lr=1e-12, epochs=1, order="forget-first", redraw=False
    )
    mixed = run(NAME, replace(given, inputs=far), lr=1e-12, epochs=1, redraw=False)
    original = given.original.state_dict()["1.running_mean"]
    assert (apart.state_dict()["1.running_mean"] - original).abs().max() < 1.0
    assert (mixed.state_dict()["1.running_mean"] - original).abs().max() > 10.0


@pytest.mark.parametrize("order", ["mixed", "forget-first"])
def test_the_forgotten_class_is_denied(order: str) -> None:
    given = task()
    student = run(NAME, given, order=order)
    assert accuracy(student, given, given.forget) < 0.2
    assert loss(student, given, given.forget) > 1.0
    assert accuracy(student, given, ~given.forget) > 0.9


def test_a_single_forget_example_will_do() -> None:
    given = task_of_one()
    for order in ("mixed", "forget-first"):
        assert accuracy(run(NAME, given, order=order), given, ~given.forget) > 0.9


def test_unknown_orders_are_refused() -> None:
    with pytest.raises(UsageError, match=r"random-labels\.order must be 'mixed' or"):
        RandomLabels(order="backwards")  # type: ignore[arg-type]
