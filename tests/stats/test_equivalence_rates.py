"""How often the equivalence test errs, by simulated audits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from unaudit.stats import (
    ResidualIndex,
    holm,
    residual_index,
)
from unaudit.stats.equivalence import tail_p

RateCheck = Callable[..., bool]
REPEATS = 1500


def audit(
    rng: np.random.Generator,
    m: int,
    index: float = 0.0,
    model_sd: float = 0.1,
    example_sd: float = 0.1,
    n: int = 60,
    alpha: float = 0.05,
    tau: float = 0.5,
) -> ResidualIndex:
    """One audit: means over n examples of subject (RI ``index``), original (1), m retrained (0).

    Every model but the original draws its own training noise; examples differ in difficulty (shared
    by all models), in how much they are remembered, and in how each model happens to treat them.
    """
    center = np.concatenate([[index, 1.0], np.zeros(m)])
    noise = rng.normal(0, model_sd, 2 + m)
    noise[1] = 0.0
    own = example_sd * math.sqrt(n)
    scores = (
        center
        + noise
        + rng.normal(size=(n, 1))
        + rng.normal(0, own, (n, 1)) * center
        + rng.normal(0, 0.3 * own, (n, 2 + m))
    )
    measures = scores.mean(axis=0)
    # n rows whose sample covariance is that of the means: what infinitely many replicates give
    deviations = (scores - measures) / math.sqrt(n)
    return residual_index(
        measures[0], measures[1], measures[2:], deviations, alpha, tau, example_df=n - 1
    )


NOISES = [(0.1, 1e-6), (0.1, 0.05), (0.05, 0.1), (0.15, 0.1)]


@pytest.mark.parametrize("m", [2, 3, 5, 10])
def test_coverage_of_the_procedures_index(m: int, compatible: RateCheck) -> None:
    """90 % interval, noise of a fresh training run included: ≥ 90 %, each end errs ≤ 5 %.

    With training noise alone the test is Student's and exact; where examples share the variance it
    is conservative, the more so the fewer models there are (95 % at most here).
    """
    rng = np.random.default_rng(m)
    for model_sd, example_sd in NOISES:
        for index in (0.0, 0.5):
            runs = [audit(rng, m, index, model_sd, example_sd) for _ in range(REPEATS // 3)]
            too_low = sum(r.high is not None and r.high < index for r in runs)
            too_high = sum(r.low is not None and r.low > index for r in runs)
            where = (m, model_sd, example_sd, index)
            assert compatible(too_low, len(runs), at_most=0.05), where
            assert compatible(too_high, len(runs), at_most=0.05), where
            missed = too_low + too_high
            assert compatible(len(runs) - missed, len(runs), at_most=0.97), where


@pytest.mark.parametrize("m", [2, 3, 5, 10])
def test_training_noise_alone_is_covered_exactly(m: int, compatible: RateCheck) -> None:
    rng = np.random.default_rng(100 + m)
    runs = [audit(rng, m, 0.3, 0.05, 1e-6) for _ in range(REPEATS)]
    inside = sum(r.low is None or (r.high is not None and r.low <= 0.3 <= r.high) for r in runs)
    assert compatible(inside, REPEATS, at_least=0.9, at_most=0.91)


@pytest.mark.parametrize("m", [2, 3, 5, 10])
@pytest.mark.parametrize(("model_sd", "example_sd"), NOISES)
def test_fresh_retrained_subjects_are_not_called_residual(
    m: int, model_sd: float, example_sd: float, compatible: RateCheck
) -> None:
    rng = np.random.default_rng([m, round(1000 * model_sd)])
    strict = [audit(rng, m, 0.0, model_sd, example_sd, tau=0.0) for _ in range(REPEATS // 2)]
    for p in ("p_residual", "p_over_unlearned"):
        for alpha in (0.05, 0.05 / 24):
            flagged = sum(getattr(r, p) < alpha for r in strict)
            assert compatible(flagged, len(strict), at_most=alpha), (p, alpha, flagged)
    default = [audit(rng, m, 0.0, model_sd, example_sd, tau=0.5) for _ in range(200)]
    assert sum(r.p_residual < 0.05 for r in default) == 0


@pytest.mark.parametrize("m", [2, 3, 5, 10])
def test_subjects_on_the_margin_are_not_called_equivalent(m: int, compatible: RateCheck) -> None:
    rng = np.random.default_rng(200 + m)
    for index in (0.5, -0.5):
        runs = [audit(rng, m, index, 0.05, 0.05) for _ in range(REPEATS // 2)]
        assert compatible(sum(r.p_equivalence <= 0.05 for r in runs), len(runs), at_most=0.05)


def test_power() -> None:
    """What the design promises: fresh retrained subjects pass, originals fail."""
    rng = np.random.default_rng(300)
    fresh = [audit(rng, 5, 0.0) for _ in range(200)]
    assert sum(r.p_equivalence <= 0.05 for r in fresh) > 0.8 * 200
    remembered = [audit(rng, 5, 1.0) for _ in range(200)]
    assert sum(r.p_residual <= 0.05 for r in remembered) > 0.8 * 200
    assert sum(r.p_equivalence <= 0.05 for r in remembered) == 0


def test_welch_satterthwaite_would_err(compatible: RateCheck) -> None:
    """The reason for the wider critical value, and a check that the checks above can fail."""
    rng = np.random.default_rng(400)
    model, example = 0.9, 0.1
    spread = 1.5 * model * rng.chisquare(1, 4000)
    known = 1.5 * example
    difference = rng.normal(0, math.sqrt(1.5), 4000)
    total = spread + known
    welch = stats.t.sf(difference / np.sqrt(total), total**2 / spread**2)
    assert not compatible(int((welch < 0.05).sum()), 4000, at_most=0.05)
    assert not compatible(int((welch < 0.002).sum()), 4000, at_most=0.01)
    ours = np.array(
        [
            tail_p(float(d), [float(s), known], [1, math.inf])
            for d, s in zip(difference, spread, strict=True)
        ]
    )
    for alpha in (0.05, 0.01, 0.002):
        assert compatible(int((ours < alpha).sum()), 4000, at_most=alpha)


@pytest.mark.parametrize("m", [2, 5])
def test_family_wise_false_fail_rate(m: int, compatible: RateCheck) -> None:
    """Twelve independent probes on a fresh retrained subject at the strictest margin, Holm."""
    rng = np.random.default_rng(500 + m)
    fails = 0
    for _ in range(200):
        p = [audit(rng, m, 0.0, 0.1, 0.06, tau=0.0).p_residual for _ in range(12)]
        fails += bool((holm(np.array(p)) <= 0.05).any())
    assert compatible(fails, 200, at_most=0.05), fails


def test_positive_control_sees_the_original_and_only_it(compatible: RateCheck) -> None:
    rng = np.random.default_rng(600)
    seen = [audit(rng, 5, 0.0, 0.1, 0.1).positive_control_p for _ in range(200)]
    assert np.mean(np.array(seen) < 0.05) > 0.95
    blind = []
    for _ in range(REPEATS):
        # the original is one more retrained model
        values = rng.normal(0, 0.1, 7)
        index = residual_index(values[0], values[1], values[2:], np.zeros((2, 7)), 0.05, 0.5)
        blind.append(index.positive_control_p)
    assert compatible(int((np.array(blind) < 0.05).sum()), REPEATS, at_least=0.04, at_most=0.06)


@given(st.integers(0, 200), st.integers(2, 6), st.floats(0.05, 0.9))
@settings(max_examples=60)
def test_outcome_and_interval_agree(seed: int, m: int, tau: float) -> None:
    rng = np.random.default_rng(seed)
    index = audit(rng, m, index=rng.uniform(-1, 1), tau=tau)
    assume(index.low is not None)
    assert index.low is not None
    assert index.high is not None
    assert (index.p_residual < 0.05) == (index.low > tau)
    assert (index.p_over_unlearned < 0.05) == (index.high < -tau)
    assert (index.p_equivalence < 0.05) == (-tau < index.low and index.high < tau)
    assert index.low <= index.estimate <= index.high


def test_more_models_narrow_the_interval() -> None:
    rng = np.random.default_rng(7)
    widths = [
        np.median([index.detectable or math.inf for index in (audit(rng, m) for _ in range(100))])
        for m in (2, 3, 5, 10)
    ]
    assert widths == sorted(widths, reverse=True)
