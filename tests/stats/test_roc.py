from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from sklearn.metrics import roc_curve as sklearn_roc_curve

from unaudit.evidence import FloatArray
from unaudit.stats import advantage, auc, band, clopper_pearson, roc_curve, tpr_at_fpr

RateCheck = Callable[..., bool]

scores = arrays(np.float64, st.integers(1, 40), elements=st.integers(-6, 6).map(float))


@given(scores, scores)
def test_curve_equals_sklearn(positive: FloatArray, negative: FloatArray) -> None:
    fpr, tpr = roc_curve(positive, negative)
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    expected = sklearn_roc_curve(labels, np.r_[positive, negative], drop_intermediate=False)
    assert fpr == pytest.approx(expected[0], abs=1e-12)
    assert tpr == pytest.approx(expected[1], abs=1e-12)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(positive, negative), abs=1e-12)


@given(scores, scores, st.floats(0.001, 0.999))
def test_operating_point_is_the_best_threshold_allowed(
    positive: FloatArray, negative: FloatArray, fpr: float
) -> None:
    point = tpr_at_fpr(positive, negative, fpr, 0.95)
    if point is None:
        assert fpr < 1 / len(negative)
        return
    cuts = [-np.inf, *positive, *negative]
    allowed = [cut for cut in cuts if (negative > cut).mean() <= fpr + 1e-9]
    assert point.tpr == max((positive > cut).mean() for cut in allowed)
    assert point.empirical_fpr == (negative > point.threshold).mean() <= fpr + 1e-9
    hits = round(point.tpr * len(positive))
    exact = clopper_pearson(hits, len(positive), 0.95)
    assert (point.low, point.high) == (exact.low, exact.high)


def test_no_operating_point_below_one_in_n() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(3, 1, 500), rng.normal(0, 1, 999)
    assert tpr_at_fpr(positive, negative, 0.001, 0.95) is None
    point = tpr_at_fpr(positive, np.append(negative, 0.0), 0.001, 0.95)
    assert point is not None
    assert point.empirical_fpr == 0.001


@pytest.mark.parametrize("fpr", [0.29, 0.57, 0.58, 0.07])
def test_rates_that_binary_floats_cannot_hold(fpr: float) -> None:
    """.29 × 100 = 28.999999999999996 still allows 29 false alarms."""
    point = tpr_at_fpr([0.0], np.arange(100.0), fpr, 0.95)
    assert point is not None
    assert round(100 * point.empirical_fpr) == round(100 * fpr)


def test_ties_make_an_operating_point_stricter_never_laxer() -> None:
    negative = np.array([0.0] * 50 + [1.0] * 50)
    point = tpr_at_fpr([1.0, 2.0], negative, 0.3, 0.95)
    assert point is not None
    assert (point.empirical_fpr, point.tpr, point.threshold) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("fpr", [0.0, 1.0, 5.0, float("nan")])
def test_fpr_is_a_fraction(fpr: float) -> None:
    with pytest.raises(ValueError, match="fpr"):
        tpr_at_fpr([1.0], [0.0], fpr, 0.95)


@given(scores, scores)
def test_band_lies_on_the_curve(positive: FloatArray, negative: FloatArray) -> None:
    thinned = band(positive, negative, 0.9, points=10)
    assert thinned.fpr[0] == 1 / len(negative)
    assert thinned.fpr[-1] == thinned.tpr[-1] == 1.0
    assert np.all(np.diff(thinned.fpr) > 0)
    for at, rate in enumerate(thinned.fpr[:-1]):
        point = tpr_at_fpr(positive, negative, float(rate), 0.9)
        assert point is not None
        assert thinned.tpr[at] == pytest.approx(point.tpr, abs=1e-12)
        assert thinned.low[at] == pytest.approx(point.low, abs=1e-12)
        assert thinned.high[at] == pytest.approx(point.high, abs=1e-12)


def test_band_is_log_spaced_and_thin() -> None:
    rng = np.random.default_rng(0)
    thinned = band(rng.normal(1, 1, 2000), rng.normal(0, 1, 50_000), 0.95, points=64)
    assert 50 <= len(thinned.fpr) <= 64
    assert (thinned.fpr < 0.01).sum() > 30


def test_interval_covers_the_rate_at_its_threshold(compatible: RateCheck) -> None:
    """Clopper–Pearson is conservative: ≥ 95 % is claimed, and not much more for 200 positives."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        point = tpr_at_fpr(rng.normal(1, 1, 200), rng.normal(0, 1, 100), 0.1, 0.95)
        assert point is not None
        hits += point.low <= norm.sf(point.threshold - 1) <= point.high
    assert compatible(hits, 2000, at_least=0.95, at_most=0.975)


def test_advantage_is_unbiased_on_noise() -> None:
    """The best threshold in hindsight gains .09 here."""
    rng = np.random.default_rng(2)
    draws = [(rng.normal(size=100), rng.normal(size=100)) for _ in range(1500)]
    values = np.array([advantage(*draw, rng, splits=1) for draw in draws])
    standard_error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3.5 * standard_error
    assert standard_error < 0.004
    assert (values < 0).mean() > 0.3

    def hindsight(positive: FloatArray, negative: FloatArray) -> float:
        fpr, tpr = roc_curve(positive, negative)
        return float((tpr - fpr).max())

    assert np.mean([hindsight(*draw) for draw in draws[:200]]) > 0.07


def test_advantage_of_a_strong_attack() -> None:
    """N(2, 1) against N(0, 1): 2 Φ(1) − 1 = .683 at the best threshold."""
    rng = np.random.default_rng(3)
    value = advantage(rng.normal(2, 1, 5000), rng.normal(0, 1, 5000), rng)
    assert value == pytest.approx(2 * norm.cdf(1) - 1, abs=0.03)
    assert advantage(np.arange(50.0) + 100, np.arange(50.0), rng) > 0.9


def test_advantage_calls_high_scores_members_only() -> None:
    rng = np.random.default_rng(4)
    assert advantage(rng.normal(-3, 1, 400), rng.normal(0, 1, 400), rng) == pytest.approx(
        0.0, abs=0.02
    )


def test_advantage_keeps_its_seed_and_follows_monotone_maps() -> None:
    rng = np.random.default_rng(5)
    positive, negative = rng.normal(1, 1, 60), rng.normal(0, 1, 80)
    once = advantage(positive, negative, np.random.default_rng(7))
    assert advantage(np.exp(positive), np.exp(negative), np.random.default_rng(7)) == once


def test_single_example_gives_the_attacker_nothing() -> None:
    rng = np.random.default_rng(0)
    assert advantage([5.0], np.zeros(10), rng) == advantage(np.ones(10), [0.0], rng) == 0.0
