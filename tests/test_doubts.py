"""Audits of known truth whose references are not what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.conftest import World
from tests.test_audit import changed
from tests.worlds import measurement_of
from unaudit.case import Case
from unaudit.contamination import known_forget, leanings
from unaudit.demo import LAYOUTS, Digits, Layout, Setting, Subject, load_digits, train_model
from unaudit.evidence import IntArray, Scores
from unaudit.loading.networks import mlp
from unaudit.pipeline import audit
from unaudit.plan import AuditPlan
from unaudit.report.html import to_html
from unaudit.report.record import Record
from unaudit.training import Recipe, fit, initialize

EARLY: dict[str, Any] = {"lr": 0.1, "epochs": 4, "batch": 64}
"""Stops long before the recipe of the digits does."""


def by_recipe(
    world: World, subject: Subject, scenario: Setting, original: bool, recipe: dict[str, Any]
) -> Record:
    """The audit of a demo model with references from a stated recipe."""
    plan = world(subject, scenario)
    given = {"retrained": (), **({} if original else {"original": None})}
    values = changed(plan, references=given, policy={"accept_black_box": True}).model_dump()
    values["recipe"] = recipe
    values["calibration"] = {"unlearners": (), "workers": 1}
    return audit(AuditPlan.build(values))


def failing(record: Record) -> list[str]:
    names = [finding.probe for finding in record.findings if finding.fails]
    return [*names, *(family.family for family in record.families if family.fails)]


def beyond(record: Record) -> list[float]:
    tests = (*record.findings, *record.families)
    return [t.p_adjusted for t in tests if t.p_adjusted is not None and t.p_adjusted <= 0.05]


@pytest.mark.parametrize(("scenario", "original"), [("class", False), ("sample", True)])
def test_an_honest_subject_does_not_fail_beside_another_recipe(
    world: World, scenario: Setting, original: bool
) -> None:
    record = by_recipe(world, "retrained", scenario, original, EARLY)
    assert beyond(record)
    assert failing(record) == []
    verdict = record.verdict
    assert (verdict.outcome, verdict.exit_code, verdict.assurance_level) == ("inconclusive", 3, 1)
    assert "found the subject beyond the margin" in verdict.headline
    if original:
        assert "but the recipe does not reproduce the original" in verdict.headline
    else:
        assert "for the subject and" in verdict.caps[0]
        assert verdict.caps[0].endswith("--original settles it")
        assert verdict.next_step == "hand in the original model with --original"
    page = to_html(record)
    assert "models that it was compared with are in doubt" in page
    assert "fails-word" not in page.split("</style>")[1]


def test_what_never_unlearned_fails_without_references(world: World) -> None:
    record = by_recipe(world, "original", "sample", True, EARLY)
    assert record.verdict.outcome == "fail"
    assert "without references" in record.verdict.headline
    assert "does not reproduce the original" in record.verdict.caps[0]
    assert record.verdict.assurance_level == 1


@pytest.mark.parametrize("scenario", ["sample", "class"])
def test_a_recipe_that_nothing_contradicts_lets_a_fail_stand(
    world: World, scenario: Setting
) -> None:
    """Nobody handed in an original; the subject is as good as the retrained models."""
    recipe = {"lr": 0.1, "epochs": 60, "batch": 64}
    record = by_recipe(world, "original", scenario, False, recipe)
    assert (record.verdict.outcome, record.verdict.assurance_level) == ("fail", 1)
    assert failing(record)
    assert record.fidelity is not None
    assert not record.fidelity.ok


def saved(folder: Path, network: nn.Module, number: int) -> str:
    path = folder / f"reference-{number}.safetensors"
    save_file(network.state_dict(), path)
    return str(path)


def test_retrained_models_of_another_training_are_doubted_when_handed_in(
    world: World, tmp_path: Path
) -> None:
    layout = LAYOUTS["sample"]
    digits = load_digits(layout, 0)
    inputs, labels = digits.inputs[digits.retain], digits.labels[digits.retain]
    early = []
    for number in range(1, 6):
        generator = torch.Generator().manual_seed(number)
        network = initialize(mlp(layout.widths), generator)
        early.append(
            saved(tmp_path, fit(network, inputs, labels, Recipe(**EARLY), generator), number)
        )
    plan = changed(world("retrained", "sample"), references={"retrained": tuple(early)})
    record = audit(plan)
    assert beyond(record)
    assert failing(record) == []
    assert (record.verdict.outcome, record.verdict.assurance_level) == ("inconclusive", 1)
    assert record.fidelity is not None
    assert (record.fidelity.made, record.fidelity.ok) == ((), False)
    assert record.fidelity.reason in record.verdict.caps
    assert record.fidelity.reason.startswith("the retrained models handed in do not match the")
    page = to_html(record)
    assert "Do the retrained models match the original?" in page
    assert "made by unaudit from the recipe" not in page


def with_half_a_class(folder: Path, of: Sequence[int], models: int) -> tuple[str, ...]:
    """References for the class scenario; those of the numbers ``of`` saw half of the class."""
    layout = LAYOUTS["class"]
    digits = load_digits(layout, 0)
    half = np.sort(np.concatenate([digits.retain, digits.forget[::2]]))
    return tuple(
        saved(folder, train_model(digits, rows, layout.widths, 0, number), number)
        for number in range(1, models + 1)
        for rows in [half if number in of else digits.retain]
    )


def test_one_reference_that_knows_the_class_is_named(world: World, tmp_path: Path) -> None:
    policy = {"accept_black_box": True}
    verdicts = {
        of: audit(
            changed(
                world("retrained", "class"),
                references={"retrained": with_half_a_class(tmp_path, of, 3)},
                policy=policy,
            )
        ).verdict
        for of in ((), (2,))
    }
    assert (verdicts[()].outcome, verdicts[()].caps) == ("pass", ())
    assert verdicts[2,].outcome == "inconclusive"
    assert verdicts[2,].caps[0].startswith("forgotten classes are known to retrained 2, right on ")
    assert verdicts[2,].next_step is not None
    assert "without the forget set" in verdicts[2,].next_step


def test_references_that_know_the_class_make_no_pass_and_no_wrong_fail(
    world: World, tmp_path: Path
) -> None:
    """An honest subject knows too little beside them, one that unlearned half seems to be clean,
    and one that never unlearned is caught."""
    references = {"retrained": with_half_a_class(tmp_path, range(1, 6), 5)}
    subjects: tuple[Subject, ...] = ("retrained", "finetuned", "original")
    records = [
        audit(
            changed(
                world(subject, "class"), references=references, policy={"accept_black_box": True}
            )
        )
        for subject in subjects
    ]
    outcomes = [record.verdict.outcome for record in records]
    assert outcomes == ["inconclusive", "inconclusive", "fail"]
    assert "forgotten classes are known to the retrained models" in records[0].verdict.headline
    assert "over-unlearned" in {finding.outcome for finding in records[0].findings}
    assert [failing(record) for record in records[:2]] == [[], []]
    assert "would look worse beside others" in records[2].verdict.reasons[0]


def with_noise(digits: Digits) -> Digits:
    """Every other label drawn at random, of unseen digits too: what can only be known by heart."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 10, digits.labels.shape, generator=generator)
    noisy = torch.rand(len(drawn), generator=generator) < 0.5
    return replace(digits, labels=torch.where(noisy, drawn, digits.labels))


def scores_on(digits: Digits, model: nn.Module) -> Scores:
    """Log-confidence, as the loss attack has it."""
    with torch.inference_mode():
        log_p = torch.log_softmax(model(digits.inputs).double(), dim=1)
    own = log_p.gather(1, digits.labels[:, None])[:, 0].numpy()
    return Scores(forget=own[digits.forget], unseen=own[digits.unseen], statistic="auc")


def test_networks_that_saw_half_of_the_forget_digits_are_doubted() -> None:
    layout = Layout(train=500, forget=200, forget_class=-1, widths=(64, 128, 128, 10))
    digits = with_noise(load_digits(layout, 0))
    half = np.sort(np.concatenate([digits.retain, digits.forget[::2]]))

    def network(rows: IntArray, number: int) -> Scores:
        return scores_on(digits, train_model(digits, rows, layout.widths, 0, number))

    original = network(digits.train, 0)
    named = tuple(SimpleNamespace(label=f"retrained {number}") for number in (1, 2))
    sides = {
        name: SimpleNamespace(dataset=SimpleNamespace(groups=None)) for name in ("forget", "unseen")
    }
    case = cast(
        Case,
        SimpleNamespace(scenario="sample", mix_differs=False, retrained=named, splits=sides),
    )
    for rows, doubted in ((digits.retain, 0), (half, 1)):
        measurement = measurement_of(original, original, [network(rows, n) for n in (1, 2)])
        assert len(known_forget(case, {}, leanings(case, [measurement]))) == doubted
