"""All shadow models of a design: keys, stacks, resuming, and what is put together of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shadows.world import MLP, RECIPE, RESNET, Refusing, Shadowed, arrays_of, shadowed
from unaudit.engine.jobs import InProcess, Job
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.shadows import train
from unaudit.shadows.train import collect, train_shadows
from unaudit.training import DivergedError
from unaudit.training.together import Together

TOGETHER = Together(Refusing())


@pytest.fixture
def world(tmp_path: Path) -> Shadowed:
    return shadowed(tmp_path)


class Counting(InProcess):
    """Notes what it ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
        self.ran += [job.title for job in jobs]
        yield from super().run(jobs)


@pytest.mark.parametrize("unlearner", [None, "finetune"])
def test_a_stack_says_what_each_job_would(world: Shadowed, unlearner: str | None) -> None:
    design = world.design(5, unlearning=unlearner is not None)
    jobs = world.jobs(design, unlearner=unlearner)
    together = dict(TOGETHER.run(jobs))
    assert sorted(together) == list(range(5))
    for position, result in InProcess().run(jobs):
        alone, stacked = arrays_of(result), arrays_of(together[position])
        assert alone.keys() == stacked.keys()
        for name, values in alone.items():
            np.testing.assert_allclose(stacked[name], values, rtol=1e-3, atol=1e-4)


def test_large_stacks_are_trained_in_parts(
    world: Shadowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = world.jobs(world.design(5))
    whole = dict(TOGETHER.run(jobs))
    monkeypatch.setattr("unaudit.shadows.stacked.TOGETHER", 2)
    parts = dict(TOGETHER.run(jobs))
    for position, result in whole.items():
        found = arrays_of(parts[position])["scores"]
        np.testing.assert_allclose(found, arrays_of(result)["scores"], rtol=1e-3, atol=1e-4)


def test_what_does_not_stack_is_passed_on(tmp_path: Path) -> None:
    world = shadowed(tmp_path, (1, 4, 4))
    design = world.design(4)
    one, other = world.jobs(design), world.jobs(design, recipe=asdict(replace(RECIPE, epochs=4)))
    wide = "unaudit:mlp?widths=16-512-512-3"
    for jobs in (
        world.jobs(design, arch=RESNET),
        world.jobs(design, arch=wide),
        world.jobs(design, recipe=asdict(replace(RECIPE, precision="bf16"))),
        one[:2],
        [*one[:2], *other[2:]],
    ):
        with pytest.raises(AssertionError, match="passed on"):
            list(TOGETHER.run(jobs))
    assert len(dict(TOGETHER.run(one))) == 4


def test_what_diverges_in_a_stack_is_said_to_be_a_shadow_model(world: Shadowed) -> None:
    wild = asdict(replace(RECIPE, lr=1e30))
    with pytest.raises(DivergedError, match=r"^shadow models: member 1 of 4: training diverged"):
        list(TOGETHER.run(world.jobs(world.design(), recipe=wild)))


def test_shadows_are_put_together_by_split(world: Shadowed) -> None:
    design = world.design(6, unlearning=True)
    jobs = world.jobs(design, unlearner="finetune")
    shadows = train_shadows(design, jobs, Together(InProcess()), world.store)
    assert shadows.models == 6
    assert shadows.queries == ("plain",)
    assert shadows.unlearner == "finetune"
    assert shadows.train_size == design.train_size
    assert set(shadows.splits) == set(design.rows)
    assert design.erased is not None
    results = [arrays_of(world.store.find(job.key) or b"") for job in jobs]
    for name, column in design.columns.items():
        found = shadows.splits[name]
        assert (found.rows == design.rows[name]).all()
        assert (found.member == design.member[:, column]).all()
        assert found.erased is not None
        assert found.unlearned is not None
        assert (found.erased == design.erased[:, column]).all()
        for number, said in enumerate(results):
            assert (found.scores[number] == said["scores"][:, column]).all()
            assert (found.unlearned[number] == said["unlearned"][:, column]).all()
    plain = train_shadows(design, world.jobs(design), Together(InProcess()), world.store)
    assert plain.unlearner is None
    for split in plain.splits.values():
        assert split.unlearned is split.erased is None


def test_members_look_like_members(tmp_path: Path) -> None:
    """Trained for long on few examples, a model is surer of those that it was trained on; one that
    unlearned by being retrained, only of those that it kept."""
    world = shadowed(tmp_path)
    design = world.design(16, unlearning=True)
    recipe = asdict(replace(RECIPE, epochs=40))
    jobs = world.jobs(design, recipe=recipe, unlearner="retrain")
    shadows = train_shadows(design, jobs, TOGETHER, world.store)
    unseen = shadows.splits["unseen"]
    assert unseen.unlearned is not None
    assert unseen.erased is not None
    inside, after = unseen.scores[:, 0], unseen.unlearned[:, 0]
    kept = unseen.member & ~unseen.erased
    assert inside[unseen.member].mean() > inside[~unseen.member].mean() + 1
    assert after[kept].mean() > after[unseen.erased].mean() + 1
    assert abs(after[~unseen.member].mean() - after[unseen.erased].mean()) < 1


def test_an_interrupted_run_goes_on(world: Shadowed) -> None:
    design = world.design(6)
    jobs = world.jobs(design)
    stored = Counting()
    for job in jobs[1:3]:
        (result,) = (made for _, made in InProcess().run([job]))
        world.store.blob(job.key, lambda result=result: result)
    whole = train_shadows(design, jobs, stored, world.store)
    assert stored.ran == [f"shadow {number} of 6" for number in (1, 4, 5, 6)]
    again = train_shadows(design, jobs, Refusing(), world.store)
    anew = train_shadows(design, jobs, InProcess(), Store(world.store.root / "another"))
    for other in (again, anew):
        for name, split in whole.splits.items():
            assert (split.scores == other.splits[name].scores).all()


def test_more_models_keep_the_first(world: Shadowed) -> None:
    few, more = world.design(4, unlearning=True), world.design(8, unlearning=True)
    jobs = world.jobs(few, unlearner="finetune")
    assert [j.key for j in jobs] == [j.key for j in world.jobs(more, unlearner="finetune")][:4]


def test_a_key_says_what_decides_the_result(world: Shadowed) -> None:
    design = world.design(4, unlearning=True)
    keys = [job.key for job in world.jobs(design)]
    assert len(set(keys)) == 4
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"data": "others"},
        {"recipe": asdict(replace(RECIPE, lr=0.2))},
        {"augment": "flip"},
        {"unlearner": "finetune"},
        {"unlearner": "finetune", "parameters": {"lr": 0.5}},
        {"scenario": "partial-class"},
        {"device": "cuda"},
        {"arch": MLP.replace("8", "9")},
    ]
    for change in changes:
        other = [job.key for job in world.jobs(design, **change)]
        assert not set(keys) & set(other)
        keys += other
    elsewhere = {name: str(Path(path).rename(path + ".npy")) for name, path in world.places.items()}
    assert [job.key for job in world.jobs(design, places=elsewhere)] == keys[:4]


def test_large_arrays_lie_in_the_store(world: Shadowed, monkeypatch: pytest.MonkeyPatch) -> None:
    design = world.design(4, unlearning=True)
    jobs = world.jobs(design, unlearner="finetune")
    held: list[int] = []
    small = train_shadows(design, jobs, InProcess(), world.store)
    monkeypatch.setattr(train, "IN_MEMORY", 0)
    monkeypatch.setattr(train, "AT_ONCE", 1)
    run = train.results_of
    monkeypatch.setattr(
        train,
        "results_of",
        lambda jobs, *rest, **more: held.append(len(jobs)) or run(jobs, *rest, **more),
    )
    large = train_shadows(design, jobs, Refusing(), world.store)
    assert held == [1, 1, 1, 1]
    again = train_shadows(design, jobs, Refusing(), world.store)
    assert len(held) == 4
    for name, split in small.splits.items():
        for other in (large.splits[name], again.splits[name]):
            assert isinstance(other.scores, np.memmap)
            assert (split.scores == other.scores).all()
            assert split.unlearned is not None
            assert other.unlearned is not None
            assert (split.unlearned == other.unlearned).all()


def test_results_are_read_one_at_a_time(world: Shadowed) -> None:
    design = world.design(4)
    given = [result for _, result in InProcess().run(world.jobs(design))]
    shadows = collect((result for result in given), design)
    assert shadows.splits["forget"].scores.shape == (4, 1, 12)


class Steps:
    """Listens."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []
        self.steps = 0

    def stage(self, name: str, total: int | None = None) -> Any:
        from contextlib import nullcontext

        def step(count: int) -> None:
            self.steps += count

        self.seen.append((name, total))
        return nullcontext(step)


def test_progress_is_told_of_every_model(world: Shadowed) -> None:
    progress, design = Steps(), world.design(4)
    train_shadows(design, world.jobs(design), InProcess(), world.store, progress)
    assert progress.seen == [("training shadow models", 4)]
    assert progress.steps == 4


def test_what_cannot_be_done_is_refused_before_anything_is_trained(world: Shadowed) -> None:
    plain, unlearning = world.design(4), world.design(4, unlearning=True)
    with pytest.raises(UsageError, match="did you mean 'finetune'"):
        world.jobs(unlearning, unlearner="finetunes")
    with pytest.raises(UsageError, match="the design has no forget sets"):
        world.jobs(plain, unlearner="finetune")
    with pytest.raises(
        UsageError, match=r"boundary-shrink is for the class.* scenario, this .* sample"
    ):
        world.jobs(unlearning, unlearner="boundary-shrink")
    with pytest.raises(InputError, match="needs images"):
        world.jobs(plain, queries=("plain", "flip"))
