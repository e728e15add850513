"""The evidence of all records of a person in the record: what is combined, and what leaves it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from tests.conftest import World as BuildWorld
from tests.worlds import case_of, measurement_of, probe_of
from unaudit import pipeline
from unaudit.calibration import Calibrated, calibrate
from unaudit.case import Case
from unaudit.evidence import Scores
from unaudit.plan import AuditPlan
from unaudit.recording import namer
from unaudit.recording.groups import MIN_UNSEEN, group_evidence
from unaudit.recording.worst import MOST
from unaudit.report.record import GroupEvidence, Record
from unaudit.stats import auc, group_spread, group_sums

ALPHA = 0.05
KEY, DATA = b"a key of the auditor", "5" * 64
NATS = {"unit": "nats"}
Names = npt.NDArray[np.str_]


@dataclass
class Data:
    groups: Names | None


class Whose:
    """Stands for a split: whose record each example is."""

    def __init__(self, dataset: Data, rows: npt.NDArray[np.int64]) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)


def names(prefix: str, sizes: list[int]) -> Names:
    return np.repeat([f"{prefix}-{number}" for number in range(len(sizes))], sizes)


class World:
    """Forget examples behind 50 retain ones in the training data, unseen ones beside them."""

    def __init__(
        self,
        forget: Names,
        unseen: Names | None,
        *,
        effect: float = 0.0,
        retain: Names | None = None,
        detail: dict[str, Any] = NATS,
    ) -> None:
        rng = np.random.default_rng(3)
        kept = names("kept", [1] * 50) if retain is None else retain
        train = Data(np.concatenate([kept, forget]))
        n = 200 if unseen is None else len(unseen)
        self.case = cast(Any, case_of(forget=len(forget), unseen=n, retain=len(kept)))
        self.case.splits = {
            "forget": Whose(train, np.arange(len(kept), len(kept) + len(forget))),
            "retain": Whose(train, np.arange(len(kept))),
            "unseen": Whose(Data(unseen), np.arange(n)),
        }
        self.scores = Scores(
            effect + rng.normal(size=len(forget)), rng.normal(size=n),
            statistic="mean-difference", detail=detail,
        )  # fmt: skip
        self.train = train

    def item(self) -> Calibrated:
        measurement = measurement_of(
            self.scores, self.scores, [self.scores] * 3, probe_of("attack", shadows="trained")
        )
        rng = np.random.default_rng(1)
        made = cast(Case, self.case)
        return calibrate([measurement], made, alpha=ALPHA, tau=0.5, replicates=50, rng=rng)[0]

    def evidence(self) -> tuple[GroupEvidence, ...]:
        return group_evidence(
            cast(Case, self.case), [self.item()], ALPHA, namer(KEY, DATA)
        )  # fmt: skip


def name_of(group: str) -> str:
    text = f"{DATA} group\t{group}".encode()
    return hmac.digest(KEY, text, hashlib.sha512).hex()[:16]


FORGET = names("person", [1, 2, 3, 4, 6, 9] * 5)
UNSEEN = names("other", [1, 2, 4, 8] * 15)


def test_groups_are_combined_and_held_against_unseen_ones() -> None:
    """Against loops over everything."""
    world = World(FORGET, UNSEEN, effect=1.0)
    (found,) = world.evidence()
    assert (found.probe, found.groups, found.records, found.unseen_groups) == (
        "attack", 30, 125, 60,
    )  # fmt: skip
    assert found.no_reference is None
    scores = world.scores
    assert scores.unseen is not None
    spread = group_spread(scores.unseen, UNSEEN)
    own, others = group_sums(scores.forget, FORGET), group_sums(scores.unseen, UNSEEN)
    z, reference = spread.standardized(own), spread.standardized(others)
    assert found.auc is not None
    assert found.auc.estimate == pytest.approx(auc(z, reference))
    assert found.auc.level == pytest.approx(0.9)
    assert found.auc.low is not None
    assert found.auc.low > 0.7
    order = np.argsort(-z)[:MOST]
    assert [group.name for group in found.exposed] == [name_of(own.names[at]) for at in order]
    for group, at in zip(found.exposed, order.tolist(), strict=True):
        mine = own.names[at] == FORGET
        assert group.score == pytest.approx(sum(scores.forget[mine].tolist()), rel=5e-3)
        assert group.above_unseen == pytest.approx(np.mean(reference < z[at]))
        assert group.records <= mine.sum() < 2 * group.records
        assert group.records in (1, 2, 4, 8)


def test_only_scored_records_count() -> None:
    world = World(FORGET, UNSEEN)
    world.scores = Scores(
        np.arange(5.0), world.scores.unseen, statistic="mean-difference", detail=NATS,
        rows={"forget": np.array([0, 1, 2, 3, 6])},
    )  # fmt: skip
    (found,) = world.evidence()
    # person-0 has record 0, person-1 records 1 and 2, person-2 3, person-3 6
    assert (found.groups, found.records) == (4, 5)
    sums = {group.name: group.score for group in found.exposed}
    assert sums == {name_of(f"person-{n}"): s for n, s in enumerate([0.0, 3.0, 3.0, 4.0])}
    assert found.auc is None, "too few groups for a rate"
    assert all(group.above_unseen is not None for group in found.exposed)


def test_unseen_groups_with_training_records_are_no_reference() -> None:
    """Whether they are forgotten or kept."""
    shared = np.concatenate([UNSEEN, names("person", [4] * 30), names("kept", [4] * 20)])
    (found,) = World(FORGET, shared).evidence()
    assert found.unseen_groups == 60
    assert found.no_reference is None


@pytest.mark.parametrize(
    ("unseen", "count", "why"),
    [
        (None, 0, "the unseen examples name no groups"),
        (names("other", [5] * (MIN_UNSEEN - 1)), 19, "it takes 20 unseen groups, there are 19"),
        (names("person", [5] * 30), 0, "it takes 20 unseen groups, there are 0"),
        (names("other", [1] * 80 + [2] * 19), 99, "20 unseen groups of several records"),
    ],
)
def test_without_a_reference_sums_alone_are_given(
    unseen: Names | None, count: int, why: str
) -> None:
    world = World(FORGET, unseen)
    (found,) = world.evidence()
    assert found.unseen_groups == count
    assert why in (found.no_reference or "")
    assert found.auc is None
    assert all(group.above_unseen is None for group in found.exposed)
    sums = group_sums(world.scores.forget, FORGET).sums
    expected = [float(f"{value:.3g}") for value in np.sort(sums)[::-1][:MOST]]
    assert [group.score for group in found.exposed] == expected


def test_single_records_need_single_records() -> None:
    (found,) = World(names("person", [1] * 30), names("other", [1] * 40)).evidence()
    assert found.no_reference is None
    assert found.auc is not None


def test_without_groups_or_scores_that_add_up_nothing_is_said() -> None:
    assert World(FORGET, UNSEEN, detail={}).evidence() == ()
    assert World(FORGET, UNSEEN, detail={"unit": "bits"}).evidence() == ()
    world = World(FORGET, UNSEEN)
    world.train.groups = None
    assert world.evidence() == ()


def test_no_group_is_named_and_equals_are_in_the_order_of_names() -> None:
    world = World(FORGET, UNSEEN)
    world.scores = Scores(
        np.zeros(len(FORGET)), np.zeros(len(UNSEEN)), statistic="mean-difference", detail=NATS
    )
    (found,) = world.evidence()
    shown = [group.name for group in found.exposed]
    assert shown == sorted(name_of(name) for name in set(FORGET.tolist()))[:MOST]
    text = found.model_dump_json()
    assert "person" not in text
    assert "other" not in text
    # an example whose id is the name of a group has another name
    assert namer(KEY, DATA)("person-0") != name_of("person-0")


@pytest.fixture(scope="module")
def audits(world: BuildWorld, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """A class of the digits with four shadow models, three records a person; with and without the
    key."""
    folder = tmp_path_factory.mktemp("people")
    given = world("finetuned", "class").model_dump()
    for part, least in (("train", 0), ("unseen", 1000)):
        with np.load(given["data"][part]) as arrays:
            person = [f"person-{least + n // 3}" for n in range(len(arrays["y"]))]
            np.savez(folder / f"{part}.npz", **arrays, person=person)
        given["data"][part] = str(folder / f"{part}.npz")
    given["recipe"] = {"lr": 0.1, "epochs": 5, "batch": 64}
    given["calibration"] = {"unlearners": [], "workers": 1}
    given["shadows"] = {"count": 4}
    records = []
    for column in ("person", None):
        given["data"]["group_column"] = column
        records.append(pipeline.audit(AuditPlan.build(given)))
    return records


def test_an_audit_with_a_group_column_writes_groups_down(audits: list[Record]) -> None:
    with_groups, without = audits
    (found,) = with_groups.groups
    assert found.probe == "lira"
    assert without.groups == ()
    assert with_groups.shadows is not None
    (attack,) = [one for one in with_groups.shadows.attacks if one.probe == "lira"]
    assert found.records == with_groups.request.forget - attack.left_out
    assert found.records / 3 <= found.groups <= found.records
    assert "person-" not in with_groups.to_json()


def test_groups_decide_nothing(audits: list[Record]) -> None:
    with_groups, without = audits
    assert with_groups.verdict == without.verdict
    assert with_groups.findings == without.findings
    assert with_groups.worst == without.worst
    assert with_groups.request == without.request
