"""Random halves: even in every group, and fair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from unaudit.shadows._halves import half, matched, split

seeds = st.integers(0, 2**32 - 1)
labels = st.lists(st.integers(0, 5), min_size=1, max_size=60)


def levels(fine: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Groups, pairs of groups, and all."""
    groups = np.array(fine, dtype=np.int64)
    return [groups, groups // 2, np.zeros_like(groups)]


def uneven(chosen: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> int:
    """By how much the sides of a group differ, at most."""
    return max(abs(int((2 * chosen[groups == one] - 1).sum())) for one in np.unique(groups))


@given(labels, seeds)
def test_all_but_one_of_a_group_have_a_partner(fine: list[int], seed: int) -> None:
    partner = matched(levels(fine), np.random.default_rng(seed))
    assert (partner[partner] == np.arange(len(fine))).all()
    for groups in levels(fine):
        for one in np.unique(groups):
            inside = np.flatnonzero(groups == one)
            alone = (partner[inside] == inside) | (groups[partner[inside]] != one)
            assert alone.sum() == len(inside) % 2


@given(labels, seeds)
def test_a_half_is_even_at_every_level(fine: list[int], seed: int) -> None:
    chosen = half(levels(fine), np.random.default_rng(seed))
    for groups in levels(fine):
        assert uneven(chosen, groups) <= 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=80), seeds)
def test_a_split_is_even_in_both_ways(edges: list[tuple[int, int]], seed: int) -> None:
    one, fine = (np.array(side, dtype=np.int64) for side in zip(*edges, strict=True))
    chosen = split([one], levels(fine.tolist()), np.random.default_rng(seed))
    for groups in (one, *levels(fine.tolist())):
        assert uneven(chosen, groups) <= 1
        _, counts = np.unique(groups, return_counts=True)
        if (counts % 2 == 0).all():
            assert uneven(chosen, groups) == 0


def test_everybody_is_chosen_half_of_the_time() -> None:
    groups = levels([0, 0, 0, 1, 1, 1, 2, 3, 3])
    ones = [np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])]
    generators = [np.random.default_rng(seed) for seed in range(1500)]
    halves = np.array([half(groups, rng) for rng in generators])
    splits = np.array([split(ones, groups, rng) for rng in generators])
    # 4.5 standard errors of a share
    error = 4.5 * 0.5 / len(generators) ** 0.5
    for chosen in (halves, splits):
        assert np.abs(chosen.mean(axis=0) - 0.5).max() < error
    # of three, any two are partners as often as any other two, and else on either side
    for a, b in ((3, 4), (3, 5), (4, 5)):
        assert abs((halves[:, a] != halves[:, b]).mean() - (1 / 3 + 2 / 3 / 2)) < error
