"""Which fails stand where something speaks against the references."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.test_verdict import TAU, audited, verdict_on
from tests.worlds import probe_of
from unaudit.calibration import Calibrated
from unaudit.doubts import Doubts
from unaudit.standing import upheld
from unaudit.verdict import Verdict

OTHERWISE = "the recipe is another one"
UNFAITHFUL = Doubts(
    lines=(OTHERWISE,), faithful=False, incomparable=OTHERWISE, remedy="hand in better ones"
)
KNOWING = "the references know the forget set"
FLATTERING = Doubts(lines=(KNOWING,), flattering=(KNOWING,), remedy="hand in better ones")

UNLIKE = "models that saw neither side tell them apart"


def clear(remembered: float, **settings: Any) -> list[Calibrated]:
    """Probes each of which can fail on its own."""
    return audited(remembered, spread=0.03, retrained=10, **settings)


def never() -> Verdict:
    raise AssertionError("nobody asked for a verdict without references")


def deciding(verdict: Verdict, doubts: Doubts, alone: Verdict | None = None) -> Verdict:
    return upheld(verdict, doubts, TAU, never if alone is None else lambda: alone)


def marked(verdict: Verdict) -> tuple[set[str], set[str]]:
    return (
        {judged.calibrated.measurement.card.name for judged in verdict.probes if judged.fails},
        {family.family for family in verdict.families if family.fails},
    )


def without_direction(calibrated: list[Calibrated]) -> list[Calibrated]:
    """The same as distances."""
    changed = []
    for item in calibrated:
        card = item.measurement.card
        probe = probe_of(card.name, card.family, unsigned=True)
        changed.append(replace(item, measurement=replace(item.measurement, probe=probe)))
    return changed


def in_model(calibrated: list[Calibrated]) -> list[Calibrated]:
    return [replace(item, mode="in-model") for item in calibrated]


def test_a_fail_stands_where_nothing_speaks_against_it() -> None:
    verdict = verdict_on(audited(1.0))
    assert verdict.outcome == "fail"
    assert deciding(verdict, Doubts()) is verdict


@pytest.mark.parametrize("doubts", [UNFAITHFUL, FLATTERING])
def test_only_fails_are_looked_at(doubts: Doubts) -> None:
    for calibrated in (audited(0.0), audited(0.5)):
        verdict = verdict_on(calibrated)
        assert verdict.outcome != "fail"
        assert deciding(verdict, doubts) is verdict


@pytest.mark.parametrize("doubts", [UNFAITHFUL, FLATTERING])
def test_references_that_were_not_used_do_not_matter(doubts: Doubts) -> None:
    verdict = verdict_on(in_model(audited(1.0)))
    assert verdict.outcome == "fail"
    assert deciding(verdict, doubts) is verdict


@pytest.mark.parametrize("remembered", [1.0, -1.5])
def test_without_references_sides_that_differ_by_themselves_make_no_fail(
    remembered: float,
) -> None:
    before = verdict_on(in_model(audited(remembered)))
    assert before.outcome == "fail"
    doubts = Doubts(lines=(UNLIKE,), unlike=UNLIKE, remedy="hand in better ones")
    verdict = deciding(before, doubts)
    assert verdict.outcome == "inconclusive"
    assert verdict.headline.endswith(f"but {UNLIKE}")
    assert (verdict.caps, verdict.next_step) == ((UNLIKE,), "hand in better ones")


def test_what_fails_without_references_is_shown_as_it_is_without_them() -> None:
    inside = clear(1.0, families=("representation",))
    before = verdict_on([*clear(0.0, families=("membership",)), *inside], 10)
    assert {name.partition("-")[0] for name in marked(before)[0]} == {"representation"}
    alone = verdict_on(in_model(clear(1.0, seed=7, families=("membership",))))
    assert alone.outcome == "fail"
    verdict = deciding(before, UNFAITHFUL, alone)
    assert verdict.outcome == "fail"
    assert marked(verdict) == marked(alone)
    shown = {j.calibrated.measurement.card.name: j for j in verdict.probes}
    for judged in alone.probes:
        assert shown[judged.calibrated.measurement.card.name] is judged


def test_incomparable_references_make_no_fail() -> None:
    before, alone = verdict_on(clear(1.0), 10), verdict_on(in_model(audited(0.0)))
    verdict = deciding(before, UNFAITHFUL, alone)
    assert (verdict.outcome, verdict.exit_code("inconclusive")) == ("inconclusive", 3)
    assert verdict.headline.startswith("6 tests found the subject beyond the margin; the clearest")
    assert verdict.headline.endswith(f"margin 0.5), but {OTHERWISE}")
    assert (verdict.caps, verdict.next_step) == ((OTHERWISE,), "hand in better ones")
    assert marked(before) != marked(verdict) == (set(), set())
    # what was found stays on record
    assert verdict.reasons == before.reasons
    assert [j.p_adjusted for j in verdict.probes] == [j.p_adjusted for j in before.probes]
    assert [j.outcome for j in verdict.probes] == [j.outcome for j in before.probes]


def test_a_pool_that_fails_alone_is_held_back_as_well() -> None:
    calibrated = audited(1.0, retrained=3, probes_per_family=8, spread=0.12, correlated=False)
    before = verdict_on(calibrated, retrained=3)
    assert not marked(before)[0]
    verdict = deciding(before, UNFAITHFUL, verdict_on(in_model(audited(0.0))))
    assert verdict.outcome == "inconclusive"
    assert "tests found the subject beyond the margin (pooled residual index" in verdict.headline


def test_a_fail_without_references_stands() -> None:
    before = verdict_on(clear(1.0), 10)
    names = {"membership-0", "membership-2"}
    alone = [c for c in clear(1.0, seed=7) if c.measurement.card.name in names]
    verdict = deciding(before, UNFAITHFUL, verdict_on(in_model(alone)))
    assert verdict.outcome == "fail"
    assert "2 tests can still tell the forget set apart, without references" in verdict.headline
    assert marked(verdict) == (names, {"membership"})
    assert verdict.caps == (OTHERWISE,)
    assert "fails without references as well" in verdict.reasons[0]
    assert all(line.startswith("without references: ") for line in verdict.reasons[1:])
    assert verdict.next_step is None


def test_where_both_sides_differ_by_themselves_nothing_is_decided_without_references() -> None:
    verdict = deciding(verdict_on(audited(1.0)), replace(UNFAITHFUL, unlike=UNLIKE))
    assert verdict.outcome == "inconclusive"


def test_who_remembers_more_than_knowing_references_fails() -> None:
    before = verdict_on(audited(1.0))
    verdict = deciding(before, FLATTERING)
    assert verdict.outcome == "fail"
    assert marked(verdict) == marked(before)
    assert verdict.headline == before.headline
    assert verdict.reasons == (
        f"{KNOWING}; the subject would look worse beside others",
        *before.reasons,
    )


def test_beside_knowing_references_an_honest_subject_has_too_little() -> None:
    before = verdict_on(audited(-1.5))
    assert before.outcome == "fail"
    verdict = deciding(before, FLATTERING)
    assert verdict.outcome == "inconclusive"
    assert verdict.headline.endswith(f"but {KNOWING}")
    assert marked(verdict) == (set(), set())


def test_a_distance_to_knowing_references_has_no_direction() -> None:
    distances = without_direction(clear(1.0, families=("output-distance",)))
    before = verdict_on([*audited(0.0, families=("membership",)), *distances])
    assert marked(before)[0] == {"output-distance-0", "output-distance-1", "output-distance-2"}
    assert deciding(before, FLATTERING).outcome == "inconclusive"
    both = verdict_on([*clear(1.0, families=("membership",)), *distances])
    kept = deciding(both, FLATTERING)
    assert kept.outcome == "fail"
    assert marked(kept) == ({"membership-0", "membership-1", "membership-2"}, {"membership"})


def test_doubts_of_training_come_before_those_of_knowledge() -> None:
    both = replace(UNFAITHFUL, lines=(KNOWING, OTHERWISE), flattering=(KNOWING,))
    verdict = deciding(verdict_on(audited(1.0)), both, verdict_on(in_model(audited(0.0))))
    assert verdict.outcome == "inconclusive"
    assert verdict.caps == (OTHERWISE, KNOWING)


def test_a_recipe_compared_with_itself_explains_no_subject_beyond_the_original() -> None:
    itself = "the recipe was compared with itself"
    doubts = Doubts(lines=(itself,), faithful=False, recipe_alone=True)
    near, beyond = (verdict_on(audited(remembered)) for remembered in (1.0, 3.0))
    assert deciding(near, doubts) is near
    verdict = deciding(beyond, doubts, verdict_on(in_model(audited(0.0))))
    assert verdict.outcome == "inconclusive"
    assert (
        "further from the retrained models than an original made from the same" in verdict.caps[0]
    )
    assert verdict.caps[1] == itself
    # with an original that was handed in there is no such doubt
    assert deciding(beyond, replace(doubts, recipe_alone=False)) is beyond
