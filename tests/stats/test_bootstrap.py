from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unaudit.evidence import FloatArray
from unaudit.stats import (
    JointBootstrap,
    auc,
    bootstrap,
    influence_auc,
    influence_mean,
    multinomial_counts,
    paired_bootstrap,
    placements,
)

RateCheck = Callable[..., bool]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_counts_are_resamples() -> None:
    counts = multinomial_counts(50, 4000, rng(0))
    assert counts.shape == (4000, 50)
    assert np.all(counts.sum(axis=1) == 50)
    # Var = 1 − 1/n, Cov = −1/n
    covariance = np.cov(counts.T)
    assert np.diag(covariance).mean() == pytest.approx(0.98, abs=0.02)
    assert covariance[~np.eye(50, dtype=bool)].mean() == pytest.approx(-0.02, abs=1e-3)


def test_counts_read_in_chunks_are_the_same() -> None:
    whole = multinomial_counts(37, 100, rng(1))
    stream = rng(1)
    parts = [multinomial_counts(37, size, stream) for size in (1, 60, 39)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_linear_replicates_equal_the_resampled_statistic() -> None:
    """Same counts, naive loop: the mean is linear (but for √(n/(n−1))), the AUC nearly."""
    values = rng(2).exponential(size=80)
    joint = JointBootstrap({"forget": 80}, 200, rng(3))
    joint.add("forget", influence_mean(values), column=0)
    seed = [int(word) for word in rng(3).integers(0, 1 << 32, size=4)]
    stream = np.random.default_rng([*seed, *bootstrap._words("forget")])
    naive = [
        np.repeat(values, counts.astype(int)).mean() - values.mean()
        for counts in multinomial_counts(80, 200, stream)
    ]
    assert joint.run()[:, 0] == pytest.approx(np.sqrt(80 / 79) * np.array(naive), abs=1e-9)


def test_auc_replicates_follow_the_resampled_auc() -> None:
    positive, negative = rng(4).normal(0.7, 1, 150), rng(5).normal(0, 1, 200)
    on_positive, on_negative = influence_auc(positive, negative)
    stream = rng(6)
    linear, naive = [], []
    for _ in range(300):
        p, n = stream.integers(0, 150, 150), stream.integers(0, 200, 200)
        linear.append(on_positive[p].mean() + on_negative[n].mean())
        naive.append(auc(positive[p], negative[n]) - auc(positive, negative))
    assert np.corrcoef(linear, naive)[0, 1] > 0.995
    assert np.std(linear) == pytest.approx(np.std(naive), rel=0.03)


def test_spread_is_the_unbiased_standard_error() -> None:
    """DeLong's for the AUC, s/√n for a mean over a few rows only."""
    positive, negative = rng(7).normal(0.7, 1, 25), rng(8).normal(0, 1, 40)
    joint = JointBootstrap({"forget": 60, "unseen": 40}, 20_000, rng(9))
    on_positive, on_negative = influence_auc(positive, negative)
    rows = rng(10).permutation(60)[:25]
    joint.add("forget", on_positive, rows=rows, column=0)
    joint.add("unseen", on_negative, column=0)
    joint.add("forget", influence_mean(positive), rows, column=1)
    spread = joint.run().std(axis=0)
    of_positive, of_negative = placements(positive, negative)
    delong = np.sqrt(of_positive.var(ddof=1) / 25 + of_negative.var(ddof=1) / 40)
    assert spread == pytest.approx([delong, positive.std(ddof=1) / 5], rel=0.02)


def test_columns_share_their_resamples() -> None:
    """Equal examples move together, whatever the model; different groups do not."""
    values = rng(11).normal(size=300)
    joint = JointBootstrap({"forget": 300, "unseen": 300}, 500, rng(12))
    joint.add("forget", influence_mean(values), column=0)
    joint.add("forget", influence_mean(3 * values), column=1)
    joint.add("unseen", influence_mean(values), column=2)
    deviations = joint.run()
    assert deviations[:, 1] == pytest.approx(3 * deviations[:, 0], abs=1e-9)
    assert abs(np.corrcoef(deviations[:, 0], deviations[:, 2])[0, 1]) < 0.2


def many_columns(
    seed: int, width: int, sizes: dict[str, int], replicates: int = 64
) -> JointBootstrap:
    joint = JointBootstrap(sizes, replicates, rng(seed))
    for column in range(width):
        for group, size in sizes.items():
            joint.add(group, rng(seed, column, size).normal(size=size), column=column)
    return joint


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(2, 70), st.integers(1, 4000))
@settings(max_examples=30)
def test_same_bits_for_every_chunk_size(seed: int, width: int, size: int, chunk: int) -> None:
    sizes = {"forget": size, "unseen": 31}
    expected = many_columns(seed, width, sizes).run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "CHUNK_ELEMENTS", chunk)
        assert np.array_equal(many_columns(seed, width, sizes).run(), expected)


@given(st.integers(0, 1000), st.integers(2, 9))
@settings(max_examples=20)
def test_other_columns_and_groups_change_no_bit(seed: int, width: int) -> None:
    few = many_columns(seed, 1, {"forget": 40}).run()
    many = JointBootstrap({"retain": 90, "forget": 40, "unseen": 20}, 64, rng(seed))
    for column in reversed(range(width)):
        many.add("forget", rng(seed, column, 40).normal(size=40), column=column)
    many.add("unseen", rng(0).normal(size=20) * 1e9, column=width - 1)
    assert np.array_equal(many.run()[:, 0], few[:, 0])


def test_rounding_to_integers_is_harmless() -> None:
    """Against plain float64, with influences over nine orders of magnitude."""
    size = 5000
    phi = rng(13).normal(size=size) * 10.0 ** rng(14).uniform(-9, 0, size)
    joint = JointBootstrap({"forget": size}, 100, rng(15))
    joint.add("forget", phi, column=0)
    seed = [int(word) for word in rng(15).integers(0, 1 << 32, size=4)]
    counts = multinomial_counts(
        size, 100, np.random.default_rng([*seed, *bootstrap._words("forget")])
    )
    centered = (phi - phi.mean()) * np.sqrt(size / (size - 1))
    exact = (counts - 1) @ centered / size
    assert joint.run()[:, 0] == pytest.approx(exact, abs=1e-11 * exact.std() * np.sqrt(size))


def test_parts_of_a_column_add_up() -> None:
    """A comparative probe adds one part per reference, over rows of its own."""
    first, second = rng(16).normal(size=20), rng(17).normal(size=10)
    together = JointBootstrap({"forget": 30}, 50, rng(18))
    together.add("forget", first, rows=np.arange(20), column=0)
    together.add("forget", second, rows=np.arange(5, 15), column=0)
    apart = JointBootstrap({"forget": 30}, 50, rng(18))
    apart.add("forget", first, rows=np.arange(20), column=0)
    apart.add("forget", second, rows=np.arange(5, 15), column=1)
    assert together.run()[:, 0] == pytest.approx(apart.run().sum(axis=1), abs=1e-12)


def test_untouched_columns_stay_zero_and_unknown_ones_are_not_zero() -> None:
    joint = JointBootstrap({"forget": 4, "unseen": 1}, 10, rng(0))
    joint.add("forget", [1.0, 2.0, 3.0, 4.0], column=1)
    joint.add("unseen", [0.0], column=2)
    deviations = joint.run(4)
    assert deviations.shape == (10, 4)
    assert np.all(deviations[:, [0, 3]] == 0)
    assert np.all(deviations[:, 1] != 0) or deviations[:, 1].std() > 0
    assert np.isnan(deviations[:, 2]).all()


def test_constant_scores_do_not_deviate() -> None:
    joint = JointBootstrap({"forget": 50}, 20, rng(0))
    joint.add("forget", influence_mean(np.full(50, 0.1)), column=0)
    assert joint.run()[:, 0] == pytest.approx(np.zeros(20), abs=1e-15)


def test_refuses_rows_that_do_not_fit() -> None:
    joint = JointBootstrap({"forget": 4}, 10, rng(0))
    with pytest.raises(ValueError, match="3 influences for 4"):
        joint.add("forget", [1.0, 2.0, 3.0], column=0)
    with pytest.raises(ValueError, match="finite"):
        joint.add("forget", [1.0, np.inf, 0.0, 0.0], column=0)
    with pytest.raises(ValueError, match="rows outside"):
        joint.add("forget", [1.0, 2.0], rows=[0, 4], column=0)


def test_paired_bootstrap_pairs_models_over_examples() -> None:
    """Two models that err on the same hard examples differ by .1: pairing sees it, or nothing."""
    hard = rng(19).normal(size=(60, 1)) * 5
    groups = [hard + np.array([[0.1, 0.0]]) + 0.05 * rng(20).normal(size=(60, 2))]
    interval = paired_bootstrap(
        lambda g: float(g[:, 0].mean() - g[:, 1].mean()), groups, 500, rng(21), 0.95
    )
    assert 0.05 < interval.low < interval.estimate < interval.high < 0.15
    assert interval.level == 0.95


def test_paired_bootstrap_keeps_groups_apart_and_its_seed() -> None:
    groups = [rng(22).normal(1, 1, 40), rng(23).normal(0, 1, 70)]
    first = paired_bootstrap(auc, groups, 300, rng(24), 0.9)
    assert paired_bootstrap(auc, groups, 300, rng(24), 0.9) == first
    assert first.low < first.estimate < first.high <= 1.0


def test_paired_bootstrap_of_a_constant_has_no_width() -> None:
    interval = paired_bootstrap(lambda g: float(g.mean()), [np.ones(10)], 50, rng(0), 0.95)
    assert (interval.low, interval.estimate, interval.high) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="two examples"):
        paired_bootstrap(lambda g: float(g.mean()), [np.ones(1)], 50, rng(0), 0.95)


def test_blocks_of_the_jackknife_give_nearly_its_acceleration() -> None:
    values = rng(25).exponential(size=2000)
    blocks = bootstrap._jackknife(lambda g: float(g.mean()), [values], 0)
    assert len(blocks) == bootstrap.JACKKNIFE_BLOCKS
    exact = (values - values.mean()) / 2000
    assert np.sqrt((blocks**2).sum()) == pytest.approx(np.sqrt((exact**2).sum()), rel=0.15)


def mean_of(g: FloatArray) -> float:
    return float(g.sum() / len(g))


DRAWS: dict[str, tuple[float, Callable[[np.random.Generator], FloatArray]]] = {
    "normal": (0.0, lambda stream: stream.normal(size=50)),
    "skewed": (1.0, lambda stream: stream.exponential(size=50)),
    "bounded": (0.2, lambda stream: stream.beta(0.5, 2, size=50)),
}


def covered(shape: str, replicates: int, repeats: int) -> int:
    true, draw = DRAWS[shape]
    stream = rng(26)
    hits = 0
    for _ in range(repeats):
        interval = paired_bootstrap(mean_of, [draw(stream)], replicates, stream, 0.95)
        hits += interval.low <= true <= interval.high
    return hits


@pytest.mark.parametrize("shape", DRAWS)
def test_coverage_lies_between_93_and_97_percent(shape: str, compatible: RateCheck) -> None:
    hits = covered(shape, replicates=300, repeats=500)
    assert compatible(hits, 500, at_least=0.93, at_most=0.97), hits


@pytest.mark.slow
@pytest.mark.parametrize("shape", DRAWS)
def test_coverage_at_full_length(shape: str, compatible: RateCheck) -> None:
    hits = covered(shape, replicates=1000, repeats=3000)
    assert compatible(hits, 3000, at_least=0.93, at_most=0.97), hits


@pytest.mark.slow
def test_coverage_of_a_ratio_over_two_groups(compatible: RateCheck) -> None:
    """A residual index of means: three models, shared difficulty of the examples."""
    stream = rng(27)
    hits = 0
    for _ in range(1500):
        forget = stream.normal(size=(80, 1)) + stream.normal([0.3, 1.0, 0.0], 0.8, (80, 3))
        unseen = stream.normal(size=(60, 1)) + stream.normal(0.0, 0.8, (60, 3))

        def index(f: FloatArray, u: FloatArray) -> float:
            subject, original, retrained = f.mean(axis=0) - u.mean(axis=0)
            return float((subject - retrained) / (original - retrained))

        interval = paired_bootstrap(index, [forget, unseen], 600, stream, 0.95)
        hits += interval.low <= 0.3 <= interval.high
    assert compatible(hits, 1500, at_least=0.93, at_most=0.97), hits


@pytest.mark.slow
def test_thousands_of_replicates_in_seconds_and_bounded_memory() -> None:
    joint = many_columns(0, 100, {"forget": 10_000}, replicates=2000)
    tracemalloc.start()
    start = time.perf_counter()
    joint.run()
    assert time.perf_counter() - start < 10
    # counts of all replicates alone would take 160 MB
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
