"""References and calibrators made from a recipe: of the right data, once, with their own seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from tests.conftest import World
from unaudit.case import Case, build_case
from unaudit.engine.jobs import InProcess, Job
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.loading import LoadedModel
from unaudit.pipeline import audit
from unaudit.plan import AuditPlan
from unaudit.references import FAKE, complete
from unaudit.training.together import Together
from unaudit.workshop import Workshop

RECIPE = {"lr": 0.1, "epochs": 20, "batch": 64}
CALIBRATION = {"retrained": 2, "unlearners": ["finetune", FAKE], "workers": 1}


def planned(plan: AuditPlan, **sections: Any) -> AuditPlan:
    """The plan of a demo world without its references, with a recipe."""
    values = {**plan.model_dump(), "references": {}, "recipe": RECIPE, "calibration": CALIBRATION}
    return AuditPlan.build(values | sections)


def made(plan: AuditPlan, folder: Path) -> Case:
    store = Store(folder)
    return complete(build_case(plan, store), plan, store)


def accuracy(case: Case, label: str, split: Any) -> float:
    (found,) = [c for c in (*case.candidates, *case.calibrators) if c.label == label]
    assert isinstance(found.model, LoadedModel)
    data = case.splits[split]
    (inputs,) = data.dataset.batches(data.rows, len(data))
    with torch.no_grad():
        return float((found.model.module(inputs).argmax(1).numpy() == data.labels).mean())


def test_every_part_is_played(world: World, tmp_path: Path) -> None:
    case = made(planned(world("finetuned", "class")), tmp_path)
    assert case.original is not None
    assert [c.label for c in case.retrained] == ["retrained 1", "retrained 2"]
    assert [c.label for c in case.calibrators] == ["finetune", FAKE]
    assert accuracy(case, "original", "forget") > 0.9
    for label in ("retrained 1", "retrained 2", FAKE):
        assert accuracy(case, label, "forget") == 0.0
        assert accuracy(case, label, "retain") > 0.9
    digests = {candidate.model.digest for candidate in (*case.candidates, *case.calibrators)}
    assert len(digests) == 6
    for candidate in (*case.retrained, *case.calibrators):
        assert candidate.model.provenance.notes == ("made by unaudit from the recipe",)


def test_what_was_made_is_used_again(world: World, tmp_path: Path) -> None:
    plan = planned(world("finetuned", "class"))
    first = made(plan, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.blob")}
    second = made(plan, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.blob")} == before
    apart = made(plan, tmp_path / "another")
    for case in (second, apart):
        assert [c.model.digest for c in case.retrained] == [c.model.digest for c in first.retrained]


def test_what_is_at_hand_needs_no_data(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(world("finetuned", "class"))
    first = made(plan, tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("data were laid out")

    monkeypatch.setattr(Workshop, "places", never)
    second = made(plan, tmp_path)
    assert [c.model.digest for c in second.calibrators] == [
        c.model.digest for c in first.calibrators
    ]


def test_other_unseen_examples_need_no_new_models(world: World, tmp_path: Path) -> None:
    plan = planned(world("finetuned", "class"))
    without = planned(plan, data={**plan.data.model_dump(), "unseen": None})
    first, second = made(plan, tmp_path), made(without, tmp_path)
    assert "unseen" not in second.splits
    for one, other in zip(first.retrained, second.retrained, strict=True):
        assert one.model.digest == other.model.digest


def test_another_recipe_makes_other_models(world: World, tmp_path: Path) -> None:
    plan = planned(world("finetuned", "class"))
    other = planned(world("finetuned", "class"), recipe={**RECIPE, "epochs": 21})
    one, two = made(plan, tmp_path), made(other, tmp_path)
    assert one.retrained[0].model.digest != two.retrained[0].model.digest


def test_references_at_hand_are_kept(world: World, tmp_path: Path) -> None:
    given = world("finetuned", "class")
    plan = planned(given, references=given.references.model_dump())
    case = made(plan, tmp_path)
    assert case.retrained[0].model.provenance.name == "retrained-1.safetensors"
    assert [c.label for c in case.calibrators] == ["finetune", FAKE]


def test_without_a_recipe_nothing_is_trained(world: World, tmp_path: Path) -> None:
    plan = world("finetuned", "class")
    store = Store(tmp_path)
    case = build_case(plan, store)
    assert complete(case, plan, store) is case


def test_recorded_outputs_cannot_be_trained(world: World, tmp_path: Path) -> None:
    ids = np.array(["a", "b", "c", "d"])
    arrays = {
        "train_logits": np.eye(4, 3),
        "train_labels": np.array([0, 1, 2, 0]),
        "train_ids": ids,
    }
    np.savez(tmp_path / "api.npz", **arrays)  # type: ignore[arg-type]
    (tmp_path / "ids.txt").write_text("a\n")
    plan = AuditPlan.build(
        {
            "model": {"path": f"outputs:{tmp_path / 'api.npz'}"},
            "request": {"forget": str(tmp_path / "ids.txt")},
            "recipe": {},
        }
    )
    with pytest.raises(InputError, match="take the recipe out"):
        made(plan, tmp_path / "store")


def test_an_unknown_unlearner_is_named(world: World, tmp_path: Path) -> None:
    plan = planned(world("finetuned", "class"), calibration={"unlearners": ["salon"]})
    with pytest.raises(UsageError, match="did you mean 'salun'"):
        made(plan, tmp_path)


def test_the_task_of_an_unlearner_is_the_request(world: World, tmp_path: Path) -> None:
    plan = planned(world("finetuned", "class"))
    store = Store(tmp_path)
    case = build_case(plan, store)
    task = Workshop(case, plan, store).task()
    assert task.forget_classes == case.forget_classes
    assert int(task.forget.sum()) == len(case.splits["forget"])
    assert task.recipe.epochs == 20
    assert task.n_classes == 10


def test_an_audit_with_nothing_but_a_recipe(world: World, tmp_path: Path) -> None:
    """Model, data, ids and recipe; everything else is made. The original's own recipe shows it."""
    plan = planned(
        world("original", "class"),
        recipe={"lr": 0.1, "epochs": 60, "batch": 64},
        calibration={"retrained": 4, "unlearners": [FAKE], "workers": 1},
    )
    record = audit(plan)
    assert record.verdict.outcome == "fail"


class Refusing:
    """An executor that must not be needed."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
        raise AssertionError("passed on")


def test_a_stack_trains_what_each_job_would(world: World, tmp_path: Path) -> None:
    plan = planned(world("finetuned", "class"), recipe={**RECIPE, "epochs": 5})
    store = Store(tmp_path)
    workshop = Workshop(build_case(plan, store), plan, store)
    places = workshop.places(None)
    jobs = [
        replace(workshop.job("retrain", f"retrained {number}"), places=places)
        for number in range(1, 5)
    ]
    together = dict(Together(Refusing()).run(jobs))
    for position, weights in InProcess().run(jobs):
        alone, stacked = load(weights), load(together[position])
        for name, value in alone.items():
            torch.testing.assert_close(stacked[name], value, rtol=1e-3, atol=1e-4)
    other = [*jobs[:3], workshop.job("finetune", "finetune")]
    with pytest.raises(AssertionError, match="passed on"):
        list(Together(Refusing()).run(other))


def test_what_shadow_models_cannot_be_is_said_before_anything_is_trained(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(world("finetuned", "class"), shadows={"count": 8, "unlearner": "salum"})

    def never(*_: object) -> None:
        raise AssertionError("a model was made")

    monkeypatch.setattr(Workshop, "make", never)
    with pytest.raises(UsageError, match="did you mean 'salun'"):
        made(plan, tmp_path)
