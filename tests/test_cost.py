"""What making models costs: which are missing, how they are made, how many examples pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.shadows.planned import FORGET, RECIPE, TRAIN, plan_in, workshop_of
from unaudit import cost
from unaudit.cost import SHARES, START, Effort, Estimator, Lot, duration, held_by, unlearning
from unaudit.engine.jobs import results_of
from unaudit.loading.networks import mlp
from unaudit.references import planned
from unaudit.training import Recipe
from unaudit.training.together import RETRAIN
from unaudit.unlearners import Task, load_unlearners

PER_EXAMPLE = {"alone": 1.0, "crew": 3.0, "stacked": 0.25, "asked": 0.01}


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is timed, in order; every pace is known."""
    calls: list[tuple[Any, ...]] = []

    def timing(name: str, pace: float) -> Callable[..., float]:
        def timed(specimen: Any, *arguments: Any) -> float:
            calls.append((name, *arguments))
            return pace

        return timed

    monkeypatch.setattr(cost, "TIMINGS", {n: timing(n, pace) for n, pace in PER_EXAMPLE.items()})
    return calls


def estimator(folder: Path, workers: int = 1, **sections: Any) -> Estimator:
    calibration = {"workers": workers}
    return Estimator(workshop_of(plan_in(folder, calibration=calibration, **sections)))


def test_stacks_unlearn_and_answer_one_by_one(
    tmp_path: Path, asked_for: list[tuple[Any, ...]]
) -> None:
    found = estimator(tmp_path, 2)
    lot = Lot("shadow model", 40, 0, Effort(1000, 100, 10))
    assert found.seconds(lot) == pytest.approx(1000 * 0.25 + 100 * 1.0 + 10 * 0.01)
    # 32 are trained at a time; a smaller lot of theirs is not timed again
    assert found.seconds(replace(lot, missing=8)) == found.seconds(lot)
    assert sorted(asked_for) == [("alone",), ("asked", 1024), ("stacked", 32)]


@pytest.mark.parametrize(
    ("kind", "missing", "workers", "seconds"),
    [
        ("calibrator", 5, 1, 1000),
        ("calibrator", 1, 4, 1000),
        ("retrained model", 2, 1, 1000),
        ("retrained model", 3, 1, 250),
        ("original", 1, 4, 1000),
        # the fifth has a worker for itself
        ("calibrator", 5, 2, START + 3 * (1000 / 5) * 3),
        ("retrained model", 2, 4, START + 500 * 3),
        ("calibrator", 0, 2, 0),
    ],
)
def test_the_way_is_that_of_the_jobs(
    kind: Any,
    missing: int,
    workers: int,
    seconds: float,
    tmp_path: Path,
    asked_for: list[tuple[Any, ...]],
) -> None:
    found = estimator(tmp_path, workers)
    assert found.seconds(Lot(kind, missing, 0, Effort(trained=1000))) == pytest.approx(seconds)
    assert len(asked_for) == (missing > 0)


def test_large_networks_and_bf16_are_not_stacked(
    tmp_path: Path, asked_for: list[tuple[Any, ...]]
) -> None:
    found = estimator(tmp_path, recipe={"precision": "bf16"})
    assert found.seconds(Lot("shadow model", 8, 0, Effort(1000))) == 1000
    assert asked_for == [("alone",)]


def test_the_bill_is_the_sum(tmp_path: Path, asked_for: list[tuple[Any, ...]]) -> None:
    lots = [
        Lot("retrained model", 3, 1, Effort(trained=300)),
        Lot("calibrator", 2, 0, Effort(unlearned=50)),
        Lot("shadow model", 0, 9, Effort()),
    ]
    bill = estimator(tmp_path).cost(lots)
    forward = 2 * (16 * 8 + 8 * 3)
    assert bill.forward == forward
    assert bill.operations == 3 * forward * 350
    assert bill.seconds == pytest.approx(300 * 0.25 + 50)
    assert (bill.missing, bill.stored) == (5, 10)
    asking = estimator(tmp_path).cost([Lot("shadow model", 4, 0, Effort(10, 0, 7))])
    assert asking.operations == forward * (3 * 10 + 7)


def test_where_everything_is_there_nothing_is_timed(
    tmp_path: Path, asked_for: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> int:
        raise AssertionError("counted")

    monkeypatch.setattr(cost, "forward_operations", never)
    bill = estimator(tmp_path).cost([Lot("calibrator", 0, 2, Effort())])
    assert (bill.seconds, bill.operations, bill.forward) == (0, None, None)
    assert asked_for == []


def test_what_the_store_holds_is_seen_without_reading(tmp_path: Path) -> None:
    workshop = workshop_of(plan_in(tmp_path))
    jobs = [workshop.job(RETRAIN, f"retrained {number}") for number in (1, 2, 3)]
    assert held_by(workshop.store, jobs) == [False] * 3
    results_of(jobs[1:2], workshop.store, workshop.executor, places=workshop.places)
    assert held_by(workshop.store, jobs) == [False, True, False]


def test_lots_of_a_plan(tmp_path: Path, asked_for: list[tuple[Any, ...]]) -> None:
    plan = plan_in(tmp_path, shadows={"count": 4})
    workshop = workshop_of(plan)
    bill = planned(workshop.case, plan, workshop.store).cost
    assert bill is not None
    epochs = int(RECIPE["epochs"])
    assert [(lot.kind, lot.missing, lot.effort.trained) for lot in bill.lots] == [
        ("original", 1, epochs * TRAIN),
        ("retrained model", 3, 3 * epochs * (TRAIN - FORGET)),
        ("calibrator", 1, 0),
        ("shadow model", 4, 4 * epochs * TRAIN),
    ]


class _KnownError(Exception):
    """The epochs are known, and nothing is unlearned."""


class Listening:
    """Ends an unlearner as soon as it says how many epochs it takes."""

    epochs: int | None = None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        self.epochs = total
        raise _KnownError
        yield lambda _: None


@pytest.mark.parametrize("name", ["retrain", "finetune", "neggrad-plus", "l1-sparse", *SHARES])
@pytest.mark.parametrize(
    "recipe", [Recipe(epochs=60, batch=64), Recipe(epochs=30, batch=2)], ids=["few", "many"]
)
@pytest.mark.parametrize("epochs", [None, 4])
def test_epochs_are_those_that_the_unlearner_takes(
    name: str, recipe: Recipe, epochs: int | None
) -> None:
    parameters = {} if epochs is None or name == "retrain" else {"epochs": epochs}
    # fine-tuning counts steps over the retain examples alone; there are few others
    labels = torch.arange(1000) % 3
    listening = Listening()
    task = Task(
        original=mlp((4, 8, 8, 3)).eval(),
        inputs=torch.zeros(1000, 4),
        labels=labels,
        forget=torch.arange(1000) < 20,
        n_classes=3,
        scenario="sample",
        recipe=recipe,
        progress=listening,
    )
    with pytest.raises(_KnownError):
        load_unlearners().get(name)(**parameters)(task, torch.Generator())
    assert listening.epochs is not None
    assert unlearning(name, parameters, recipe, 1000) == 1000 * listening.epochs


def test_a_hyperparameter_that_is_no_number_of_epochs_is_left_to_the_unlearner() -> None:
    recipe = Recipe(epochs=182, batch=10)
    assert unlearning("finetune", {"epochs": "4"}, recipe, 1600) == 10 * 1600


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (42.4, "42 s"),
        (100, "2 min"),
        (3599, "60 min"),
        (2.46 * 3600, "2.5 h"),
        (47 * 3600, "47.0 h"),
        (71 * 3600, "3 days"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
