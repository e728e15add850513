"""Evidence of groups of records: sums against a loop, the spread against known truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm

from unaudit.stats import auc, auc_interval, group_spread, group_sums

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def people(
    rng: np.random.Generator, sizes: IntArray, alike: float, effect: float = 0.0
) -> tuple[FloatArray, IntArray]:
    """Scores of variance 1 whose correlation within a person is ``alike``, and whose they are."""
    whose = np.repeat(np.arange(len(sizes)), sizes)
    common = rng.normal(size=len(sizes))[whose]
    own = rng.normal(size=len(whose))
    return effect + np.sqrt(alike) * common + np.sqrt(1 - alike) * own, whose


def test_sums_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(5)
    ratios = rng.normal(size=30)
    whose = rng.choice(np.array(["ann", "bob", "cy"]), 30)
    found = group_sums(ratios, whose)
    expected: dict[str, list[float]] = {}
    for one, ratio in zip(whose.tolist(), ratios.tolist(), strict=True):
        expected.setdefault(one, []).append(ratio)
    assert found.names.tolist() == sorted(expected)
    np.testing.assert_allclose(found.sums, [sum(expected[name]) for name in found.names])
    assert found.sizes.tolist() == [len(expected[name]) for name in found.names]
    with pytest.raises(ValueError, match="29 group labels for 30 scores"):
        group_sums(ratios, whose[:-1])


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.8])
def test_the_spread_is_found_without_bias(alike: float) -> None:
    rng = np.random.default_rng(1)
    sizes = np.tile([1, 2, 3, 5, 9], 40)
    found = [group_spread(*people(rng, sizes, alike)) for _ in range(100)]
    assert np.mean([one.within for one in found]) == pytest.approx(1 - alike, abs=0.02)
    # negative estimates are set to 0, which lifts the mean where the truth is 0
    assert np.mean([one.between for one in found]) == pytest.approx(alike, abs=0.03)
    assert abs(np.mean([one.mean for one in found])) < 0.03


def test_groups_of_one_record_are_plain_records() -> None:
    scores = np.random.default_rng(2).normal(3.0, 2.0, 50)
    spread = group_spread(scores, np.arange(50))
    assert spread.between == 0.0
    assert spread.within == pytest.approx(scores.var(ddof=1))
    z = spread.standardized(group_sums(scores, np.arange(50)))
    np.testing.assert_allclose(z, (scores - scores.mean()) / scores.std(ddof=1))


def test_groups_of_one_size_keep_the_order_of_their_sums() -> None:
    scores, whose = people(np.random.default_rng(3), np.full(30, 4), 0.5)
    sums = group_sums(scores, whose)
    z = group_spread(scores, whose).standardized(sums)
    np.testing.assert_array_equal(np.argsort(z), np.argsort(sums.sums))


def test_equal_scores_stand_out_nowhere() -> None:
    whose = np.arange(40) // 2
    spread = group_spread(np.ones(40), whose)
    assert not spread.standardized(group_sums(np.ones(40), whose)).any()
    with pytest.raises(ValueError, match="at least two of them, got 1"):
        group_spread(np.ones(3), np.zeros(3))


def test_large_groups_of_alike_records_do_not_stand_out_by_their_size() -> None:
    """Persons with 20 records each beside never-trained ones with 2: how many lie above 95 % of
    those; the plain sum over √n, and bundles of strangers as a reference, claim too much."""
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(60):
        sums = group_sums(*people(rng, np.full(40, 20), alike=0.3))
        unseen, whose = people(rng, np.full(150, 2), alike=0.3)
        spread = group_spread(unseen, whose)
        others = spread.standardized(group_sums(unseen, whose))
        plain = group_sums(unseen, whose).sums / np.sqrt(2)
        bundles = unseen[rng.permutation(300)].reshape(15, 20).sum(axis=1) / np.sqrt(20)
        above = [
            np.mean(spread.standardized(sums) > np.quantile(others, 0.95)),
            np.mean(sums.sums / np.sqrt(20) > np.quantile(plain, 0.95)),
            np.mean(sums.sums / np.sqrt(20) > np.quantile(bundles, 0.95)),
        ]
        shares.append(above)
    own, by_size, by_bundles = np.mean(shares, axis=0)
    assert own == pytest.approx(0.05, abs=0.025)
    assert by_size > 0.15
    assert by_bundles > 0.15


@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_intervals_cover_chance_where_nobody_was_trained_on(alike: float) -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(200):
        forget = people(rng, rng.integers(1, 12, 25), alike)
        unseen = people(rng, rng.integers(1, 6, 60), alike)
        spread = group_spread(*unseen)
        z = [spread.standardized(group_sums(*own)) for own in (forget, unseen)]
        interval = auc_interval(*z, 0.9)
        covered += interval.low <= 0.5 <= interval.high
    # 180 expected; 168 is the 0.3 % quantile
    assert covered >= 168


def test_evidence_adds_up() -> None:
    """Against the closed form: sums of nine are 4½ apart, of variance 9 · .9 + 81 · .1."""
    rng = np.random.default_rng(7)
    single, together = [], []
    for _ in range(30):
        forget = people(rng, np.full(200, 9), 0.1, effect=0.5)
        unseen = people(rng, np.full(200, 9), 0.1)
        spread = group_spread(*unseen)
        together.append(auc(*(spread.standardized(group_sums(*own)) for own in (forget, unseen))))
        single.append(auc(forget[0], unseen[0]))
    assert np.mean(single) == pytest.approx(norm.cdf(0.5 / np.sqrt(2)), abs=0.01)
    assert np.mean(together) == pytest.approx(norm.cdf(4.5 / np.sqrt(2 * 16.2)), abs=0.015)
