"""Shadow models in the record: which attacks used them, how, and who stands out."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from attacks.black_box.klom import MarginDivergence
from attacks.black_box.lira import LikelihoodRatioAttack
from attacks.black_box.rmia import RobustMembershipAttack
from attacks.black_box.u_lira import UnlearningLikelihoodRatio
from tests.conftest import World
from tests.probes.shadow_worlds import REMEMBERS, RETRAINED, ShadowWorld
from tests.worlds import ScoreWorld, case_of, measurement_of, probe_of
from unaudit import pipeline
from unaudit.calibration import Calibrated, calibrate
from unaudit.case import Case
from unaudit.evidence import Scores, Statistic
from unaudit.forecast import preview
from unaudit.plan import AuditPlan
from unaudit.recording import Run, namer, write_record
from unaudit.recording.figures import MIN_GROUP, histograms, rocs
from unaudit.recording.shadows import shadow_models
from unaudit.recording.worst import MOST, worst
from unaudit.report.record import Record
from unaudit.stats import auc

ALPHA = 0.05
KEY, DATA = b"a key of the auditor", "5" * 64
ATTACKS = (LikelihoodRatioAttack(), UnlearningLikelihoodRatio(), RobustMembershipAttack())


class Named:
    """Stands for a split: ids and a length."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def id_of(self, position: int) -> str:
        return f"person-{position}"


def case(world: ShadowWorld | None, **sizes: int) -> Case:
    made = cast(Any, case_of(**sizes))
    made.splits["forget"] = Named(len(made.splits["forget"]))
    made.shadows = None if world is None else world.shadows
    return cast(Case, made)


def calibrated(measurements: list[Any], made: Case) -> list[Calibrated]:
    rng = np.random.default_rng(1)
    return calibrate(measurements, made, alpha=ALPHA, tau=0.5, replicates=200, rng=rng)


@pytest.fixture(scope="module")
def shadowed() -> tuple[Case, list[Calibrated]]:
    """All attacks with shadow models, and one without, on an original. The first four forget
    examples are in too many shadow models to be scored."""
    world = ShadowWorld(np.random.default_rng(0), models=16, queries=2, lift=2.0)
    forget = world.shadows.splits["forget"]
    member = np.array(forget.member)
    member[:, :4] = True
    world.shadows = replace(
        world.shadows,
        splits={**world.shadows.splits, "forget": replace(forget, member=member)},
        notes=("What was reached.",),
    )
    views = [world.model(part) for part in (REMEMBERS, REMEMBERS, RETRAINED, RETRAINED, RETRAINED)]
    rng = np.random.default_rng(2)
    probes: tuple[Any, ...] = (*ATTACKS, MarginDivergence(least_models=4))
    measurements: list[Any] = []
    for probe in probes:
        subject, original, *others = (probe(view, rng) for view in views)
        measurements.append(measurement_of(subject, original, others, probe))
    others = [ScoreWorld(rng, forget=150, unseen=250, retain=200).model(1.0) for _ in range(5)]
    measurements.append(measurement_of(others[0], others[1], others[2:], probe_of("plain")))
    made = case(world, forget=150, unseen=250, retain=200)
    return made, calibrated(measurements, made)


def test_attacks_are_named_with_their_variants(shadowed: tuple[Case, list[Calibrated]]) -> None:
    found = shadow_models(*shadowed)
    assert found is not None
    assert (found.models, found.train_size, found.unlearner) == (16, 100, "half-forget")
    assert found.queries == ("plain", "shift 1,0")
    assert found.notes == ("What was reached.",)
    variants = {attack.probe: attack.variant for attack in found.attacks}
    assert list(variants) == ["lira", "u-lira", "rmia", "klom"]
    assert variants["lira"] == "online, median, pooled variance, 16 shadows, 2 queries"
    assert variants["rmia"].startswith("online, gamma = 1")
    assert all("16 shadows" in variant for variant in variants.values())


def test_forget_examples_without_enough_models_are_counted(
    shadowed: tuple[Case, list[Calibrated]],
) -> None:
    found = shadow_models(*shadowed)
    assert found is not None
    left_out = {attack.probe: attack.left_out for attack in found.attacks}
    unlearned = shadowed[1][1].measurement.subject.answers[0]
    assert isinstance(unlearned, Scores)
    # few models unlearned an example, so by chance one more has too few
    assert left_out == {"lira": 4, "u-lira": 150 - len(unlearned.forget), "rmia": 4, "klom": 4}
    assert 4 <= left_out["u-lira"] < 10


def test_without_shadow_models_there_is_nothing_to_say(
    shadowed: tuple[Case, list[Calibrated]],
) -> None:
    assert shadow_models(case(None), shadowed[1]) is None


def test_rates_are_those_of_the_attacks_own_scores(
    shadowed: tuple[Case, list[Calibrated]],
) -> None:
    _, items = shadowed
    drawn = {roc.probe: roc for roc in rocs(items, ALPHA, np.random.default_rng(3))}
    assert list(drawn) == ["lira", "u-lira", "rmia", "plain"]
    for item in items:
        answer = item.measurement.subject.answers[0]
        if isinstance(answer, Scores):
            assert answer.unseen is not None
            roc = drawn[item.measurement.card.name]
            assert roc.auc.estimate == pytest.approx(auc(answer.forget, answer.unseen))
            assert (roc.positives, roc.negatives) == (len(answer.forget), len(answer.unseen))
            assert [point.fpr for point in roc.points] == [0.1, 0.01], "250 unseen carry no 0.1 %"
    assert [histogram.probe for histogram in histograms(items)] == list(drawn)


@pytest.mark.parametrize(
    ("statistic", "forget", "is_drawn"),
    [
        ("auc", 50, True),
        ("mean-difference", 50, True),
        ("mean", 50, False),
        ("mean-difference", MIN_GROUP - 1, False),
    ],
)
def test_only_scores_that_hold_forget_against_unseen_are_drawn(
    statistic: Statistic, forget: int, is_drawn: bool
) -> None:
    sizes = {"forget": forget, "unseen": 60, "retain": 60}
    world = ScoreWorld(np.random.default_rng(4), **cast(Any, sizes))
    scores = [world.model(share, statistic) for share in (1.0, 1.0, 0.0, 0.0, 0.0)]
    assert scores[0].unseen is not None
    items = calibrated([measurement_of(scores[0], scores[1], scores[2:])], case(None, **sizes))
    assert len(histograms(items)) == is_drawn
    assert len(rocs(items, ALPHA, np.random.default_rng(0))) == is_drawn


def test_names_are_what_the_holder_of_the_key_computes() -> None:
    expected = hmac.digest(KEY, f"{DATA} person-7".encode(), hashlib.sha512).hex()[:16]
    assert namer(KEY, DATA)("person-7") == expected
    others = {namer(KEY, "6" * 64)("person-7"), namer(b"another", DATA)("person-7")}
    assert len({expected, *others}) == 3


def test_the_examples_with_the_highest_scores_are_listed(
    shadowed: tuple[Case, list[Calibrated]],
) -> None:
    """Against a loop over everything."""
    made, items = shadowed
    name_of = namer(KEY, DATA)
    lists = worst(made, items, name_of)
    assert [found.probe for found in lists] == ["lira", "u-lira", "rmia"]
    answers = {item.measurement.card.name: item.measurement.subject.answers[0] for item in items}
    for found in lists:
        answer = answers[found.probe]
        assert isinstance(answer, Scores)
        assert answer.unseen is not None
        by_name = {
            name_of(f"person-{position}"): score
            for position, score in zip(answer.rows["forget"], answer.forget, strict=True)
        }
        assert min(answer.rows["forget"]) == 4
        assert len(found.examples) == MOST
        assert found.unseen == len(answer.unseen)
        chosen = [by_name[example.name] for example in found.examples]
        assert chosen == sorted(by_name.values(), reverse=True)[:MOST]
        for example, score in zip(found.examples, chosen, strict=True):
            below = sum(other < score for other in answer.unseen)
            equal = sum(other == score for other in answer.unseen)
            assert example.above_unseen == pytest.approx((below + equal / 2) / found.unseen)
            assert example.score == pytest.approx(score, rel=5e-3)
            assert len(f"{abs(example.score):.10g}".replace(".", "").strip("0")) <= 3


def test_equal_scores_are_listed_by_name_not_by_place() -> None:
    item, made = equal_scores()
    (found,) = worst(made, [item], namer(KEY, DATA))
    names = [example.name for example in found.examples]
    assert names == sorted(names)
    everyone = sorted(namer(KEY, DATA)(f"person-{i}") for i in range(30))
    assert names == everyone[:MOST]
    assert {example.above_unseen for example in found.examples} == {0.5}


def test_few_forget_examples_are_all_listed() -> None:
    item, made = equal_scores(forget=3)
    (found,) = worst(made, [item], namer(KEY, DATA))
    assert len(found.examples) == 3


def equal_scores(forget: int = 30) -> tuple[Calibrated, Case]:
    scores = Scores(np.ones(forget), np.ones(40), statistic="mean-difference")
    probe = probe_of("attack", shadows="trained")
    made = case(None, forget=forget, unseen=40)
    (item,) = calibrated([measurement_of(scores, scores, [scores] * 3, probe)], made)
    return item, made


@pytest.fixture(scope="module")
def audited(world: World) -> tuple[Run, Record]:
    """A class of the digits, with four shadow models that unlearned."""
    given = world("finetuned", "class").model_dump()
    given["recipe"] = {"lr": 0.1, "epochs": 5, "batch": 64}
    given["calibration"] = {"unlearners": [], "workers": 1}
    given["shadows"] = {"count": 4, "unlearner": "finetune"}
    runs = []

    def written(run: Run) -> Record:
        runs.append(replace(run, name_of=namer(KEY, run.case.sources_digest)))
        return write_record(runs[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_record", written)
        record = pipeline.audit(AuditPlan.build(given))
    return runs[0], record


def test_an_audit_with_shadow_models_writes_them_down(audited: tuple[Run, Record]) -> None:
    run, record = audited
    assert record.shadows is not None
    assert (record.shadows.models, record.shadows.unlearner) == (4, "finetune")
    assert {attack.probe for attack in record.shadows.attacks} == {"lira", "u-lira", "rmia"}
    assert record.verdict.assurance_level == 2, "nothing looks inside"
    assert {found.probe for found in record.worst} == {"lira", "u-lira", "rmia"}
    forget = run.case.splits["forget"]
    name_of = namer(KEY, record.request.data_sha256)
    everyone = {name_of(forget.id_of(position)) for position in range(len(forget))}
    for found in record.worst:
        assert {example.name for example in found.examples} <= everyone


def test_no_id_is_in_the_record(audited: tuple[Run, Record]) -> None:
    run, record = audited
    text = record.to_json()
    forget = run.case.splits["forget"]
    assert not any(forget.id_of(position) in text for position in range(len(forget)))


def test_shadow_models_are_part_of_the_plan_that_was_fixed(audited: tuple[Run, Record]) -> None:
    run, record = audited
    more = run.plan.model_copy(update={"shadows": run.plan.shadows.model_copy(update={"count": 8})})
    assert write_record(replace(run, plan=more)).plan.sha256 != record.plan.sha256
    repeat = write_record(replace(run, command=None)).environment.command
    assert "--shadows 4 --unlearner finetune" in repeat
    assert json.loads(record.to_json())["plan"]["config"]["shadows"]["count"] == 4


@pytest.mark.parametrize(("access", "levels"), [("white-box", (3, 4)), ("black-box", (2, 2))])
def test_a_plan_with_shadow_models_can_reach_the_highest_level(
    world: World, access: str, levels: tuple[int, int]
) -> None:
    given = world("finetuned", "class").model_dump()
    given["policy"]["access"] = access
    given["recipe"] = {}
    found = []
    for count in (0, 4):
        given["shadows"] = {"count": count}
        found.append(preview(AuditPlan.build(given)).assurance_level)
    assert tuple(found) == levels
