"""The matrix and the head-distillation check hold what calibration says, no more and no less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.conftest import World
from tests.worlds import ScoreWorld, case_of, measurement_of, probe_of
from unaudit.calibration import Calibrated, calibrate
from unaudit.case import Case
from unaudit.evidence import Access, Family
from unaudit.fidelity import MADE
from unaudit.judging import classify
from unaudit.measuring import Reading
from unaudit.pipeline import audit
from unaudit.plan import AuditPlan
from unaudit.recording.matrix import matrix
from unaudit.recording.sanity import sanity
from unaudit.references import FAKE
from unaudit.report.record import Matrix, MatrixCell, Record
from unaudit.stats import ResidualIndex

ALPHA, TAU = 0.05, 0.5
MADE_BY: dict[str, float] = {"finetune": 0.95, FAKE: 0.0}
"""How much each calibrator remembers."""


def candidate(role: Any, label: str, *, recorded: bool = False) -> Any:
    class Stub:
        pass

    stub: Any = Stub()
    stub.role, stub.label, stub.recorded = role, label, recorded
    return stub


def case(calibrators: tuple[str, ...] = tuple(MADE_BY), **options: Any) -> Case:
    made: Any = case_of(**options)
    made.subject = candidate("subject", "subject")
    made.original = candidate("original", "original")
    made.calibrators = tuple(candidate("calibrator", name) for name in calibrators)
    return made  # type: ignore[no-any-return]


def calibrated(
    *,
    name: str = "toy",
    family: Family = "membership",
    access: Access = "black-box",
    effect: float = 1.5,
    seed: int = 0,
    without: str | None = None,
    remembered: dict[str, float] | None = None,
) -> Calibrated:
    """One probe on models of known memory, calibrated as an audit does it."""
    world = ScoreWorld(np.random.default_rng(seed), effect=effect, spread=0.05)
    measurement = replace(
        measurement_of(
            world.model(0.5),
            world.model(1.0),
            [world.model(0.0) for _ in range(6)],
            probe_of(name, family, access=access),
        ),
        calibrators={
            label: Reading((world.model(share),))
            for label, share in (remembered or MADE_BY).items()
            if label != without
        },
    )
    (one,) = calibrate(
        [measurement],
        case(),
        alpha=ALPHA,
        tau=TAU,
        replicates=400,
        rng=np.random.default_rng(1),
    )
    return one


def matrix_of(*items: Calibrated) -> Matrix:
    made = matrix(case(), items, ALPHA, TAU)
    assert made is not None
    return made


def by_model(found: Matrix, column: int = 0) -> dict[str, MatrixCell | None]:
    return {row.model: row.cells[column] for row in found.rows}


def index_of(cell: MatrixCell | None) -> float:
    assert cell is not None
    assert cell.index is not None
    return cell.index.estimate


def test_rows_are_the_subject_the_original_and_the_calibrators() -> None:
    found = matrix_of(calibrated())
    assert [(row.model, row.role) for row in found.rows] == [
        ("subject", "subject"),
        ("original", "original"),
        ("finetune", "calibrator"),
        (FAKE, "calibrator"),
    ]


def test_cells_are_what_calibration_said_with_the_outcome_of_the_verdict() -> None:
    item = calibrated()
    cells = by_model(matrix_of(item))
    assert item.index is not None
    expected: dict[str, ResidualIndex] = {"subject": item.index, **item.calibrators}
    for model, index in expected.items():
        cell = cells[model]
        assert cell is not None
        assert cell.index is not None
        assert (cell.index.estimate, cell.index.low, cell.index.high) == (
            index.estimate,
            index.low,
            index.high,
        )
        assert cell.index.level == pytest.approx(0.9)
        assert cell.outcome == classify(index, ALPHA)
    outcomes = {model: cell.outcome for model, cell in cells.items() if cell}
    assert outcomes["finetune"] == "residual"
    assert outcomes[FAKE] == "like-retrained"


def test_the_original_is_at_1_and_read_like_any_other_subject() -> None:
    item = calibrated()
    cell = by_model(matrix_of(item))["original"]
    assert index_of(cell) == pytest.approx(1.0)
    assert cell is not None
    assert cell.outcome == "residual"
    # the same model handed in as the subject
    measurement = item.measurement
    assert measurement.original is not None
    again = replace(measurement, subject=measurement.original)
    (twin,) = calibrate(
        [again], case(), alpha=ALPHA, tau=TAU, replicates=400, rng=np.random.default_rng(1)
    )
    assert twin.index is not None
    assert cell.index is not None
    # a subject's measure is taken to be known no better than to one example, hence the tolerance
    assert cell.index.low == pytest.approx(twin.index.low, abs=1e-3)
    assert cell.index.high == pytest.approx(twin.index.high, abs=1e-3)


def test_a_calibrator_on_which_the_probe_declined_has_no_cell() -> None:
    cells = by_model(matrix_of(calibrated(without="finetune")))
    assert cells["finetune"] is None
    assert cells[FAKE] is not None


def test_columns_are_sorted_and_state_what_is_ordinary() -> None:
    blind = calibrated(name="blind", effect=0.0)
    late = calibrated(name="late", family="recoverability", access="white-box")
    early = calibrated(name="early")
    assert not blind.informative
    found = matrix_of(blind, late, early)
    assert [column.probe for column in found.columns] == ["early", "late", "blind"]
    assert [column.informative for column in found.columns] == [True, True, False]
    assert [column.access for column in found.columns] == ["black-box", "white-box", "black-box"]
    assert found.columns[2].reason == blind.reason
    assert {cell.outcome for cell in by_model(found, 2).values() if cell} == {"not-informative"}
    assert early.scale is not None
    values = early.scale.retrained
    unit = early.scale.original - values.mean()
    assert found.columns[0].retrained_spread == pytest.approx(values.std(ddof=1) / unit)


def test_a_probe_that_was_not_calibrated_keeps_an_empty_column() -> None:
    item = calibrated()
    uncalibrated = replace(
        item, mode=None, scale=None, index=None, reason="one retrained model", calibrators={}
    )
    found = matrix_of(uncalibrated)
    assert found.columns[0].retrained_spread is None
    for cell in by_model(found).values():
        assert cell is not None
        assert (cell.index, cell.outcome) == (None, "not-informative")


def test_a_probe_calibrated_on_the_subject_itself_says_nothing_of_others() -> None:
    item = replace(calibrated(), mode="in-model", calibrators={})
    found = matrix_of(item)
    assert found.columns[0].retrained_spread is None
    cells = by_model(found)
    assert index_of(cells["subject"]) == pytest.approx(0.5, abs=0.3)
    others = [cell for model, cell in cells.items() if model != "subject"]
    assert [cell.index for cell in others if cell] == [None, None, None]


def test_without_calibrators_there_is_no_matrix() -> None:
    assert matrix(case(()), [calibrated()], ALPHA, TAU) is None


def plan(recipe: dict[str, Any] | None = None, **calibration: Any) -> AuditPlan:
    return AuditPlan.build({"recipe": recipe, "calibration": calibration})


def test_the_check_sorts_probes_by_what_they_say_of_the_fake() -> None:
    said = {"fooled": 0.0, "caught": 1.0, "under": -2.0}
    items = [
        calibrated(name=name, seed=seed, remembered={FAKE: share})
        for seed, (name, share) in enumerate(said.items())
    ]
    far = calibrated(name="far", family="output-distance", remembered={FAKE: -2.0}, seed=4)
    found = sanity(plan({}), case(), [*items, far], ALPHA)
    assert (found.fake, found.reason) == (FAKE, None)
    assert found.fooled == ("fooled",)
    assert found.caught == ("caught", "under"), "over-unlearned betrays membership as well"
    assert found.undecided == ("far",), "and elsewhere it fails nothing"


def test_the_check_leaves_out_what_decides_nothing_about_black_box_evidence() -> None:
    items = [
        calibrated(name="blind", effect=0.0),
        calibrated(name="inside", access="white-box"),
        calibrated(name="useful", family="utility"),
        calibrated(name="declined", without=FAKE),
    ]
    found = sanity(plan({}), case(), items, ALPHA)
    assert found.fake == FAKE
    assert (found.fooled, found.caught, found.undecided) == ((), (), ())


@pytest.mark.parametrize(
    ("given", "recorded", "reason"),
    [
        (None, False, "no recipe was given"),
        ({}, True, "the original is known by recorded outputs only"),
        ({}, False, "calibration.unlearners leaves 'head-distillation' out"),
    ],
)
def test_without_a_fake_the_reason_is_stated(
    given: dict[str, Any] | None, recorded: bool, reason: str
) -> None:
    without: Any = case(("finetune",))
    without.original = candidate("original", "original", recorded=recorded)
    found = sanity(plan(given), without, [calibrated()], ALPHA)
    assert found.fake is None
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert (found.fooled, found.caught, found.undecided) == ((), (), ())


@pytest.fixture(scope="module")
def with_recipe(world: World) -> Record:
    """The head-distilled digits, with references made from the recipe that made the original."""
    given = world("head-distilled", "class").model_dump()
    given["references"]["retrained"] = ()
    given["recipe"] = {"lr": 0.1, "epochs": 60, "batch": 64}
    given["calibration"] = {"profile": "smoke", "workers": 1}
    return audit(AuditPlan.build(given))


def test_an_audit_with_a_recipe_shows_its_own_calibrators(with_recipe: Record) -> None:
    found = with_recipe.matrix
    assert found is not None
    assert [row.model for row in found.rows] == ["subject", "original", "finetune", FAKE]
    assert len(found.columns) == len(with_recipe.findings)
    indices = {f.probe: f.residual_index for f in with_recipe.findings}
    for column, cell in zip(found.columns, found.rows[0].cells, strict=True):
        assert cell is not None
        assert cell.index == indices[column.probe]
    roles = [row.role for row in with_recipe.controls.accuracy]
    assert roles == ["subject", "original", *["retrained"] * 3, *["calibrator"] * 2]


def test_black_box_probes_take_the_fake_of_the_check_for_retrained(with_recipe: Record) -> None:
    found = with_recipe.sanity
    assert found is not None
    assert found.fake == FAKE
    assert len(found.fooled) >= 4
    assert found.caught == ()


def test_the_recipe_of_the_digits_is_faithful(with_recipe: Record) -> None:
    found = with_recipe.fidelity
    assert found is not None
    assert all(MADE in model.notes for model in with_recipe.controls.retrained)
    assert found.ok
    assert found.made == ("retrained",)
    assert found.kept_classes_only
    assert [part.split for part in found.splits] == ["retain", "unseen"]
    by_role = {row.role: row for row in reversed(with_recipe.controls.accuracy)}
    # among the other classes alone: what was taken for the forgotten class may be right then
    among_all = by_role["original"].unseen_kept
    assert among_all is not None
    assert among_all <= found.splits[1].original <= among_all + 0.02


def test_an_audit_without_a_recipe_compares_what_was_handed_in(world: World) -> None:
    record = audit(world("head-distilled", "class"))
    assert record.matrix is None
    assert record.fidelity is not None
    assert (record.fidelity.made, record.fidelity.ok) == ((), True)
    assert record.sanity is not None
    assert record.sanity.fake is None
