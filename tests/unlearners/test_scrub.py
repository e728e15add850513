"""SCRUB: which pass comes when, what each does, and how far back to rewind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.unlearners.toy import FORGET_CLASS, accuracy, run, same, task, task_of_one
from unaudit.errors import InputError, UsageError
from unaudit.training import Recipe
from unaudit.unlearners import Task
from unaudit.unlearners._losses import distillation
from unaudit.unlearners.scrub import Scrub


def divergence(student: nn.Module, given: Task, mask: Tensor) -> float:
    """From the original."""
    with torch.no_grad():
        return float(distillation(student(given.inputs[mask]), given.original(given.inputs[mask])))


def passes(method: Scrub, given: Task, epochs: int) -> list[list[tuple[bool, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    recipe = Recipe(epochs=epochs, batch=32)
    return [list(method._passes(given, recipe, epoch, generator)) for epoch in range(epochs)]


def test_every_epoch_ends_with_the_retain_examples() -> None:
    given = task()
    for epoch, batches in enumerate(passes(Scrub(max_epochs=2), given, 4)):
        kinds = [forget for forget, _ in batches]
        assert kinds == sorted(kinds, reverse=True)
        assert any(kinds) == (epoch < 2)
        for kind, rows in ((True, given.forget_rows), (False, given.retain_rows)):
            chosen = [part for forget, part in batches if forget is kind]
            if chosen:
                assert torch.equal(torch.cat(chosen).sort().values, rows)


@pytest.mark.parametrize(
    ("scenario", "epochs", "expected"),
    [("class", 10, 3), ("class", 3, 1), ("sample", 10, 5), ("sample", 1, 1)],
)
def test_how_many_epochs_disobey(scenario: str, epochs: int, expected: int) -> None:
    given = task(scenario)  # type: ignore[arg-type]
    epochs_of = passes(Scrub(), given, epochs)
    assert sum(any(forget for forget, _ in batches) for batches in epochs_of) == expected


def test_disobeying_raises_the_divergence_and_obeying_lowers_it() -> None:
    """A teacher that shared its weights with the student would never differ from it."""
    given = task()
    away = run("scrub", given, lr=0.02, epochs=2, max_epochs=2, alpha=0.0, gamma=0.0)
    back = run("scrub", given, lr=0.02, epochs=12, max_epochs=2, alpha=1.0, gamma=0.0)
    assert divergence(away, given, given.forget) > 1.0
    lost = divergence(away, given, ~given.forget)
    assert divergence(back, given, ~given.forget) < 0.3 * lost


def test_the_class_goes_and_the_others_stay() -> None:
    given = task()
    student = run("scrub", given, lr=0.02, epochs=10)
    assert accuracy(student, given, given.forget) < 0.1
    assert accuracy(student, given, ~given.forget) > 0.95


def test_a_single_example_can_be_forgotten() -> None:
    given = task_of_one()
    student = run("scrub", given, lr=0.05, epochs=4, max_epochs=3)
    assert divergence(student, given, given.forget) > divergence(student, given, ~given.forget)


@pytest.mark.parametrize("lr", [0.05, 0.1])
def test_rewinding_takes_the_epoch_whose_forget_error_is_nearest(lr: float) -> None:
    """With a constant rate, a run of k epochs is what a longer one had after k."""
    given = task("sample")
    runs = [
        run("scrub", given, lr=lr, epochs=epochs, max_epochs=2, forget_batch=8)
        for epochs in range(1, 7)
    ]
    errors = [1 - accuracy(model, given, given.forget) for model in runs]
    inputs, labels = given.need_validation("the test")
    with torch.no_grad():
        wrong = runs[-1](inputs).argmax(1) != labels

    def nearest(wanted: float) -> int:
        """The last of equals."""
        gaps = [abs(error - wanted) for error in errors]
        return max(epoch for epoch, gap in enumerate(gaps) if gap < min(gaps) + 1e-6)

    wanted = 0.0
    for label in range(4):
        share = float((given.labels[given.forget] == label).float().mean())
        wanted += share * float(wrong[labels == label].float().mean())
    best = nearest(wanted)
    rewound = run("scrub", given, lr=lr, epochs=6, max_epochs=2, forget_batch=8, rewind=True)
    assert same(rewound, runs[best])
    # one case where the last epoch is another, one where the mix of classes matters
    assert best != (5 if lr == 0.05 else nearest(float(wrong.float().mean())))


def test_rewinding_says_what_it_looks_at() -> None:
    assert Scrub().card.consumes == {"forget", "retain"}
    assert Scrub(rewind=True).card.consumes == {"forget", "retain", "validation"}
    with pytest.raises(InputError, match="scrub with rewind needs validation examples"):
        run("scrub", task(validation=None), rewind=True)


def test_rewinding_needs_examples_of_the_forgotten_classes() -> None:
    inputs, labels = task().validation or (torch.empty(0), torch.empty(0))
    others = labels != FORGET_CLASS
    given = task(validation=(inputs[others], labels[others]))
    with pytest.raises(InputError, match=r"validation examples of class 2, .* unset rewind"):
        run("scrub", given, rewind=True)


@pytest.mark.parametrize(
    "parameters",
    [{"lr": -1}, {"epochs": 0}, {"max_epochs": -1}, {"alpha": -1}, {"gamma": "x"}],
)
def test_silly_parameters(parameters: dict[str, object]) -> None:
    field = next(iter(parameters))
    with pytest.raises(UsageError, match=f"unlearners.scrub.{field} must be"):
        Scrub(**parameters)  # type: ignore[arg-type]
