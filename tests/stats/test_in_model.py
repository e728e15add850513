from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from unaudit.evidence import FloatArray
from unaudit.stats import (
    JointBootstrap,
    ResidualIndex,
    auc,
    in_model_index,
    influence_auc,
    residual_index,
)

RateCheck = Callable[..., bool]

REPEATS = 700


def groups(
    rng: np.random.Generator, index: float, sizes: tuple[int, int, int] = (200, 300, 500)
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Forget, unseen, retain: AUC(retain, unseen) = .65, and of forget ½ + index × .15."""
    shifts = [np.sqrt(2) * norm.ppf(0.5 + 0.15 * i) for i in (index, 0.0, 1.0)]
    forget, unseen, retain = (
        rng.normal(shift, 1, size) for shift, size in zip(shifts, sizes, strict=True)
    )
    return forget, unseen, retain


def test_estimate_is_the_ratio_of_excess_aucs() -> None:
    forget, unseen, retain = groups(np.random.default_rng(0), 0.4)
    index = in_model_index(forget, unseen, retain, 0.05, 0.5)
    assert index.estimate == pytest.approx(
        (auc(forget, unseen) - 0.5) / (auc(retain, unseen) - 0.5)
    )
    assert index.low is not None
    assert index.high is not None
    assert index.low < index.estimate < index.high
    assert index.level == pytest.approx(0.9)


def test_agrees_with_the_joint_bootstrap() -> None:
    """The analytic covariance of the two AUCs against 20,000 resamples with a shared unseen."""
    forget, unseen, retain = groups(np.random.default_rng(1), 0.4, (300, 150, 200))
    sizes = {"forget": 300, "unseen": 150, "retain": 200}
    joint = JointBootstrap(sizes, 20_000, np.random.default_rng(2))
    for column, (name, members) in enumerate((("forget", forget), ("retain", retain))):
        on_members, on_unseen = influence_auc(members, unseen)
        joint.add(name, on_members, column=column)
        joint.add("unseen", on_unseen, column=column)
    null = np.full(2, 0.5)
    resampled = residual_index(
        auc(forget, unseen), auc(retain, unseen), null, joint.run(4), 0.05, 0.5
    )
    analytic = in_model_index(forget, unseen, retain, 0.05, 0.5)
    assert analytic.estimate == pytest.approx(resampled.estimate)
    assert (analytic.low, analytic.high) == pytest.approx((resampled.low, resampled.high), abs=0.02)
    assert analytic.detectable == pytest.approx(resampled.detectable, abs=0.02)


@pytest.mark.parametrize("index", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [(200, 300, 500), (60, 600, 600)])
def test_coverage(index: float, sizes: tuple[int, int, int], compatible: RateCheck) -> None:
    """90 % interval: nothing is estimated from few models here, so it is close to its level."""
    rng = np.random.default_rng([round(10 * index), *sizes])
    inside, unbounded = 0, 0
    for _ in range(REPEATS):
        result = in_model_index(*groups(rng, index, sizes), 0.05, 0.5)
        if result.low is None or result.high is None:
            unbounded += 1
        else:
            inside += result.low <= index <= result.high
    assert unbounded < 0.01 * REPEATS
    assert compatible(inside + unbounded, REPEATS, at_least=0.88, at_most=0.92), inside


def test_false_claims_are_rare(compatible: RateCheck) -> None:
    rng = np.random.default_rng(3)
    fresh = [in_model_index(*groups(rng, 0.0), 0.05, 0.0) for _ in range(REPEATS)]
    assert compatible(sum(r.p_residual < 0.05 for r in fresh), REPEATS, at_most=0.055)
    assert compatible(sum(r.p_over_unlearned < 0.05 for r in fresh), REPEATS, at_most=0.055)
    margin = [in_model_index(*groups(rng, 0.5), 0.05, 0.5) for _ in range(REPEATS)]
    assert compatible(sum(r.p_equivalence < 0.05 for r in margin), REPEATS, at_most=0.055)


def test_positive_control_fails_on_a_model_that_never_overfitted(compatible: RateCheck) -> None:
    rng = np.random.default_rng(4)
    blind: list[ResidualIndex] = []
    for _ in range(REPEATS):
        forget, unseen, retain = (rng.normal(size=size) for size in (100, 200, 300))
        blind.append(in_model_index(forget, unseen, retain, 0.05, 0.5))
    seen = sum(r.positive_control_p < 0.05 for r in blind)
    assert compatible(seen, REPEATS, at_least=0.035, at_most=0.055)
    assert all(r.detectable is None for r in blind if r.positive_control_p > 0.06)


def test_power_at_realistic_size() -> None:
    rng = np.random.default_rng(5)
    sizes = (500, 1000, 5000)
    fresh = [in_model_index(*groups(rng, 0.0, sizes), 0.05, 0.5) for _ in range(100)]
    kept = [in_model_index(*groups(rng, 1.0, sizes), 0.05, 0.5) for _ in range(100)]
    assert sum(r.p_equivalence <= 0.05 for r in fresh) >= 95
    assert sum(r.p_residual <= 0.05 for r in kept) >= 95


def test_over_unlearning_shows_below_zero() -> None:
    index = in_model_index(*groups(np.random.default_rng(6), -1.0, (500, 1000, 1000)), 0.05, 0.5)
    assert index.p_over_unlearned < 0.01
    assert index.high is not None
    assert index.high < -0.5


def test_separated_groups() -> None:
    """AUC 1 twice: nothing varies, and the index is 1."""
    index = in_model_index([5.0, 6.0, 7.0], [0.0, 1.0, 2.0], [8.0, 9.0], 0.05, 0.5)
    assert (index.low, index.estimate, index.high) == (1.0, 1.0, 1.0)
    assert (index.p_residual, index.p_equivalence) == (0.0, 1.0)


@pytest.mark.parametrize("single", [0, 1, 2])
def test_a_single_example_supports_no_claim(single: int) -> None:
    sizes = [50, 50, 50]
    sizes[single] = 1
    rng = np.random.default_rng(7)
    forget, unseen, retain = (rng.normal(i % 2, 1, size) for i, size in enumerate(sizes))
    index = in_model_index(forget, unseen, retain, 0.05, 0.5)
    assert (index.low, index.high, index.detectable) == (None, None, None)
    assert index.p_residual == index.p_equivalence == index.positive_control_p == 1.0


def test_unlearnable_data_gives_no_index() -> None:
    """All scores equal: both AUCs are exactly ½."""
    index = in_model_index(np.ones(9), np.ones(8), np.ones(7), 0.05, 0.5)
    assert np.isnan(index.estimate)
    assert index.low is None
    assert index.positive_control_p == 1.0
