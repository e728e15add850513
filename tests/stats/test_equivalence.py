from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from unaudit.evidence import FloatArray
from unaudit.stats import (
    RatioTest,
    VariancePart,
    fieller,
    residual_index,
)
from unaudit.stats.equivalence import tail_p

moderate = st.floats(-3, 3).filter(lambda x: abs(x) > 1e-3)
positive = st.floats(1e-3, 2)


def contrast(
    numerator: float, denominator: float, sds: list[float], correlation: float, dfs: list[float]
) -> RatioTest:
    parts = tuple(
        VariancePart.of_ratio(sd**2, correlation * sd * sd / 2, (sd / 2) ** 2, df)
        for sd, df in zip(sds, dfs, strict=True)
    )
    return RatioTest(numerator, denominator, parts)


tests = st.builds(
    contrast,
    moderate,
    moderate,
    st.lists(positive, min_size=2, max_size=2),
    st.floats(-0.99, 0.99),
    st.just([4.0, math.inf]),
)


def accepted(test: RatioTest, rho: FloatArray, alpha: float) -> npt.NDArray[np.bool_]:
    """Brute force, straight from the definition D² ≤ Σ t² V."""
    bound = np.zeros_like(rho)
    for part in test.parts:
        t = stats.norm.isf(alpha) if math.isinf(part.df) else stats.t.isf(alpha, part.df)
        variance = part.constant + part.linear * rho + part.quadratic * rho**2
        bound += t**2 * variance
    return (test.numerator - rho * test.denominator) ** 2 <= bound


@given(tests, st.sampled_from([0.01, 0.05, 0.2]))
def test_interval_equals_a_brute_force_grid(test: RatioTest, alpha: float) -> None:
    interval = test.interval(alpha)
    far = np.tan(np.linspace(-np.pi / 2, np.pi / 2, 20_001)[1:-1])
    inside = accepted(test, far, alpha)
    if interval is None:
        assert inside[0]
        assert inside[-1]
        return
    low, high = interval
    assert low <= test.numerator / test.denominator <= high
    if high - low < 1e-2:
        return
    edge = 1e-6 * (high - low)
    clear = (np.abs(far - low) > edge * (1 + far**2)) & (np.abs(far - high) > edge * (1 + far**2))
    assert np.array_equal(inside[clear], ((low <= far) & (far <= high))[clear])


def test_fieller_against_the_closed_form() -> None:
    """Fieller's theorem as in Finney (1978), sec. 4.5, for one t and correlated estimates."""
    a, b, v11, v12, v22, df = 0.4, 1.1, 0.02, 0.005, 0.03, 7
    t = stats.t.isf(0.05, df)
    g = t**2 * v22 / b**2
    ratio = a / b
    root = math.sqrt(v11 - 2 * ratio * v12 + ratio**2 * v22 - g * (v11 - v12**2 / v22))
    ends = [(ratio - g * v12 / v22 + s * t / b * root) / (1 - g) for s in (-1, 1)]
    assert fieller(a, b, v11, v12, v22, 0.05, df) == pytest.approx(ends, abs=1e-12)


def test_fieller_is_unbounded_where_the_denominator_could_be_zero() -> None:
    limit = stats.norm.isf(0.05)
    assert fieller(0.3, 0.999 * limit, 1.0, 0.0, 1.0, 0.05) is None
    assert fieller(0.3, 1.001 * limit, 1.0, 0.0, 1.0, 0.05) is not None
    assert fieller(0.3, 0.0, 1.0, 0.0, 0.0, 0.05) is None


@given(tests, st.floats(-2, 2), st.sampled_from([0.002, 0.05, 0.3]))
def test_interval_and_p_values_agree(test: RatioTest, rho: float, alpha: float) -> None:
    """ρ lies below the interval just if 'ratio ≤ ρ' is rejected at α, and likewise above."""
    assert test.p_above(rho) + test.p_below(rho) == pytest.approx(1.0, abs=1e-9)
    interval = test.interval(alpha)
    if interval is None or min(abs(rho - end) for end in interval) < 1e-9:
        return
    sign = math.copysign(1.0, test.denominator)
    p_above = test.p_above(rho) if sign > 0 else test.p_below(rho)
    p_below = test.p_below(rho) if sign > 0 else test.p_above(rho)
    assert (p_above < alpha) == (rho < interval[0])
    assert (p_below < alpha) == (rho > interval[1])


@given(st.floats(-30, 30), st.floats(1e-6, 50), st.sampled_from([1, 2, 4, 9, 29, 400]))
def test_tail_p_of_one_part_is_students(x: float, variance: float, df: int) -> None:
    p = tail_p(x * math.sqrt(variance), [variance], [df])
    assert p == pytest.approx(max(stats.t.sf(x, df), 1e-30), rel=1e-6, abs=1e-12)
    known = tail_p(x * math.sqrt(variance), [variance, 0.0], [math.inf, df])
    assert known == pytest.approx(max(stats.norm.sf(x), 1e-30), rel=1e-6, abs=1e-12)


@given(st.floats(0.01, 300), st.floats(1e-8, 1), st.floats(1e-8, 1), st.sampled_from([1, 2, 4, 9]))
def test_tail_p_of_two_parts_solves_its_equation(
    x: float, model: float, example: float, df: int
) -> None:
    p = tail_p(x, [model, example], [df, math.inf])
    assume(1e-29 < p < 0.5)
    bound = model * stats.t.isf(p, df) ** 2 + example * stats.norm.isf(p) ** 2
    assert bound == pytest.approx(x**2, rel=1e-6)


def test_tail_p_without_variance_is_zero_or_one() -> None:
    assert [tail_p(d, [0.0, 0.0], [3, math.inf]) for d in (1e-9, 0.0, -1.0)] == [0.0, 1.0, 1.0]


def test_by_hand() -> None:
    """m = 2, no example noise: D(ρ) = .1 − ρ, s² = .02, V = .02 (1 + (1 − ρ)²/2), t = 6.314."""
    index = residual_index(0.1, 1.0, np.array([-0.1, 0.1]), np.zeros((50, 4)), 0.05, 0.5)
    assert index.estimate == pytest.approx(0.1)
    assert index.level == pytest.approx(0.9)
    assert index.degrees_of_freedom == pytest.approx(1.0)
    at_tau = 0.4 / math.sqrt(0.02 * 1.125)
    assert index.p_residual == pytest.approx(stats.t.cdf(at_tau, 1))
    below = -0.6 / math.sqrt(0.02 * 2.125)
    assert index.p_over_unlearned == pytest.approx(stats.t.cdf(-below, 1))
    assert index.p_equivalence == pytest.approx(stats.t.sf(at_tau, 1))
    assert index.positive_control_p == pytest.approx(stats.t.sf(1 / math.sqrt(0.02 * 1.5), 1))
    t2 = stats.t.isf(0.05, 1) ** 2
    roots = np.roots([1 - 0.01 * t2, -0.2 + 0.02 * t2, 0.01 - 0.03 * t2])
    assert (index.low, index.high) == pytest.approx(sorted(roots.real))
    zero = np.roots([1 - 0.01 * t2, 0.02 * t2, -0.03 * t2]).real
    assert index.detectable == pytest.approx(np.abs(zero).max())


def test_known_example_noise_by_hand() -> None:
    """Equal retrained models, so only examples count: Fieller with the normal quantile."""
    rng = np.random.default_rng(1)
    deviations = rng.normal(0, 0.05, (4000, 5))
    index = residual_index(0.3, 1.2, np.full(3, 0.2), deviations, 0.05, 0.5)
    mean = deviations[:, 2:].mean(axis=1)
    covariance = np.cov(deviations[:, 0] - mean, deviations[:, 1] - mean)
    expected = fieller(0.1, 1.0, covariance[0, 0], covariance[0, 1], covariance[1, 1], 0.05)
    assert (index.low, index.high) == pytest.approx(expected)
    assert index.degrees_of_freedom == math.inf
    few = residual_index(0.3, 1.2, np.full(3, 0.2), deviations, 0.05, 0.5, example_df=4)
    assert few.low is not None
    assert index.low is not None
    assert few.low < index.low


def test_one_retrained_model_supports_no_claim() -> None:
    rng = np.random.default_rng(2)
    index = residual_index(0.5, 1.0, np.array([0.0]), rng.normal(0, 0.01, (100, 3)), 0.05, 0.5)
    assert index.estimate == 0.5
    assert (index.low, index.high, index.detectable) == (None, None, None)
    assert index.p_residual == index.p_over_unlearned == index.p_equivalence == 1.0
    assert index.positive_control_p == 1.0


def test_unknown_deviations_support_no_claim() -> None:
    deviations = np.zeros((10, 5))
    deviations[:, 0] = np.nan
    index = residual_index(0.0, 1.0, np.zeros(3), deviations, 0.05, 0.5)
    assert (index.estimate, index.low, index.detectable) == (0.0, None, None)
    assert index.p_equivalence == index.positive_control_p == 1.0


@pytest.mark.parametrize(
    ("subject", "expected"),
    [(0.0, (1, 1, 0)), (0.3, (1, 1, 0)), (0.9, (0, 1, 1)), (-0.8, (1, 0, 1))],
)
def test_no_variance_at_all(subject: float, expected: tuple[int, int, int]) -> None:
    """Accuracy on a class that no retrained model ever predicts."""
    index = residual_index(subject, 1.0, np.zeros(5), np.zeros((100, 7)), 0.05, 0.5)
    assert (index.low, index.estimate, index.high) == (subject, subject, subject)
    assert (index.p_residual, index.p_over_unlearned, index.p_equivalence) == expected
    assert index.positive_control_p == 0.0
    assert index.detectable == 0.0


def test_equal_values_have_no_spread_whatever_they_are() -> None:
    """.1 three times has a variance of 1.9e-34 when computed about its mean."""
    index = residual_index(0.1, 0.9, np.full(3, 0.1), np.zeros((100, 5)), 0.05, 0.5)
    assert (index.low, index.high) == (index.estimate, index.estimate)
    assert index.p_equivalence == 0.0


def test_subject_like_retrained_but_original_noisy() -> None:
    """Subject and retrained are all 0, only the original's accuracy is uncertain."""
    rng = np.random.default_rng(3)
    deviations = np.zeros((500, 7))
    deviations[:, 1] = rng.normal(0, 0.01, 500)
    index = residual_index(0.0, 0.97, np.zeros(5), deviations, 0.05, 0.5)
    assert (index.low, index.estimate, index.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert index.p_equivalence < 1e-20


@pytest.mark.parametrize("original", [0.5, 0.3])
def test_an_original_that_is_not_above_retrained(original: float) -> None:
    rng = np.random.default_rng(4)
    retrained = np.array([0.4, 0.5, 0.6])
    index = residual_index(0.9, original, retrained, rng.normal(0, 0.01, (200, 5)), 0.05, 0.5)
    if original == 0.5:
        assert math.isnan(index.estimate)
        assert index.positive_control_p == pytest.approx(0.5)
    else:
        assert index.estimate == pytest.approx(-2.0)
        assert index.positive_control_p > 0.5
    assert (index.low, index.high, index.detectable) == (None, None, None)
    assert index.p_residual == index.p_over_unlearned == index.p_equivalence == 1.0


def test_a_weak_original_leaves_the_index_unbounded() -> None:
    rng = np.random.default_rng(5)
    retrained = np.array([-0.3, 0.0, 0.3])
    index = residual_index(0.0, 0.5, retrained, rng.normal(0, 0.01, (200, 5)), 0.05, 0.5)
    assert (index.low, index.high, index.detectable) == (None, None, None)
    assert index.p_equivalence > 0.05
    assert 0.05 < index.positive_control_p < 0.5


@given(
    st.floats(0.1, 10),
    st.floats(-5, 5),
    st.integers(2, 6),
    st.integers(0, 100),
)
@settings(max_examples=50)
def test_index_is_free_of_unit_and_offset(scale: float, shift: float, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, deviations = rng.normal(0, 0.1, m), rng.normal(0, 0.05, (40, 2 + m))
    plain = residual_index(0.2, 1.0, values, deviations, 0.05, 0.5)
    mapped = residual_index(
        scale * 0.2 + shift,
        scale + shift,
        scale * values + shift,
        scale * deviations,
        0.05,
        0.5,
    )
    assert (mapped.low is None) == (plain.low is None)
    for name in ("estimate", "p_residual", "p_over_unlearned", "p_equivalence", "low", "high"):
        if getattr(plain, name) is not None:
            assert getattr(mapped, name) == pytest.approx(getattr(plain, name), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("alpha", "tau"), [(0.0, 0.5), (1.0, 0.5), (0.05, -0.1)])
def test_refuses_impossible_policy(alpha: float, tau: float) -> None:
    with pytest.raises(ValueError, match=r"alpha|tau"):
        residual_index(0.0, 1.0, np.zeros(3), np.zeros((5, 5)), alpha, tau)
