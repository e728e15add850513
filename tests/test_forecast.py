"""The preview of an audit that trains: it says what the audit will do, and does not do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.shadows.planned import FORGET, UNSEEN, plan_in, workshop_of
from unaudit import cost
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.forecast import Preview, preview
from unaudit.plan import AuditPlan
from unaudit.references import complete, planned

SHADOWS = {"count": 8}


def never(*_: Any) -> float:
    raise AssertionError("timed")


@pytest.fixture(autouse=True)
def paces(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(cost.TIMINGS, lambda *_: 0.001)
    monkeypatch.setattr(cost, "TIMINGS", found)
    return found


def made(plan: AuditPlan) -> None:
    workshop = workshop_of(plan)
    complete(workshop.case, plan, workshop.store)


def names(found: Preview) -> set[str]:
    return {card.name for card in found.will_run}


def missing(found: Preview) -> dict[str, int]:
    assert found.cost is not None
    return {lot.kind: lot.missing for lot in found.cost.lots}


def test_shadow_models_are_foreseen(tmp_path: Path) -> None:
    found = preview(plan_in(tmp_path, shadows=SHADOWS))
    assert "lira" in names(found)
    assert "u-lira" not in names(found)
    (reason,) = (m.reason for m in found.will_not_run if m.card.name == "u-lira")
    assert reason == "needs the unlearning method that was used; add --unlearner METHOD"
    assert found.power is not None
    assert (found.power.models, found.power.forget, found.power.unseen) == (8, FORGET, UNSEEN)
    assert found.given_up is None
    unlearned = preview(plan_in(tmp_path, shadows={**SHADOWS, "unlearner": "finetune"}))
    assert "u-lira" in names(unlearned)


def test_without_shadow_models_nothing_is_said_of_them(tmp_path: Path) -> None:
    found = preview(plan_in(tmp_path))
    assert "lira" not in names(found)
    assert found.power is None
    assert missing(found) == {"original": 1, "retrained model": 3, "calibrator": 1}


def test_nothing_is_said_of_an_attack_that_is_left_out(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, shadows=SHADOWS, probes={"lira": {"enabled": False}})
    assert preview(plan).power is None


def test_nothing_is_made_or_laid_out(tmp_path: Path) -> None:
    preview(plan_in(tmp_path, shadows=SHADOWS))
    assert not list((tmp_path / "store").rglob("*.blob"))


def test_what_is_there_costs_nothing(tmp_path: Path, paces: dict[str, Any]) -> None:
    plan = plan_in(tmp_path, shadows={"count": 4})
    made(plan)
    more = preview(plan_in(tmp_path, shadows={"count": 8}))
    assert missing(more) == {
        "original": 0,
        "retrained model": 0,
        "calibrator": 0,
        "shadow model": 4,
    }
    paces.update(dict.fromkeys(paces, never))
    again = preview(plan)
    assert again.cost is not None
    assert (again.cost.missing, again.cost.stored, again.cost.seconds) == (0, 1 + 3 + 1 + 4, 0)
    with pytest.raises(AssertionError, match="timed"):
        preview(plan_in(tmp_path, shadows={"count": 8}))


def test_a_limit_is_kept_to(tmp_path: Path) -> None:
    # a thousandth of a second for an example: 0.12 s for training, 0.07 s for answers
    limited = preview(plan_in(tmp_path, shadows={"count": 16, "max_minutes": 2 / 60}))
    assert limited.given_up is not None
    assert limited.power is not None
    assert limited.power.models == missing(limited)["shadow model"] == 10
    assert limited.given_up.startswith("10 of 16 shadow models fit into 0.0333333 min")


def test_it_fails_as_the_audit_would(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained by a recipe"):
        preview(plan_in(tmp_path, shadows=SHADOWS, recipe=None))
    with pytest.raises(UsageError, match="finetun"):
        preview(plan_in(tmp_path, shadows={**SHADOWS, "unlearner": "finetun"}))
    with pytest.raises(InputError, match="'flip' needs images"):
        preview(plan_in(tmp_path, shadows={**SHADOWS, "queries": ["plain", "flip"]}))


def test_without_a_recipe_nothing_is_made(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, recipe=None)
    assert preview(plan).cost is None
    workshop = workshop_of(plan_in(tmp_path))
    assert planned(workshop.case, plan, Store(tmp_path / "store")).case is workshop.case
