from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from unaudit.stats import holm

RateCheck = Callable[..., bool]

p_values = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.05, 0.5, 1.0])), max_size=12
)


def holm_by_closure(p: list[float]) -> list[float]:
    """The closed test with Bonferroni on every intersection: what Holm's procedure is short for."""
    adjusted = []
    for own in range(len(p)):
        others = [i for i in range(len(p)) if i != own]
        subsets = (
            (own, *subset) for size in range(len(p)) for subset in combinations(others, size)
        )
        worst = max(min(1.0, len(s) * min(p[i] for i in s)) for s in subsets)
        adjusted.append(worst)
    return adjusted


@given(p_values.filter(lambda p: len(p) <= 7))
def test_equals_the_closed_bonferroni_test(p: list[float]) -> None:
    assert holm(np.array(p)) == pytest.approx(holm_by_closure(p), abs=1e-12)


def step_down(p: list[float], alpha: float) -> list[bool]:
    """Textbook wording: from the smallest p on, reject while p ≤ α / (hypotheses left)."""
    rejected = [False] * len(p)
    for rank, at in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[at] * (len(p) - rank) > alpha:
            break
        rejected[at] = True
    return rejected


@given(p_values, st.sampled_from([0.01, 0.05, 0.2]))
def test_rejects_what_the_step_down_loop_rejects(p: list[float], alpha: float) -> None:
    assert (holm(np.array(p)) <= alpha).tolist() == step_down(p, alpha)


@given(p_values)
def test_order_bounds_and_monotonicity(p: list[float]) -> None:
    adjusted = holm(np.array(p))
    assert np.all(adjusted >= p)
    assert np.all(adjusted <= 1.0)
    assert np.all(adjusted <= np.minimum(1.0, len(p) * np.array(p)) + 1e-15)
    reverse = holm(np.array(p[::-1]))
    assert reverse[::-1].tolist() == adjusted.tolist()
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


def test_worked_example() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).shape == (0,)
    assert holm(np.array([0.4])).tolist() == [0.4]


def test_family_wise_error_of_correlated_tests(compatible: RateCheck) -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4000, 1))
    hits = 0
    for z in np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=(4000, 12)):
        hits += bool((holm(ndtr(z)) <= 0.05).any())
    assert compatible(hits, 4000, at_least=0.01, at_most=0.05)


@pytest.mark.parametrize("p", [[-0.1], [1.1], [np.nan], [[0.1]]])
def test_refuses_what_is_no_p_value(p: list[float]) -> None:
    with pytest.raises(ValueError, match="p-values"):
        holm(np.array(p))
