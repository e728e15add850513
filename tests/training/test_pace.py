"""Timings on a clock that only the network moves; operations counted by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.loading.networks import mlp
from unaudit.training import Recipe, pace
from unaudit.training.pace import (
    Specimen,
    asked,
    forward_operations,
    trained_alone,
    trained_stacked,
)

CPU = torch.device("cpu")
RECIPE = Recipe(lr=0.1, epochs=7, batch=16)


def specimen(
    build: Callable[[], nn.Module], shape: tuple[int, ...] = (16,), **options: Any
) -> Specimen:
    inputs = torch.randn((5, *shape), generator=torch.Generator().manual_seed(0))
    return Specimen(build, inputs, options.pop("recipe", RECIPE), CPU, **options)


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


class Slow(nn.Module):
    """Takes a known time for every example, and notes who is there."""

    def __init__(self, clock: Clock, each: float, start: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.clock, self.each, self.start = clock, each, start
        self.seen: list[tuple[int, int, bool, float]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.clock.now += self.start + self.each * len(inputs)
        weight = float(self.layer.weight.detach().sum())
        self.seen.append((threading.get_ident(), len(inputs), self.training, weight))
        return self.layer(inputs)


def test_a_step_of_one_worker_is_timed(clock: Clock) -> None:
    made: list[Slow] = []

    def build() -> Slow:
        made.append(Slow(clock, 1e-4))
        return made[-1]

    assert trained_alone(specimen(build)) == pytest.approx(1e-4)
    (used,) = (one for one in made if any(size == 16 for _, size, _, _ in one.seen))
    assert all(training for _, _, training, _ in used.seen)
    assert len({weight for *_, weight in used.seen}) == 1  # nothing is learned
    # warming up, two single steps, five, and five rounds of a twentieth of a second
    per_round = round(pace.MOMENT / pace.ROUNDS / (16 * 1e-4))
    assert len(used.seen) == 3 + 1 + pace.FEW + pace.ROUNDS * (1 + per_round)


def test_a_forward_pass_is_timed(clock: Clock) -> None:
    made: list[Slow] = []

    def build() -> Slow:
        made.append(Slow(clock, 1e-5, start=1e-3))
        return made[-1]

    assert asked(specimen(build), 100) == pytest.approx(1e-5 + 1e-3 / 100)
    assert not any(training for _, size, training, _ in made[-1].seen if size == 100)


def test_batches_of_slow_networks_are_cut(clock: Clock) -> None:
    made: list[Slow] = []

    def build() -> Slow:
        made.append(Slow(clock, 0.02))
        return made[-1]

    # a step takes three times the forward pass, and there is a quarter of a second for it
    assert trained_alone(specimen(build)) == pytest.approx(0.02)
    assert {size for one in made for _, size, _, _ in one.seen} == {2, 4}
    assert clock.now < 4 * pace.LONGEST


def test_two_steps_of_very_slow_networks_are_enough(clock: Clock) -> None:
    made: list[Slow] = []

    def build() -> Slow:
        made.append(Slow(clock, 3.0))
        return made[-1]

    assert trained_alone(specimen(build)) == pytest.approx(3.0)
    # two forward passes show how slow it is
    assert clock.now == pytest.approx(4 * 2 * 3.0)


def test_workers_run_side_by_side(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(pace, "ROUNDS", 1)
    made: list[Slow] = []
    everybody = threading.Barrier(3, timeout=10)

    class Meeting(Slow):
        def forward(self, inputs: Tensor) -> Tensor:
            if len(self.seen) == 0 and len(inputs) == 16:
                everybody.wait()
            return super().forward(inputs)

    def build() -> Slow:
        made.append(Meeting(clock, 1e-4))
        return made[-1]

    before = torch.get_num_threads()
    assert trained_alone(specimen(build), workers=3, threads=1) > 0
    crew = [one for one in made if any(size == 16 for _, size, _, _ in one.seen)]
    assert len({ident for one in crew for ident, *_ in one.seen}) == len(crew) == 3
    assert torch.get_num_threads() == before


def test_no_more_threads_than_say_something(clock: Clock) -> None:
    made: list[Slow] = []

    def build() -> Slow:
        made.append(Slow(clock, 1e-3))
        return made[-1]

    trained_alone(specimen(build), workers=50, threads=1)
    assert len(made) == 1 + pace.SIDE_BY_SIDE


def test_stacking_itself_is_not_counted(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit_stacked(team: Any, problem: Any, on_epoch: Any) -> None:
        (steps,) = {len(m.rows) // problem.recipe.batch for stack in team.stacks for m in stack}
        clock.now += 0.02 + 0.003 * steps

    monkeypatch.setattr(pace, "fit_stacked", fit_stacked)
    found = trained_stacked(specimen(lambda: mlp((16, 8, 3))), 12)
    assert found == pytest.approx(0.003 / (12 * RECIPE.batch))


def test_stacks_are_timed() -> None:
    assert 0 < trained_stacked(specimen(lambda: mlp((16, 8, 3))), 4) < 0.1


def test_what_cannot_be_stacked_is_said() -> None:
    build = lambda: nn.Sequential(nn.Linear(16, 3), nn.Dropout(0.5))  # noqa: E731
    with pytest.raises(InputError, match="cannot be stacked"):
        trained_stacked(specimen(build), 4)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        8, nhead=2, dim_feedforward=20, dropout=0.0, batch_first=True
    )
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(5 * 8, 3))


OPERATIONS = [
    (lambda: mlp((16, 8, 3)), (16,), 2 * (16 * 8 + 8 * 3)),
    (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)
        ),
        (2, 6, 6),
        2 * (4 * 4 * 4 * 2 * 9 + 64 * 3),
    ),
    # projections, scores and their averages, feed-forward; the classifier
    (encoder, (5, 8), 2 * (4 * 5 * 64 + 2 * 25 * 8 + 2 * 5 * 8 * 20 + 40 * 3)),
]


@pytest.mark.parametrize(
    ("build", "shape", "count"), OPERATIONS, ids=["dense", "conv", "attention"]
)
def test_operations_are_those_of_a_count_by_hand(
    build: Callable[[], nn.Module], shape: tuple[int, ...], count: int
) -> None:
    assert forward_operations(specimen(build, shape)) == count


def test_what_torch_does_not_count_is_not_known() -> None:
    class Bare(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs[:, :3].exp()

    assert forward_operations(specimen(Bare)) is None


def test_nobody_notices() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build = lambda: nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 3))  # noqa: E731
    one = specimen(build)
    trained_alone(one, workers=2, threads=1)
    trained_alone(one)
    asked(one, 8)
    forward_operations(one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("timing", [trained_alone, forward_operations, lambda x: asked(x, 8)])
def test_a_network_that_does_not_run_is_explained(timing: Callable[[Specimen], Any]) -> None:
    broken = specimen(lambda: nn.Linear(7, 3), (4, 4))
    with pytest.raises(InputError, match=r"takes no training step on 4x4 inputs \(mat1") as error:
        timing(broken)
    assert "\n" not in str(error.value)


def test_a_layer_that_nobody_can_initialize_can_be_timed() -> None:
    class Own(nn.Linear):
        def __init__(self) -> None:
            super().__init__(16, 3)
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) + self.shift

    assert trained_alone(specimen(Own)) > 0
    assert forward_operations(specimen(Own)) == 2 * 16 * 3


def test_augmentation_and_layout_are_those_of_the_job() -> None:
    seen: list[Any] = []

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            weights = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
            seen.append((weights, inputs.is_contiguous(memory_format=torch.channels_last)))
            return self.conv(inputs).mean(dim=(2, 3))

    drawn: list[int] = []

    def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
        drawn.append(len(batch))
        return batch

    recipe = Recipe(batch=8)
    images = specimen(
        Looking, (2, 6, 6), recipe=recipe, augment=augment, layout=torch.channels_last
    )
    trained_alone(images)
    assert set(seen) == {(True, True)}
    assert set(drawn) == {8}
