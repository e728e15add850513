from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from unaudit.evidence import FloatArray
from unaudit.stats import EpsilonBound, epsilon_lower_bound, roc_curve

RateCheck = Callable[..., bool]


def null_rate(
    draw: Callable[[np.random.Generator, int], FloatArray], m: int, n: int, repeats: int
) -> int:
    rng = np.random.default_rng([m, n])
    return sum(
        epsilon_lower_bound(draw(rng, m), draw(rng, n), 0.05, rng).epsilon > 0
        for _ in range(repeats)
    )


@pytest.mark.parametrize(("m", "n"), [(500, 500), (40, 40), (100, 600)])
def test_noise_shows_nothing(m: int, n: int, compatible: RateCheck) -> None:
    """At most 5 % of repeats above 0; popular toolkits reach 6 to 100 % on 500 + 500."""
    hits = null_rate(lambda rng, k: rng.normal(size=k), m, n, 500)
    assert compatible(hits, 500, at_most=0.05), hits
    assert hits <= 0.05 * 500


def test_tied_noise_shows_nothing(compatible: RateCheck) -> None:
    hits = null_rate(lambda rng, k: rng.integers(0, 3, k).astype(np.float64), 200, 200, 500)
    assert compatible(hits, 500, at_most=0.05), hits


def test_the_null_check_can_fail(compatible: RateCheck) -> None:
    """Pointwise bounds, maximized over thresholds without paying for the choice."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        fpr, tpr = roc_curve(rng.normal(size=500), rng.normal(size=500))
        low = np.nan_to_num(beta.ppf(0.05, 500 * tpr, 501 - 500 * tpr))
        high = np.nan_to_num(beta.ppf(0.95, 500 * fpr + 1, 500 - 500 * fpr), nan=1.0)
        hits += (low > high).any()
    assert not compatible(hits, 200, at_most=0.05)


def randomized_response(
    epsilon: float, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Binary scores whose true ε is ``epsilon``."""
    truth = np.exp(epsilon) / (1 + np.exp(epsilon))
    return (
        rng.binomial(1, truth, n).astype(np.float64),
        rng.binomial(1, 1 - truth, n).astype(np.float64),
    )


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_bound_stays_below_the_true_epsilon(epsilon: float, compatible: RateCheck) -> None:
    rng = np.random.default_rng(1)
    bounds = [
        epsilon_lower_bound(*randomized_response(epsilon, 2000, rng), 0.05, rng).epsilon
        for _ in range(400)
    ]
    assert compatible(sum(b > epsilon for b in bounds), 400, at_most=0.05)
    assert np.median(bounds) > 0.75 * epsilon


def test_over_unlearning_betrays_membership_too() -> None:
    rng = np.random.default_rng(2)
    high, low = rng.normal(3, 1, 1000), rng.normal(0, 1, 1000)
    remembered = epsilon_lower_bound(high, low, 0.05, np.random.default_rng(0))
    scrubbed = epsilon_lower_bound(-high, -low, 0.05, np.random.default_rng(0))
    assert remembered.epsilon > 2.0
    assert (remembered.side, scrubbed.side) == ("high", "low")
    assert replace(scrubbed, side="high", threshold=-scrubbed.threshold) == remembered


def test_both_inequalities_are_used() -> None:
    """A tenth of the members stand out: TPR/FPR. A tenth of the others do: TNR/FNR."""
    rng = np.random.default_rng(3)
    plain, mixed = np.zeros(2000), rng.binomial(1, 0.1, 2000).astype(np.float64)
    members_stand_out = epsilon_lower_bound(mixed, plain, 0.05, rng)
    others_stand_out = epsilon_lower_bound(plain, -mixed, 0.05, rng)
    assert members_stand_out.epsilon > 2.0
    assert others_stand_out.epsilon > 2.0
    assert members_stand_out.inequality == "tpr/fpr"
    assert others_stand_out.inequality == "tnr/fnr"


def test_reported_rates_reproduce_the_bound() -> None:
    rng = np.random.default_rng(4)
    bound = epsilon_lower_bound(rng.normal(1, 1, 801), rng.normal(0, 1, 600), 0.1, rng, delta=1e-3)
    assert isinstance(bound, EpsilonBound)
    hits, false_alarms = bound.tpr * 401, bound.fpr * 300
    assert bound.tpr_low == pytest.approx(beta.ppf(0.05, hits, 401 - hits + 1))
    assert bound.fpr_high == pytest.approx(beta.ppf(0.95, false_alarms + 1, 300 - false_alarms))
    by_inequality = {
        "tpr/fpr": np.log((bound.tpr_low - 1e-3) / bound.fpr_high),
        "tnr/fnr": np.log((1 - bound.fpr_high - 1e-3) / (1 - bound.tpr_low)),
    }
    assert bound.epsilon == pytest.approx(max(by_inequality.values()))
    assert bound.epsilon == pytest.approx(by_inequality[bound.inequality])
    assert (bound.confidence, bound.delta) == (0.9, 1e-3)


def test_delta_can_explain_everything() -> None:
    rng = np.random.default_rng(5)
    positive, negative = rng.normal(1, 1, 200), rng.normal(0, 1, 200)
    assert epsilon_lower_bound(positive, negative, 0.05, rng, delta=0.99).epsilon == 0.0


def test_same_seed_same_bound_whatever_the_scale() -> None:
    rng = np.random.default_rng(6)
    positive, negative = rng.normal(1, 1, 150), rng.normal(0, 1, 90)
    once = epsilon_lower_bound(positive, negative, 0.05, np.random.default_rng(1))
    mapped = epsilon_lower_bound(np.exp(positive), np.exp(negative), 0.05, np.random.default_rng(1))
    assert replace(mapped, threshold=once.threshold) == once


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 100), (100, 1), (2, 2)])
def test_tiny_groups_show_nothing(m: int, n: int) -> None:
    bound = epsilon_lower_bound(np.ones(m), np.zeros(n), 0.05, np.random.default_rng(0))
    assert bound.epsilon == 0.0


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, 0.0), (1.0, 0.0), (0.05, -0.1), (0.05, 1.0)])
def test_refuses_impossible_rates(alpha: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"alpha|delta"):
        epsilon_lower_bound([1.0, 2.0], [0.0, 1.0], alpha, np.random.default_rng(0), delta)
