"""Drawing and dealing rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attacks.white_box._rows import deal, proportional, some

strata = st.lists(st.integers(0, 4), min_size=1, max_size=200).map(np.array)


@given(n=st.integers(0, 50), most=st.integers(1, 60), seed=st.integers(0, 99))
def test_some_are_distinct_and_in_order(n: int, most: int, seed: int) -> None:
    rows = np.arange(n) * 3
    chosen = some(rows, most, np.random.default_rng(seed))
    assert len(chosen) == min(n, most)
    assert (np.diff(chosen) > 0).all()
    assert np.isin(chosen, rows).all()


@given(strata=strata, most=st.integers(1, 250), least=st.integers(1, 20), seed=st.integers(0, 99))
def test_strata_keep_their_share(strata: np.ndarray, most: int, least: int, seed: int) -> None:
    chosen = proportional(strata, most, np.random.default_rng(seed), least)
    assert (np.diff(chosen) > 0).all()
    if len(strata) <= most:
        assert len(chosen) == len(strata)
        return
    for stratum, size in zip(*np.unique(strata, return_counts=True), strict=True):
        wanted = max(round(most * size / len(strata)), least)
        assert (strata[chosen] == stratum).sum() == min(wanted, size)


@given(strata=strata, hands=st.integers(2, 7), seed=st.integers(0, 99))
def test_strata_are_dealt_evenly(strata: np.ndarray, hands: int, seed: int) -> None:
    dealt = deal(strata, hands, np.random.default_rng(seed))
    assert ((dealt >= 0) & (dealt < hands)).all()
    for stratum in np.unique(strata):
        counts = np.bincount(dealt[strata == stratum], minlength=hands)
        assert counts.max() - counts.min() <= 1


def test_small_strata_do_not_all_go_to_the_first_hand() -> None:
    dealt = deal(np.arange(500), 2, np.random.default_rng(0))
    assert 200 < dealt.sum() < 300
