"""As many shadow models as there is time for, and what is said of the others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.shadows.planned import FORGET, RECIPE, TRAIN, UNSEEN, plan_in, workshop_of
from unaudit import cost
from unaudit.cost import Estimator
from unaudit.errors import UsageError
from unaudit.plan import AuditPlan
from unaudit.shadows.make import Prepared, prepare, train_prepared
from unaudit.shadows.power import power_of
from unaudit.shadows.scores import Shadows
from unaudit.workshop import Workshop

EACH = TRAIN * 2
"""Examples that pass while one model of this plan is trained."""


def never(*_: Any) -> float:
    raise AssertionError("timed")


@pytest.fixture(autouse=True)
def paces(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A minute for every model, trained or unlearning."""
    per_example = {"stacked": 60 / EACH, "alone": 60 / EACH, "crew": never, "asked": 0.0}
    found: dict[str, Any] = {
        name: pace if callable(pace) else lambda *_, pace=pace: pace
        for name, pace in per_example.items()
    }
    monkeypatch.setattr(cost, "TIMINGS", found)
    return found


def prepared(plan: AuditPlan, workshop: Workshop | None = None) -> Prepared:
    own = workshop or workshop_of(plan)
    return prepare(own.case, plan.shadows, own, Estimator(own), 0.05)


def made(plan: AuditPlan) -> Shadows:
    workshop = workshop_of(plan)
    return train_prepared(prepared(plan, workshop), workshop.case, workshop)


def limited(folder: Path, count: int, minutes: float | None, **section: Any) -> AuditPlan:
    return plan_in(folder, shadows={"count": count, "max_minutes": minutes, **section})


@pytest.mark.parametrize(
    ("count", "minutes", "fitting"), [(16, 9, 8), (16, 9.9, 8), (15, 100, 15), (15, 14.5, 14)]
)
def test_their_number_is_cut_to_fit(
    count: int, minutes: float, fitting: int, tmp_path: Path
) -> None:
    found = prepared(limited(tmp_path, count, minutes))
    assert found.design.models == len(found.jobs) == found.lot.missing == fitting
    assert (found.given_up is None) == (count == fitting)


def test_unlearning_takes_time_and_whole_groups(tmp_path: Path) -> None:
    # 160 steps are more than an epoch; unlearning takes no more epochs than training did
    plan = limited(tmp_path, 16, 30, unlearner="finetune")
    found = prepared(plan)
    assert found.design.models == 12
    assert found.lot.effort.unlearned == found.lot.effort.trained == 12 * EACH


def test_what_is_given_up_is_in_the_notes_and_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = limited(tmp_path, 16, 9)
    with caplog.at_level(logging.WARNING):
        shadows = made(plan)
    before, after = (power_of(models, FORGET, UNSEEN, 0.05) for models in (16, 8))
    assert before is not None
    assert after is not None
    note = (
        "8 of 16 shadow models fit into 9 min by a timing on this machine, so that elsewhere, or "
        "in another run, it may be more or fewer; the mean shift that LiRA can detect rises from "
        f"{before.shift:.2f} to {after.shift:.2f} standard deviations."
    )
    assert shadows.models == 8
    assert shadows.notes[-1] == note
    assert caplog.messages == [note]
    assert "8 shadow models" in shadows.notes[0]


def test_without_unseen_examples_nothing_is_said_of_what_is_detected(tmp_path: Path) -> None:
    found = prepared(
        plan_in(tmp_path, shadows={"count": 16, "max_minutes": 9}, data={"unseen": None})
    )
    assert found.power is None
    assert found.given_up is not None
    assert found.given_up.endswith("it may be more or fewer.")


def test_the_limit_is_no_part_of_a_models_key(tmp_path: Path) -> None:
    whole, part = prepared(limited(tmp_path, 16, None)), prepared(limited(tmp_path, 16, 9))
    assert [job.key for job in part.jobs] == [job.key for job in whole.jobs[:8]]


def test_another_run_goes_on_where_this_one_ended(tmp_path: Path) -> None:
    plan = limited(tmp_path, 16, 9)
    assert made(plan).models == 8
    following = prepared(plan)
    # eight are there, nine minutes are enough for the other eight
    assert (following.lot.stored, following.lot.missing) == (8, 8)
    assert following.given_up is None
    assert made(plan).models == 16


def test_too_little_time_is_an_error_that_says_how_much_it_takes(tmp_path: Path) -> None:
    message = (
        r"^the 4 shadow models that it takes at least need about 4 min on this machine, "
        r"--max-minutes is 3\.5; allow more, or do without them \(--shadows 0\)$"
    )
    with pytest.raises(UsageError, match=message):
        prepared(limited(tmp_path, 16, 3.5))


def test_nothing_is_timed_without_a_limit_or_work(tmp_path: Path, paces: dict[str, Any]) -> None:
    paces.update(dict.fromkeys(paces, never))
    assert made(limited(tmp_path, 8, None)).models == 8
    assert made(limited(tmp_path, 8, 0.001)).models == 8
    with pytest.raises(AssertionError, match="timed"):
        prepared(limited(tmp_path, 12, 5))


def test_what_a_model_takes_is_counted(tmp_path: Path) -> None:
    found = prepared(limited(tmp_path, 4, None, unlearner="finetune"))
    pool = found.design.member.shape[1]
    assert found.design.train_size == TRAIN
    assert found.lot.effort.trained == 4 * RECIPE["epochs"] * TRAIN
    assert found.lot.effort.asked == 4 * pool * 2
    without = prepared(limited(tmp_path, 4, None))
    assert without.lot.effort.unlearned == 0
    assert without.lot.effort.asked == 4 * without.design.member.shape[1]
