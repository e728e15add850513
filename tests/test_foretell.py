"""What a retrained model would still get right: from the audit's case to the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.conftest import World
from unaudit import twin
from unaudit.case import Candidate, Case, build_case
from unaudit.engine.store import Store
from unaudit.errors import InputError
from unaudit.loading import LoadedModel, RecordedModel
from unaudit.plan import AuditPlan
from unaudit.recording.estimate import retrained_estimate
from unaudit.training import DivergedError
from unaudit.twin import METHOD, Foretold, foretell
from unaudit.unlearners._twin import AccuracyEstimate
from unaudit.views import BlackBox

RECIPE = {"lr": 0.1, "epochs": 60, "batch": 64}
HELD = 300


@pytest.fixture(scope="module")
def plan(world: World, tmp_path_factory: pytest.TempPathFactory) -> AuditPlan:
    """The digits, half of the unseen ones held out for validation; a recipe."""
    given = world("finetuned", "sample")
    folder = tmp_path_factory.mktemp("held-out")
    assert given.data.unseen is not None
    with np.load(given.data.unseen) as arrays:
        unseen = {name: arrays[name] for name in arrays.files}
    order = np.random.default_rng(0).permutation(len(unseen["y"]))
    for name, rows in (("validation", order[:HELD]), ("unseen", order[HELD:])):
        np.savez(folder / f"{name}.npz", **{key: value[rows] for key, value in unseen.items()})
    paths = {name: str(folder / f"{name}.npz") for name in ("unseen", "validation")}
    values = given.model_dump()
    return AuditPlan.build({**values, "data": {**values["data"], **paths}, "recipe": RECIPE})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def case(plan: AuditPlan, store: Store) -> Case:
    return build_case(plan, store)


class View:
    """Outputs of a model on the forget set."""

    def __init__(self, case: Case, candidate: Candidate) -> None:
        assert isinstance(candidate.model, LoadedModel)
        forget = case.splits["forget"]
        (inputs,) = forget.dataset.batches(forget.rows, len(forget))
        with torch.no_grad():
            found = candidate.model.module(inputs).argmax(1).numpy() == forget.labels
        self.hit_rate = found.astype(np.float64)

    def predictions(self, split: str) -> Any:
        assert split == "forget"
        return SimpleNamespace(hit_rate=self.hit_rate)


def views(case: Case) -> dict[str, BlackBox]:
    return {candidate.label: cast(BlackBox, View(case, candidate)) for candidate in case.candidates}


def sure(found: Foretold) -> AccuracyEstimate:
    assert found.reason is None
    assert found.estimate is not None
    return found.estimate


def refused(case: Case, plan: AuditPlan, store: Store) -> str:
    found = foretell(case, plan, store)
    assert found.estimate is None
    assert found.reason is not None
    assert "\n" not in found.reason
    return found.reason


def never(*_: Any) -> AccuracyEstimate:
    raise AssertionError("computed again")


def test_it_comes_near_the_retrained_models_of_the_audit(
    case: Case, plan: AuditPlan, store: Store
) -> None:
    """On the digits, of which these get some 97 % of the forget set right, the original all."""
    estimate = sure(foretell(case, plan, store))
    views_of = views(case)
    part = retrained_estimate(case, views_of, foretell(case, plan, store))
    assert part.truth is not None
    assert views_of["original"].predictions("forget").hit_rate.mean() > 0.995
    assert part.truth < 0.99
    assert abs(estimate.value - part.truth) < 2 * estimate.stderr
    assert abs(estimate.value - part.truth) < 0.025
    assert 0.005 < estimate.stderr < 0.025


def test_the_record_has_the_same_numbers_and_the_truth(
    case: Case, plan: AuditPlan, store: Store
) -> None:
    found = foretell(case, plan, store)
    estimate, views_of = sure(found), views(case)
    part = retrained_estimate(case, views_of, found)
    assert (part.value, part.stderr, part.error, part.plain, part.examples) == (
        estimate.value,
        estimate.stderr,
        estimate.error,
        estimate.plain,
        estimate.examples,
    )
    shares = [views_of[f"retrained {n}"].predictions("forget").hit_rate.mean() for n in range(1, 6)]
    assert part.truth == pytest.approx(np.mean(shares))
    assert (part.retrained, part.validation, part.method) == (5, HELD, METHOD)
    assert (part.recipe_given, part.reason) == (True, None)
    bare = retrained_estimate(replace(case, retrained=()), {}, found)
    assert (bare.truth, bare.retrained, bare.value) == (None, 0, estimate.value)


def test_a_reason_takes_the_place_of_numbers(case: Case) -> None:
    found = Foretold(None, "no place in /home/somebody/models/original.pt", 12, False)
    part = retrained_estimate(replace(case, retrained=()), {}, found)
    assert part.reason == "no place in …/original.pt"
    assert (part.value, part.stderr, part.validation, part.recipe_given) == (None, None, 12, False)


def test_it_is_computed_once(
    case: Case, plan: AuditPlan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []

    class Watching:
        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
            stages.append(name)
            yield lambda step: None

    first = foretell(case, plan, store)
    monkeypatch.setattr(twin, "estimate_retrained_accuracy", never)
    monkeypatch.setattr(twin, "Workshop", never)
    assert foretell(case, plan, store, Watching()) == first
    assert stages == []
    other = plan.model_copy(update={"run": plan.run.model_copy(update={"seed": 1})})
    assert "computed again" in refused(case, other, store)
    longer = AuditPlan.build({**plan.model_dump(), "recipe": {**RECIPE, "epochs": 61}})
    assert "computed again" in refused(case, longer, store)
    fewer = replace(case.splits["forget"], rows=case.splits["forget"].rows[:-1])
    changed = replace(case, splits={**case.splits, "forget": fewer})
    assert "computed again" in refused(changed, plan, store)


def test_its_inputs_stay_as_they_are_and_the_subject_is_not_asked(
    case: Case, plan: AuditPlan, store: Store, tmp_path: Path
) -> None:
    assert case.original is not None
    assert isinstance(case.original.model, LoadedModel)
    module = case.original.model.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    asked = {name: value.requires_grad for name, value in module.named_parameters()}
    other = replace(case, subject=case.retrained[0])
    fresh = Store(tmp_path)
    assert sure(foretell(other, plan, fresh)) == sure(foretell(case, plan, store))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert {name: value.requires_grad for name, value in module.named_parameters()} == asked
    assert not module.training


def test_copies_of_training_examples_are_left_out(
    case: Case, plan: AuditPlan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def look(task: Any, _: Any) -> AccuracyEstimate:
        seen.extend(task.validation)
        raise InputError("seen enough")

    monkeypatch.setattr(twin, "estimate_retrained_accuracy", look)
    held = case.splits["validation"]
    fresh = replace(held, rows=held.rows[5:])
    without = replace(case, splits={**case.splits, "validation": fresh})
    found = foretell(without, plan, store)
    assert (found.reason, found.validation) == ("seen enough", HELD - 5)
    (inputs,) = held.dataset.batches(fresh.rows, HELD)
    assert torch.equal(seen[0], inputs)
    assert seen[1].tolist() == fresh.labels.tolist()


def test_without_a_recipe_what_is_usual_is_assumed(
    case: Case, plan: AuditPlan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assumed = AuditPlan.build({**plan.model_dump(), "recipe": None})
    found = foretell(case, assumed, store)
    # which for a network like this is the very recipe of the digits
    assert sure(found).value == pytest.approx(sure(foretell(case, plan, store)).value)
    assert not found.recipe_given
    monkeypatch.setattr(twin, "ROOM", 1500 * 64 * 4 - 1)
    assert refused(case, assumed, store) == (
        "the inputs would take 375.0 KiB of the cache; if that is wanted, add a [recipe] section "
        "to unaudit.toml, an empty one will do"
    )
    assert sure(foretell(case, plan, store))
    monkeypatch.setattr(twin, "ROOM", 1500 * 64 * 4)
    assert sure(foretell(case, assumed, store))


def recorded(candidate: Candidate) -> Candidate:
    provenance = candidate.model.provenance
    return replace(candidate, model=RecordedModel(cast(Any, {}), provenance, "digest"))


def test_where_it_would_say_nothing_it_says_why(case: Case, plan: AuditPlan, store: Store) -> None:
    assert case.original is not None
    forget = case.splits["forget"]
    canaries = replace(forget, canaries=np.arange(len(forget)) < 3)
    no_canaries = replace(forget, canaries=np.zeros(len(forget), dtype=bool))
    without = {name: split for name, split in case.splits.items() if name != "validation"}
    refusals: tuple[tuple[dict[str, Any], str], ...] = (
        ({"scenario": "class"}, "whole classes are to be forgotten"),
        ({"swapped": (3, 5)}, "the forget examples bear wrong labels"),
        ({"splits": {**case.splits, "forget": canaries}}, "planted canaries are to be forgotten"),
        ({"original": None}, "hand it in with --original"),
        ({"original": recorded(case.original)}, "hand in weights and data"),
        ({"splits": without}, "add some that no model was trained on with --validation"),
    )
    for changes, reason in refusals:
        assert reason in refused(replace(case, **changes), plan, store)
    assert foretell(replace(case, splits=without), plan, store).validation == 0
    known = replace(case, splits={**case.splits, "forget": no_canaries})
    assert sure(foretell(known, plan, store))


def test_too_few_examples_are_a_reason_that_is_kept(
    case: Case, plan: AuditPlan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = case.splits["validation"]
    few = replace(case, splits={**case.splits, "validation": replace(held, rows=held.rows[:8])})
    reason = "the twin problem: 8 validation examples are too few for 5 folds; add more with"
    assert reason in refused(few, plan, store)
    monkeypatch.setattr(twin, "estimate_retrained_accuracy", never)
    assert reason in refused(few, plan, store)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DivergedError("the loss is no number after 3 steps"), "the loss is no number"),
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line"),
    ],
)
def test_what_breaks_does_not_end_the_audit(
    error: Exception,
    reason: str,
    case: Case,
    plan: AuditPlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> AccuracyEstimate:
        raise error

    store = Store(tmp_path)
    monkeypatch.setattr(twin, "estimate_retrained_accuracy", broken)
    assert refused(case, plan, store).startswith(reason)
    monkeypatch.undo()
    kept = isinstance(error, DivergedError)
    assert (foretell(case, plan, store).estimate is None) == kept


def test_what_the_store_holds_is_json(case: Case, plan: AuditPlan, tmp_path: Path) -> None:
    held: list[bytes] = []

    class Watched(Store):
        def blob(self, key: str, compute: Callable[[], bytes]) -> bytes:
            held.append(super().blob(key, compute))
            return held[-1]

    estimate = sure(foretell(case, plan, Watched(tmp_path)))
    (stored,) = (json.loads(content) for content in held)
    assert AccuracyEstimate(**stored["estimate"]) == estimate
