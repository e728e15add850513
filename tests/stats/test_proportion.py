from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from unaudit.stats import clopper_pearson
from unaudit.stats.proportion import lower_limit, upper_limit


@given(st.integers(1, 500), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.999]))
def test_equals_scipy(trials: int, data: st.DataObject, level: float) -> None:
    successes = data.draw(st.integers(0, trials))
    interval = clopper_pearson(successes, trials, level)
    expected = binomtest(successes, trials).proportion_ci(level, method="exact")
    assert interval.estimate == successes / trials
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)
    assert interval.level == level


@pytest.mark.parametrize("trials", [1, 7, 20, 100, 1000])
def test_exact_coverage_is_never_below_the_level(trials: int) -> None:
    """Not simulated: coverage is summed over all outcomes, for a grid of true rates."""
    counts = np.arange(trials + 1)
    low, high = lower_limit(counts, trials, 0.025), upper_limit(counts, trials, 0.025)
    rates = np.linspace(0.001, 0.999, 333)[:, None]
    covered = (low <= rates) & (rates <= high)
    coverage = (binom.pmf(counts, trials, rates) * covered).sum(axis=1)
    assert coverage.min() >= 0.95 - 1e-9
    # conservative for few trials, close to the level for many
    assert coverage.mean() <= {1: 1.0, 7: 0.995, 20: 0.985, 100: 0.97, 1000: 0.96}[trials]


def test_limits_of_large_counts_stay_accurate() -> None:
    few = upper_limit(0, 10_000_000, 0.05)
    assert float(few) == pytest.approx(-np.log(0.05) / 10_000_000, rel=1e-6)


def test_arrays_keep_their_shape() -> None:
    counts = np.array([[0, 1], [5, 10]])
    limits = lower_limit(counts, 10, 0.05)
    assert limits.shape == (2, 2)
    assert limits[0, 0] == 0.0
    assert upper_limit(counts, 10, 0.05)[1, 1] == 1.0


@pytest.mark.parametrize(
    ("successes", "trials", "level"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 7.0)]
)
def test_refuses_impossible_input(successes: int, trials: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"trial|successes|level"):
        clopper_pearson(successes, trials, level)
