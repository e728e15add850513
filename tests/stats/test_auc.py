from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from unaudit.evidence import FloatArray, IntArray
from unaudit.stats import auc, auc_interval, auc_noise, influence_auc, placements
from unaudit.stats.equivalence import tail_p

RateCheck = Callable[..., bool]

scores = arrays(np.float64, st.integers(1, 40), elements=st.integers(-6, 6).map(float))
"""Few distinct values, so that ties are common."""


def naive_auc(positive: FloatArray, negative: FloatArray) -> float:
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


@given(scores, scores)
def test_equals_pair_counting_and_sklearn_and_scipy(
    positive: FloatArray, negative: FloatArray
) -> None:
    value = auc(positive, negative)
    assert value == pytest.approx(naive_auc(positive, negative), abs=1e-12)
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    assert value == pytest.approx(roc_auc_score(labels, np.r_[positive, negative]), abs=1e-12)
    u = mannwhitneyu(positive, negative, method="asymptotic").statistic
    assert value == pytest.approx(u / len(positive) / len(negative), abs=1e-12)


@given(scores, scores)
def test_monotone_maps_and_swaps(positive: FloatArray, negative: FloatArray) -> None:
    value = auc(positive, negative)
    assert auc(np.exp(positive), np.exp(negative)) == value
    assert auc(negative, positive) == pytest.approx(1 - value, abs=1e-12)
    assert auc(-positive, -negative) == pytest.approx(1 - value, abs=1e-12)


@given(scores, scores)
def test_interval_follows_monotone_maps_and_swaps(
    positive: FloatArray, negative: FloatArray
) -> None:
    interval = auc_interval(positive, negative, 0.95)
    assert auc_interval(3 * positive**3, 3 * negative**3, 0.95) == interval
    swapped = auc_interval(negative, positive, 0.95)
    assert swapped.low == pytest.approx(1 - interval.high, abs=1e-9)
    assert swapped.high == pytest.approx(1 - interval.low, abs=1e-9)


@given(scores, scores, st.sampled_from([0.5, 0.8, 0.95, 0.999]))
def test_interval_is_never_degenerate(
    positive: FloatArray, negative: FloatArray, level: float
) -> None:
    interval = auc_interval(positive, negative, level)
    assert 0.0 <= interval.low <= interval.estimate <= interval.high <= 1.0
    assert interval.high - interval.low > 1e-3
    wider = auc_interval(positive, negative, (1 + level) / 2)
    assert wider.low <= interval.low <= interval.high <= wider.high


def test_infinite_scores_are_ranks_like_any_other() -> None:
    assert auc([np.inf, 1.0], [-np.inf, np.inf]) == naive_auc(
        np.array([np.inf, 1.0]), np.array([-np.inf, np.inf])
    )


def naive_placements(positive: FloatArray, negative: FloatArray) -> FloatArray:
    return np.array([naive_auc(np.array([p]), negative) for p in positive])


@given(scores, scores)
def test_placements(positive: FloatArray, negative: FloatArray) -> None:
    of_positive, of_negative = placements(positive, negative)
    assert of_positive == pytest.approx(naive_placements(positive, negative), abs=1e-12)
    assert of_negative == pytest.approx(naive_placements(-negative, -positive), abs=1e-12)
    assert of_positive.mean() == pytest.approx(auc(positive, negative), abs=1e-12)
    assert of_negative.mean() == pytest.approx(auc(positive, negative), abs=1e-12)


def test_influences_predict_the_effect_of_reweighting() -> None:
    """The derivative of the weighted AUC, by finite differences."""
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(0.5, 1, 30), rng.normal(0, 1, 40)
    wins = (positive[:, None] > negative[None, :]).astype(float)
    on_positive, on_negative = influence_auc(positive, negative)
    step = 1e-6
    for group, influence in ((0, on_positive), (1, on_negative)):
        for at in (0, 7):
            weights = [np.full(30, 1 / 30), np.full(40, 1 / 40)]
            weights[group] = (1 - step) * weights[group]
            weights[group][at] += step
            change = (weights[0] @ wins @ weights[1] - wins.mean()) / step
            assert influence[at] == pytest.approx(change, abs=1e-6)


@pytest.mark.parametrize(
    ("positive", "negative"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([[1.0]], [1.0])]
)
def test_refuses_what_is_not_a_sample(positive: list[float], negative: list[float]) -> None:
    with pytest.raises(ValueError, match=r"positive|negative"):
        auc(positive, negative)


Draw = Callable[[np.random.Generator, int, int], tuple[FloatArray, FloatArray]]


def binormal(area: float, spread: float) -> Draw:
    """Positives N(d, spread²) against negatives N(0, 1)."""
    shift = np.hypot(1, spread) * norm.ppf(area)
    return lambda rng, m, n: (rng.normal(shift, spread, m), rng.normal(0, 1, n))


def exponential(area: float) -> Draw:
    scale = area / (1 - area)
    return lambda rng, m, n: (rng.exponential(scale, m), rng.exponential(1, n))


def binary(p: float, q: float) -> tuple[float, Draw]:
    """Accuracy-like scores: all ties but a few."""
    area = 0.5 + (p - q) / 2
    return area, lambda rng, m, n: (
        rng.binomial(1, p, m).astype(np.float64),
        rng.binomial(1, q, n).astype(np.float64),
    )


def covered(draw: Draw, area: float, m: int, n: int, repeats: int) -> int:
    rng = np.random.default_rng([m, n, round(1000 * area)])
    hits = 0
    for _ in range(repeats):
        interval = auc_interval(*draw(rng, m, n), level=0.95)
        hits += interval.low <= area <= interval.high
    return hits


@pytest.mark.parametrize(("m", "n"), [(50, 50), (30, 300), (200, 100)])
@pytest.mark.parametrize("area", [0.5, 0.7, 0.8])
def test_coverage_lies_between_93_and_97_percent(
    m: int, n: int, area: float, compatible: RateCheck
) -> None:
    draws = [binormal(area, 1), binormal(area, 3), exponential(area)]
    hits = [covered(draw, area, m, n, 1500) for draw in draws]
    assert all(compatible(h, 1500, at_least=0.93, at_most=0.97) for h in hits), hits


@pytest.mark.parametrize(("m", "n"), [(20, 20), (20, 200), (200, 20), (200, 200)])
@pytest.mark.parametrize("area", [0.9, 0.95, 0.99])
def test_coverage_holds_near_the_end_of_the_scale(
    m: int, n: int, area: float, compatible: RateCheck
) -> None:
    """Where the upper end often is 1 it cannot err, so only the lower bound on coverage is claimed;
    plain DeLong covers 40 to 90 % here."""
    draws = [binormal(area, 1), binormal(area, 3), binormal(area, 1 / 3), exponential(area)]
    hits = [covered(draw, area, m, n, 1500) for draw in draws]
    assert all(compatible(h, 1500, at_least=0.935) for h in hits), hits


@pytest.mark.parametrize(("p", "q"), [(0.1, 0.1), (0.1, 0.02), (0.99, 0.9), (0.02, 0.1)])
def test_coverage_holds_for_rare_binary_scores(p: float, q: float, compatible: RateCheck) -> None:
    area, draw = binary(p, q)
    for m, n in ((50, 50), (200, 200)):
        hits = covered(draw, area, m, n, 1500)
        assert compatible(hits, 1500, at_least=0.93), (m, n, hits)


def test_the_coverage_check_can_fail(compatible: RateCheck) -> None:
    """DeLong without logit and pseudo-example, on the same simulation."""
    rng = np.random.default_rng(0)
    draw = binormal(0.95, 1)
    hits = 0
    for _ in range(1500):
        of_positive, of_negative = placements(*draw(rng, 20, 20))
        error = np.sqrt(of_positive.var(ddof=1) / 20 + of_negative.var(ddof=1) / 20)
        hits += abs(of_positive.mean() - 0.95) <= 1.96 * error
    assert not compatible(hits, 1500, at_least=0.93)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(20, 1000), (500, 500), (200, 10_000), (5_000, 5_000)])
@pytest.mark.parametrize("area", [0.5, 0.8, 0.9, 0.99])
def test_coverage_at_scale(m: int, n: int, area: float, compatible: RateCheck) -> None:
    for draw in (binormal(area, 1), binormal(area, 3), binormal(area, 1 / 3), exponential(area)):
        hits = covered(draw, area, m, n, 2000)
        assert compatible(hits, 2000, at_least=0.93, at_most=0.97 if m >= 500 else 0.99), hits


@pytest.mark.parametrize("between", [0.0, 0.5, 3.0])
@pytest.mark.parametrize(
    "sizes", [(60, 1, 20, 5), (30, 3, 60, 10), (10, 20, 20, 20)], ids=lambda sizes: str(sizes)
)
def test_groups_of_any_size_and_likeness_are_rarely_told_apart(
    sizes: tuple[int, int, int, int], between: float
) -> None:
    rng = np.random.default_rng(0)

    def drawn(groups: int, size: int) -> tuple[FloatArray, IntArray]:
        scores = between * rng.normal(size=groups).repeat(size) + rng.normal(size=groups * size)
        return -np.exp(scores), np.arange(groups).repeat(size)

    p_values = []
    for _ in range(300):
        (own, mine), (other, theirs) = drawn(*sizes[:2]), drawn(*sizes[2:])
        variance, df = auc_noise(own, other, (mine, theirs))
        p_values.append(2 * tail_p(abs(auc(own, other) - 0.5), [variance], [df]))
    for level in (0.01, 0.05):
        hits = sum(p < level for p in p_values)
        assert binomtest(hits, 300, level, alternative="greater").pvalue > 1e-3
    assert np.mean(p_values) < 0.7  # nor is it noise without end


def test_noise_of_independent_records_is_mann_and_whitneys() -> None:
    rng = np.random.default_rng(1)
    areas = [auc(rng.normal(size=30), rng.normal(size=50)) for _ in range(4000)]
    variance, df = auc_noise(rng.normal(size=30), rng.normal(size=50))
    assert variance == (30 + 50 + 1) / (12 * 30 * 50)
    assert df == np.inf
    assert np.var(areas) == pytest.approx(variance, rel=0.08)


def test_groups_of_one_change_nothing_and_equal_records_count_once() -> None:
    rng = np.random.default_rng(2)
    own, other = rng.normal(size=30), rng.normal(size=50)
    alone = auc_noise(own, other, (np.arange(30), np.arange(50)))
    assert alone[0] == pytest.approx(auc_noise(own, other)[0])
    copies = own.repeat(4), other.repeat(4)
    same = auc_noise(*copies, (np.arange(30).repeat(4), np.arange(50).repeat(4)))
    assert same[0] == pytest.approx(auc_noise(own, other)[0], rel=0.02)
