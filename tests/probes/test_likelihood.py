"""Likelihood ratios: agreement with the published code, invariances, extremes, streaming."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from attacks.black_box import _likelihood
from attacks.black_box._likelihood import (
    EPSILON,
    Examples,
    Variance,
    bounded,
    fit,
    fit_arms,
    likelihood_ratios,
    posterior,
    resolve,
)
from attacks.black_box.lira import offline_scores
from unaudit.evidence import FloatArray

from .shadow_worlds import halves
from .worlds import auc

SEEDS = st.integers(0, 2**32 - 1)


class Arrays:
    """Scores of m models on q queries of n examples, and half-and-half membership."""

    def __init__(self, seed: int, m: int = 16, q: int = 2, n: int = 40) -> None:
        rng = np.random.default_rng(seed)
        self.keep = halves(m, n, rng)
        worth, noise = rng.normal(3.0, 2.0, n), rng.uniform(0.3, 2.0, n)
        self.scores = worth + noise * (rng.normal(size=(m, q, n)) + 0.8 * self.keep[:, None])
        self.own = worth + noise * (rng.normal(size=(q, n)) + 0.8 * (np.arange(n) % 2))

    def ratios(self, variance: Variance = "per-example", **options: Any) -> FloatArray:
        return likelihood_ratios(
            self.own, self.scores, self.keep, ~self.keep, variance=variance, **options
        )


def published(
    arrays: Arrays, center: Any, shared: bool, online: bool, slip: bool = False
) -> FloatArray:
    """The published attack, example by example; high for members, which theirs is low for.

    Args:
        shared: one standard deviation of everything, ``fix_variance``.
        slip: take that of the members for both arms, as their online code does.
    """
    n = arrays.scores.shape[2]
    split = [
        (arrays.scores[arrays.keep[:, j], :, j], arrays.scores[~arrays.keep[:, j], :, j])
        for j in range(n)
    ]
    all_in, all_out = np.array([one for one, _ in split]), np.array([one for _, one in split])
    found = []
    for j, (one, other) in enumerate(split):
        spread_in = np.std(all_in) if shared else np.std(one, axis=0)
        spread_out = np.std(all_in if slip else all_out) if shared else np.std(other, axis=0)
        own = arrays.own[:, j]
        under_out = norm.logpdf(own, center(other, axis=0), spread_out + 1e-30)
        under_in = norm.logpdf(own, center(one, axis=0), spread_in + 1e-30)
        found.append(float(np.mean(under_in - under_out if online else -under_out)))
    return np.array(found)


@pytest.mark.parametrize(("m", "q"), [(16, 1), (18, 3), (4, 2)])
@pytest.mark.parametrize("center", ["median", "mean"])
@pytest.mark.parametrize("variance", ["per-example", "global"])
def test_agrees_with_the_published_code(m: int, q: int, center: Any, variance: Variance) -> None:
    arrays = Arrays(m, m, q)
    middle = np.median if center == "median" else np.mean
    shared = variance == "global"
    expected = published(arrays, middle, shared, online=True)
    np.testing.assert_allclose(
        arrays.ratios(variance, center=center), expected, rtol=1e-12, atol=1e-12
    )
    examples = Examples(arrays.own, arrays.scores, (~arrays.keep,))
    _, [(never,)] = fit([examples], center, variance, EPSILON)
    expected = published(arrays, middle, shared, online=False)
    np.testing.assert_allclose(
        offline_scores(arrays.own, never, "density"), expected, rtol=1e-12, atol=1e-12
    )


def test_the_published_slip_is_not_repeated() -> None:
    """With one standard deviation for all, theirs takes the members' for both arms."""
    arrays = Arrays(0)
    arrays.scores[~np.repeat(arrays.keep[:, None], 2, axis=1)] *= 0.5
    slip = published(arrays, np.median, shared=True, online=True, slip=True)
    right = published(arrays, np.median, shared=True, online=True)
    assert np.abs(slip - right).max() > 0.1
    np.testing.assert_allclose(arrays.ratios("global"), right, rtol=1e-12)


def test_one_sided_is_the_papers_probability() -> None:
    """Λ = 1 − Pr[Z > own], §VI; the score is its normal quantile."""
    arrays = Arrays(1, q=1)
    _, [(never,)] = fit(
        [Examples(arrays.own, arrays.scores, (~arrays.keep,))], "median", "per-example", EPSILON
    )
    score = offline_scores(arrays.own, never, "one-sided")
    for j in range(len(score)):
        out = arrays.scores[~arrays.keep[:, j], 0, j]
        expected = norm.cdf(arrays.own[0, j], np.median(out), np.std(out))
        assert norm.cdf(score[j]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("center", ["median", "mean"])
def test_arms_of_unequal_size(center: Any) -> None:
    """Theirs cuts all arms to the smallest; here every model counts."""
    rng = np.random.default_rng(2)
    scores, own = rng.normal(size=(11, 1, 50)), rng.normal(size=(1, 50))
    keep = rng.random((11, 50)) < 0.4
    keep[:2], keep[2:4] = True, False
    found = likelihood_ratios(own, scores, keep, ~keep, center=center, variance="per-example")
    middle = np.median if center == "median" else np.mean
    for j in range(50):
        one, other = scores[keep[:, j], 0, j], scores[~keep[:, j], 0, j]
        expected = norm.logpdf(own[0, j], middle(one), one.std()) - norm.logpdf(
            own[0, j], middle(other), other.std()
        )
        assert found[j] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_pooled_variance_is_that_within_examples() -> None:
    """Of several parts together; spread between examples is not in it, and it is unbiased."""
    rng = np.random.default_rng(3)
    parts, within = [], []
    for n in (900, 600):
        keep = halves(6, n, rng)
        scores = rng.normal(size=(6, 1, n)) * 0.7 + rng.normal(0, 50, n)
        parts.append(Examples(rng.normal(size=(1, n)), scores, (keep, ~keep)))
        within += [np.var(scores[keep[:, j], 0, j], ddof=1) for j in range(n)]
    chosen, fitted = fit(parts, "median", "pooled", EPSILON)
    assert chosen == "pooled"
    for trained, _ in fitted:
        assert trained.spread.item() == pytest.approx(np.sqrt(np.mean(within)), rel=1e-12)
    assert fitted[0][0].spread.item() == pytest.approx(0.7, rel=0.05)


def test_automatic_variance_goes_by_the_smaller_arm() -> None:
    rng = np.random.default_rng(4)

    def chosen(m: int, share: float) -> str:
        keep = rng.permuted(np.tile(np.arange(m) < share * m, (200, 1)), axis=1).T
        arms = fit_arms(rng.normal(size=(m, 1, 200)), (keep, ~keep))
        assert resolve("global", [arms]) == "global"
        return resolve("auto", [arms])

    assert chosen(62, 0.5) == "pooled"
    assert chosen(64, 0.5) == "per-example"
    assert chosen(128, 0.2) == "pooled"


@given(SEEDS)
def test_the_order_of_shadow_models_does_not_matter(seed: int) -> None:
    arrays = Arrays(seed)
    expected = arrays.ratios("pooled")
    order = np.random.default_rng(seed).permutation(len(arrays.keep))
    arrays.scores, arrays.keep = arrays.scores[order], arrays.keep[order]
    np.testing.assert_allclose(arrays.ratios("pooled"), expected, rtol=1e-9, atol=1e-9)


@given(SEEDS, st.floats(-50, 50), st.floats(0.1, 10))
def test_a_common_shift_and_scale_do_not_matter(seed: int, shift: float, scale: float) -> None:
    arrays = Arrays(seed)
    expected = arrays.ratios()
    arrays.scores, arrays.own = scale * arrays.scores + shift, scale * arrays.own + shift
    np.testing.assert_allclose(arrays.ratios(), expected, rtol=1e-6, atol=1e-6)


@given(SEEDS)
def test_examples_are_judged_each_by_itself(seed: int) -> None:
    arrays = Arrays(seed)
    expected = arrays.ratios()
    arrays.scores[:, :, ::2] = 0.0
    np.testing.assert_array_equal(arrays.ratios()[1::2], expected[1::2])


@given(SEEDS)
def test_swapped_arms_swap_the_sign(seed: int) -> None:
    arrays = Arrays(seed)
    expected = -arrays.ratios("pooled")
    arrays.keep = ~arrays.keep
    np.testing.assert_allclose(arrays.ratios("pooled"), expected, rtol=1e-12, atol=1e-12)


@given(SEEDS)
def test_a_repeated_query_adds_nothing(seed: int) -> None:
    arrays = Arrays(seed, q=1)
    expected = arrays.ratios("pooled")
    arrays.scores, arrays.own = np.tile(arrays.scores, (1, 3, 1)), np.tile(arrays.own, (3, 1))
    np.testing.assert_allclose(arrays.ratios("pooled"), expected, rtol=1e-12, atol=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.floats(0.5, 20))
def test_bounded_keeps_order_and_the_middle(values: list[float], clip: float) -> None:
    ratios = np.array(values)
    found = bounded(ratios, clip)
    assert np.abs(found).max() <= clip + 1.0
    inner = np.abs(ratios) <= clip
    np.testing.assert_array_equal(found[inner], ratios[inner])
    ordered = np.argsort(ratios)
    assert (np.diff(found[ordered]) >= 0).all()
    np.testing.assert_array_equal(bounded(-ratios, clip), -found)


def test_bounded_tells_clear_members_apart() -> None:
    far = np.array([6.0, 60.0, 600.0, 6000.0])
    assert (np.diff(bounded(far, 5.0)) > 0).all()
    assert bounded(np.array([np.inf, -np.inf]), 5.0).tolist() == [6.0, -6.0]


def test_posterior_is_stable() -> None:
    ratios = np.array([-1e4, -2.0, 0.0, 2.0, 1e4])
    p_in, p_out = np.exp([-2.0, 0.0]), np.exp([0.0, -2.0])
    expected = [0.0, *(p_in / (p_in + p_out)).tolist()[:1], 0.5, *(p_out / (p_in + p_out))[:1], 1.0]
    np.testing.assert_allclose(posterior(ratios), expected, rtol=1e-12)


def test_the_mean_difference_is_the_divergence_of_the_arms() -> None:
    """For N(δ, 1) against N(0, 1) members exceed others by δ² on average."""
    rng = np.random.default_rng(7)
    n, m, shift = 4000, 400, 0.8
    keep = halves(m, n, rng)
    scores = (rng.normal(size=(m, 1, n)) + shift * keep[:, None]).astype(np.float32)
    never = rng.normal(size=(1, n))
    ratios = [
        likelihood_ratios(own, scores, keep, ~keep, center="mean", variance="pooled")
        for own in (never + shift, never)
    ]
    assert float(np.mean(ratios[0] - ratios[1])) == pytest.approx(shift**2, rel=0.03)


def test_several_queries_see_more() -> None:
    """Where queries carry noise of their own, averaging their log-ratios helps."""
    rng = np.random.default_rng(8)
    keep = halves(64, 2000, rng)
    scores = rng.normal(size=(64, 8, 2000)) + 0.6 * keep[:, None]
    own = rng.normal(size=(8, 2000)) + 0.6 * (np.arange(2000) < 1000)

    def power(queries: int) -> float:
        ratios = likelihood_ratios(own[:queries], scores[:, :queries], keep, ~keep)
        return auc(ratios[:1000], ratios[1000:])

    assert power(8) > power(1) + 0.15


def test_answers_without_spread_or_bound() -> None:
    """Arms of equal answers, answers of ±∞: finite, and on the right side."""
    keep = np.tile((np.arange(8) < 4)[:, None], (1, 5))
    scores = np.where(keep, 3.0, 1.0)[:, None].astype(np.float32)
    scores[:, 0, 3] = np.where(keep[:, 3], np.inf, -np.inf)
    scores[:, 0, 4] = 2.0
    own = np.array([[3.0, 1.0, 2.0, np.inf, 7.0]])
    for variance in ("per-example", "pooled", "global"):
        ratios = likelihood_ratios(own, scores, keep, ~keep, variance=variance)  # type: ignore[arg-type]
        assert np.isfinite(ratios).all()
        if variance == "per-example":
            assert ratios[0] > 1e50
            assert ratios[1] < -1e50
            assert ratios[2] == 0.0
            assert ratios[3] > 1e50
            assert ratios[4] == 0.0
            assert np.abs(bounded(ratios, 5.0)).max() == 6.0


def test_an_arm_of_one_model_says_nothing() -> None:
    rng = np.random.default_rng(16)
    keep = halves(8, 6, rng)
    keep[:, 0], keep[:, 1] = np.arange(8) == 5, False
    ratios = likelihood_ratios(rng.normal(size=(1, 6)), rng.normal(size=(8, 1, 6)), keep, ~keep)
    np.testing.assert_array_equal(np.isnan(ratios), [True, True, False, False, False, False])


def test_a_shadow_model_that_answers_nan_is_named() -> None:
    arrays = Arrays(0)
    arrays.scores[4, 1, 20] = np.nan
    with pytest.raises(ValueError, match="shadow model 5 answers NaN"):
        arrays.ratios()


def mapped(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    np.save(path, values)
    return np.load(path, mmap_mode="r")


def test_streams_memory_mapped_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(17)
    m, q, n = 16, 2, 3000
    keep = halves(m, n, rng)
    scores, own = rng.normal(size=(m, q, n)).astype(np.float32), rng.normal(size=(q, n))
    whole = likelihood_ratios(own, scores, keep, ~keep, variance="pooled")
    monkeypatch.setattr(_likelihood, "CHUNK_ELEMENTS", m * 77)
    files = [
        mapped(tmp_path / f"{name}.npy", values)
        for name, values in (("scores", scores), ("in", keep), ("out", ~keep))
    ]
    found = likelihood_ratios(own, *files, variance="pooled")
    np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-12)
    some = np.sort(rng.choice(n, 1000, replace=False))
    of_some = likelihood_ratios(own[:, some], *files, columns=some, variance="per-example")
    every = likelihood_ratios(own, scores, keep, ~keep, variance="per-example")
    np.testing.assert_array_equal(of_some, every[some])


def test_memory_does_not_grow_with_the_number_of_models(tmp_path: Path) -> None:
    """What is held besides a few numbers per example is one chunk."""
    peaks = []
    for m in (32, 128):
        scores = np.lib.format.open_memmap(
            tmp_path / f"{m}.npy", mode="w+", dtype=np.float32, shape=(m, 1, 20_000)
        )
        keep = np.tile((np.arange(m) % 2 == 0)[:, None], (1, 20_000))
        out, own = ~keep, np.ones((1, 20_000))
        tracemalloc.start()
        likelihood_ratios(own, scores, keep, out, variance="per-example")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 15e6


def test_the_source_is_not_written_to() -> None:
    arrays = Arrays(0, n=1)
    arrays.scores.setflags(write=False)
    arrays.keep.setflags(write=False)
    arrays.own.setflags(write=False)
    assert np.isfinite(arrays.ratios()).all()
