"""Benjamini–Hochberg against the definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unaudit.stats import false_discovery

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(p_values, st.sampled_from([0.01, 0.05, 0.2]))
def test_rejects_what_the_step_up_procedure_rejects(p: list[float], alpha: float) -> None:
    ordered = sorted(p)
    passing = [k for k, value in enumerate(ordered, 1) if value * len(p) / k <= alpha]
    rejected = set(ordered[: max(passing)]) if passing else set()
    ours = false_discovery(p) <= alpha
    assert [bool(flag) for flag in ours] == [value in rejected for value in p]


def test_nothing_to_adjust() -> None:
    assert len(false_discovery([])) == 0


def test_all_true_hypotheses_are_rarely_rejected() -> None:
    rng = np.random.default_rng(0)
    any_rejected = [(false_discovery(rng.random(10)) <= 0.05).any() for _ in range(2000)]
    assert np.mean(any_rejected) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
