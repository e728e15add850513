"""The rule: what fails, what passes, what stays open, and how often it errs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.worlds import ScoreWorld, case_of, measurement_of, probe_of
from unaudit.calibration import Calibrated, calibrate
from unaudit.evidence import Access, Family
from unaudit.verdict import (
    Verdict,
    assurance_level,
    decide,
    required_families,
)

ALPHA, TAU = 0.05, 0.5


def audited(
    subject: float,
    seed: int = 0,
    *,
    retrained: int = 5,
    families: tuple[Family, ...] = ("membership", "output-distance"),
    probes_per_family: int = 3,
    spread: float = 0.08,
    correlated: bool = True,
) -> list[Calibrated]:
    """Calibrated probes of several families on one simulated subject.

    Within a family correlated probes share the training noise of the models, as real ones do.
    """
    rng = np.random.default_rng([11, seed])
    measurements = []
    for family in families:
        shared = None
        for number in range(probes_per_family):
            if shared is None or not correlated:
                world = ScoreWorld(rng, effect=1.0, spread=spread, noise=0.3)
                remembered = (subject, 1.0, *([0.0] * retrained))
                shared = [world.model(r, "mean-difference") for r in remembered]
            noisy = [
                replace(m, forget=m.forget + rng.normal(size=len(m.forget)) * 0.3) for m in shared
            ]
            probe = probe_of(f"{family}-{number}", family)
            measurements.append(measurement_of(noisy[0], noisy[1], noisy[2:], probe))
    case = case_of(retrained=retrained)
    return calibrate(measurements, case, alpha=ALPHA, tau=TAU, replicates=300, rng=rng)


def verdict_on(calibrated: list[Calibrated], retrained: int = 5, **policy: object) -> Verdict:
    settings = {"access": "black-box", "accept_black_box": True} | policy
    return decide(calibrated, case_of(retrained=retrained), alpha=ALPHA, tau=TAU, **settings)  # type: ignore[arg-type]


def test_a_retrained_subject_passes() -> None:
    verdict = verdict_on(audited(0.0))
    assert verdict.outcome == "pass"
    assert verdict.exit_code("inconclusive") == 0
    assert verdict.upper_bound is not None
    assert verdict.upper_bound <= TAU
    assert verdict.headline.startswith("these tests, at these settings, found")


def test_the_original_fails() -> None:
    verdict = verdict_on(audited(1.0))
    assert verdict.outcome == "fail"
    assert verdict.exit_code("inconclusive") == 1
    assert verdict.exit_code("fail") == 1
    assert all(judged.outcome == "residual" for judged in verdict.probes)


def test_black_box_evidence_alone_does_not_pass_unless_accepted() -> None:
    verdict = verdict_on(audited(0.0), accept_black_box=False)
    assert verdict.outcome == "inconclusive"
    assert "refitting the last layer" in verdict.caps[0]
    assert verdict.exit_code("inconclusive") == 3
    assert verdict.exit_code("fail") == 0


def test_over_unlearned_membership_fails() -> None:
    verdict = verdict_on(audited(-1.5))
    assert verdict.outcome == "fail"
    failing = {j.calibrated.measurement.card.name for j in verdict.probes if j.fails}
    assert failing == {"membership-0", "membership-1", "membership-2"}
    assert "too different from never-seen" in verdict.reasons[0]


def test_a_pool_fails_what_is_too_different_where_no_single_probe_can() -> None:
    settings = {"retrained": 3, "probes_per_family": 8, "spread": 0.12, "correlated": False}
    verdict = verdict_on(audited(-1.0, **settings), retrained=3)  # type: ignore[arg-type]
    membership = verdict.families[0]
    assert not any(judged.fails for judged in verdict.probes)
    assert (membership.outcome, membership.fails) == ("over-unlearned", True)
    assert verdict.outcome == "fail"
    assert verdict.headline.startswith("taken together")


def test_what_is_lost_on_one_probe_does_not_pay_for_what_is_kept_on_another() -> None:
    """Four output distances halfway to the original and one far below average to nothing kept."""
    distance: tuple[Family, ...] = ("output-distance",)
    calibrated = [
        *audited(0.0, families=("membership",)),
        *audited(0.5, 10, families=distance, probes_per_family=4, spread=0.15),
        *audited(-3.0, 50, families=distance, probes_per_family=1, spread=0.15),
    ]
    verdict = verdict_on(calibrated)
    family = verdict.families[1]
    assert family.outcome == "not-residual"
    assert family.upper is not None
    assert family.upper > TAU
    assert family.blocked is not None
    assert "make up for" in family.blocked
    assert verdict.outcome == "inconclusive"
    assert verdict.upper_bound == family.upper


def test_over_unlearned_output_distance_does_not_fail() -> None:
    calibrated = audited(-1.5, families=("output-distance",))
    verdict = verdict_on(calibrated)
    assert not any(judged.fails for judged in verdict.probes)
    assert verdict.outcome == "inconclusive"  # membership has no informative probe


def test_a_required_family_without_a_seeing_probe_blocks_a_pass() -> None:
    verdict = verdict_on(audited(0.0, families=("membership",)))
    assert verdict.outcome == "inconclusive"
    assert "output distance: no probe of this family can see on this data" in verdict.reasons
    assert verdict.upper_bound is None
    assert verdict.next_step is not None


def test_nothing_ran_is_never_a_pass() -> None:
    verdict = verdict_on([])
    assert verdict.outcome == "inconclusive"
    assert verdict.next_step is not None


def test_utility_never_counts() -> None:
    calibrated = audited(1.0, families=("utility",))
    verdict = verdict_on(calibrated)
    assert not any(judged.counted for judged in verdict.probes)
    assert verdict.outcome == "inconclusive"


def test_probes_that_cannot_see_never_fail_a_subject() -> None:
    blind = [replace(c, reason="cannot see") for c in audited(1.0)]
    verdict = verdict_on(blind)
    assert verdict.outcome == "inconclusive"
    assert all(judged.outcome == "not-informative" for judged in verdict.probes)


def test_white_box_access_requires_what_lies_inside() -> None:
    assert required_families("white-box", True) == (
        "membership", "output-distance", "representation", "recoverability",
    )  # fmt: skip
    verdict = verdict_on(audited(0.0), access="white-box")
    assert verdict.outcome == "inconclusive"


def test_without_references_only_membership_is_required() -> None:
    assert required_families("black-box", False) == ("membership",)


@pytest.mark.parametrize(
    ("access", "references", "shadows", "level"),
    [
        ("black-box", False, False, 1),
        ("white-box", False, True, 1),
        ("black-box", True, False, 2),
        ("black-box", True, True, 2),
        ("white-box", True, False, 3),
        ("white-box", True, True, 4),
    ],
)
def test_assurance_levels(access: Access, references: bool, shadows: bool, level: int) -> None:
    assert assurance_level(access, references, shadows) == level


def with_shadow_attack(calibrated: list[Calibrated]) -> list[Calibrated]:
    """The first probe as one that needs shadow models."""
    first, *others = calibrated
    probe = probe_of("attack", first.family, shadows="trained")
    return [replace(first, measurement=replace(first.measurement, probe=probe)), *others]


def test_the_highest_level_takes_an_attack_with_shadow_models_that_can_see() -> None:
    calibrated = with_shadow_attack(audited(0.0))
    blind = [replace(calibrated[0], reason="cannot see"), *calibrated[1:]]
    for access, found in (("white-box", (3, 4, 3)), ("black-box", (2, 2, 2))):
        levels = [
            verdict_on(items, access=access).assurance_level
            for items in (audited(0.0), calibrated, blind)
        ]
        assert tuple(levels) == found
    assert verdict_on(calibrated, access="white-box", faithful=False).assurance_level == 1


def test_holm_is_applied_over_the_failing_side() -> None:
    """One weakly significant probe among many does not fail; alone it would."""
    calibrated = audited(0.0, probes_per_family=10)
    index = calibrated[0].index
    assert index is not None
    weak = replace(calibrated[0], index=replace(index, p_residual=0.008, p_equivalence=0.9))
    assert verdict_on([weak]).probes[0].fails
    assert not verdict_on([weak, *calibrated[1:]]).probes[0].fails


@pytest.mark.parametrize(("retrained", "repeats"), [(3, 150), (5, 150)])
def test_false_alarms_stay_below_alpha(retrained: int, repeats: int) -> None:
    outcomes = [
        verdict_on(audited(0.0, seed, retrained=retrained), retrained).outcome
        for seed in range(repeats)
    ]
    # α = 5 % with three binomial standard errors
    allowed = ALPHA * repeats + 3 * np.sqrt(repeats * ALPHA * (1 - ALPHA))
    assert outcomes.count("fail") <= allowed
    if retrained == 5:
        assert outcomes.count("pass") >= 0.8 * repeats


def test_a_pool_fails_what_no_single_probe_can() -> None:
    """Few retrained models leave each probe weak; together they tell the original apart."""
    calibrated = audited(1.0, retrained=3, probes_per_family=8, spread=0.12, correlated=False)
    verdict = verdict_on(calibrated, retrained=3)
    assert not any(judged.fails for judged in verdict.probes)
    assert any(family.fails for family in verdict.families)
    assert verdict.outcome == "fail"
    assert verdict.headline.startswith("taken together")


def test_an_original_is_caught() -> None:
    outcomes = [verdict_on(audited(1.0, seed)).outcome for seed in range(100)]
    assert outcomes.count("pass") == 0
    assert outcomes.count("fail") >= 95


def with_one_that_asks(subject: float, of_it: float, seed: int = 0) -> list[Calibrated]:
    """Probes of a simulated subject, and one of a part of the request that answers otherwise."""
    (odd, *_) = audited(of_it, seed + 100, families=("membership",))
    card = replace(odd.measurement.card, name="odd", title="odd", asks="canaries")
    kind = type("Odd", (), {"card": card})
    measurement = replace(odd.measurement, probe=kind())
    return [*audited(subject, seed), replace(odd, measurement=measurement)]


def test_a_probe_of_a_part_can_only_add_evidence() -> None:
    before, after = verdict_on(audited(0.9)), verdict_on(with_one_that_asks(0.9, 0.0))
    assert after.outcome == before.outcome == "fail"
    for one, other in zip(before.families, after.families, strict=True):
        assert one.index == other.index
        assert one.informative == other.informative
    remembered = verdict_on(with_one_that_asks(0.0, 1.0))
    assert verdict_on(audited(0.0)).outcome == "pass"
    assert remembered.outcome != "pass"
    assert any("odd" in reason for reason in remembered.reasons)


def test_a_probe_of_a_part_cannot_stand_for_its_family() -> None:
    calibrated = [
        replace(c, reason="cannot see")
        if c.family == "membership" and c.measurement.card.asks is None
        else c
        for c in with_one_that_asks(0.0, 0.0)
    ]
    verdict = verdict_on(calibrated)
    assert verdict.outcome == "inconclusive"
    assert "membership: no probe of this family can see on this data" in verdict.reasons
    assert verdict.upper_bound is None


def test_a_distance_between_insides_can_block_a_pass_and_never_fail() -> None:
    families: tuple[Family, ...] = ("membership", "output-distance", "representation")
    honest = audited(0.0, families=(*families, "recoverability"), retrained=10)
    (one,) = audited(1.0, families=("representation",), retrained=10, probes_per_family=1)
    probe = probe_of("far", "representation", unsigned=True, access="white-box")
    unsigned = replace(one, measurement=replace(one.measurement, probe=probe))
    settings = {"retrained": 10, "access": "white-box"}
    assert verdict_on(honest, **settings).outcome == "pass"  # type: ignore[arg-type]
    verdict = verdict_on([*honest, unsigned], **settings)  # type: ignore[arg-type]
    assert verdict.outcome == "inconclusive"
    assert not any(judged.fails for judged in verdict.probes)


def test_a_doubt_is_what_the_headline_names() -> None:
    """And not a policy that already accepts what it has."""
    verdict = verdict_on(audited(0.0), suspicions=("the recipe is another one",))
    assert verdict.outcome == "inconclusive"
    assert verdict.headline.endswith("but the recipe is another one")
    assert verdict.next_step is not None
    assert "nothing speaks against" in verdict.next_step


def test_a_doubt_is_told_where_nothing_passes_anyway() -> None:
    """More references of the same kind would not help, so its remedy comes first."""
    doubts = ("the recipe is another one",)
    blind = [replace(c, reason="cannot see") for c in audited(0.0)]
    for calibrated in (blind, audited(0.5)):
        verdict = verdict_on(calibrated, suspicions=doubts, remedy="state the right one")
        assert verdict.outcome == "inconclusive"
        assert (verdict.caps, verdict.next_step) == (doubts, "state the right one")
    failing = verdict_on(audited(1.0), suspicions=doubts, remedy="state the right one")
    assert (failing.outcome, failing.caps, failing.next_step) == ("fail", (), None)
