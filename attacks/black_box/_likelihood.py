"""Gaussian likelihood ratios of examples under shadow models: arrays in, arrays out.

An *arm* of an example are the shadow models in one state towards it: trained on it, never trained
on it, made to forget it. Throughout, m shadow models answer q queries of each of k examples. Masks
say which model is in which arm of which example, so any design fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from unaudit.evidence import FloatArray, IntArray

Center: TypeAlias = Literal["median", "mean"]
Spread: TypeAlias = Literal["per-example", "pooled", "global"]
Variance: TypeAlias = Literal["auto", "per-example", "pooled", "global"]
"""Where the variance of an arm comes from:

``per-example``   its own shadow models, divided by their number, as published (Carlini et al. 2022)
``pooled``        all examples, each about its own mean, divided by the degrees of freedom
``global``        all scores of all examples and queries about their grand mean: ``fix_variance`` of
                  the published code, with the spread between examples in it
``auto``          ``pooled`` while the smaller arm has fewer than 32 models per example on average,
                  then ``per-example``
"""

Scored: TypeAlias = npt.NDArray[np.floating[Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]

EPSILON = 1e-30
"""Added to every standard deviation, as in the published code: an arm may have no spread."""
MIN_MODELS = 2
"""Of an arm: one model has no spread."""
PER_EXAMPLE_MODELS = 32
"""Of the smaller arm, from which on an example's own variance is the better estimate: 64 shadow
models, each trained on half of the examples."""
CHUNK_ELEMENTS = 1 << 17
"""Scores turned to float64 at a time: a few arrays of 1 MiB."""

LARGEST = float(np.finfo(np.float32).max)
"""Of the numbers that a score may be; what is beyond counts as this."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Scores of some examples by the model in question and by shadow models."""

    own: FloatArray
    """(q, k) of the model in question."""
    scores: Scored
    """(m, q, n) of the shadow models; may be memory-mapped."""
    arms: tuple[Mask, ...]
    """(m, n) each: which models belong to an arm of which example; may be memory-mapped."""
    columns: IntArray | None = None
    """(k,) which of the n examples; None: all, in order."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """One arm of every example as a normal distribution per query."""

    center: FloatArray
    """(q, k); NaN where the arm has fewer than ``MIN_MODELS`` models."""
    spread: FloatArray
    """(q, k), (q, 1) or (1, 1) standard deviation."""

    def log_density(self, own: FloatArray) -> FloatArray:
        """(q, k) log densities in nats."""
        standard = self.standardized(own)
        return np.asarray(-0.5 * standard**2 - np.log(self.spread) - 0.5 * np.log(2.0 * np.pi))

    def standardized(self, own: FloatArray) -> FloatArray:
        """(q, k) distances from the center in standard deviations."""
        bounded = np.clip(own, -LARGEST, LARGEST)
        return np.asarray((bounded - self.center) / self.spread)


@dataclass(frozen=True, eq=False)
class Arm:
    """The scores of one arm, summed up."""

    models: IntArray
    """(k,) int64: how many each example has."""
    center: FloatArray
    """(q, k) median or mean; NaN where there are fewer than ``MIN_MODELS`` models."""
    mean: FloatArray
    """(q, k); 0 where there is no model."""
    squares: FloatArray
    """(q, k) sum of the squared distances from the mean."""


def likelihood_ratios(
    own: FloatArray,
    scores: Scored,
    first: Mask,
    second: Mask,
    *,
    center: Center = "median",
    variance: Variance = "auto",
    epsilon: float = EPSILON,
    columns: IntArray | None = None,
) -> FloatArray:
    """(k,) log p(own | first arm) − log p(own | second arm) in nats.

    Of several queries it is the mean, each fitted on its own, as in the published code. Scores are
    read a chunk of examples at a time.

    Args:
        own, scores, columns: see :class:`Examples`.
        first: (m, n) models of the first arm; trained on the example, for LiRA.
        second: (m, n) models of the second arm; never trained on it.
        epsilon: added to every standard deviation.

    Returns:
        NaN for an example of which an arm has fewer than two models.

    Raises:
        ValueError: a shadow model answers NaN.
    """
    examples = Examples(own, scores, (first, second), columns)
    _, [(one, other)] = fit([examples], center, variance, epsilon)
    return log_ratios(own, one, other)


def fit(
    parts: Sequence[Examples], center: Center, variance: Variance, epsilon: float
) -> tuple[Spread, list[tuple[Gaussian, ...]]]:
    """The arms of every part as normal distributions; a shared variance is one of all parts.

    Returns:
        Where the variance came from; per part its arms, in their order.

    Raises:
        ValueError: a shadow model answers NaN.
    """
    summed = [
        fit_arms(part.scores, part.arms, center=center, columns=part.columns) for part in parts
    ]
    chosen = resolve(variance, summed)
    by_arm = [_spreads(arms, chosen, epsilon) for arms in zip(*summed, strict=True)]
    return chosen, [
        tuple(
            Gaussian(arm.center, spread[number]) for arm, spread in zip(arms, by_arm, strict=True)
        )
        for number, arms in enumerate(summed)
    ]


def log_ratios(own: FloatArray, first: Gaussian, second: Gaussian) -> FloatArray:
    """(k,) mean over the queries of log p(own | first) − log p(own | second)."""
    return np.asarray((first.log_density(own) - second.log_density(own)).mean(axis=0))


def fit_arms(
    scores: Scored,
    arms: Sequence[Mask],
    *,
    center: Center = "median",
    columns: IntArray | None = None,
) -> tuple[Arm, ...]:
    """Sum up every arm, a chunk of examples at a time.

    Raises:
        ValueError: a shadow model answers NaN.
    """
    m, q, n = scores.shape
    k = n if columns is None else len(columns)
    found = tuple(Arm(np.zeros(k, np.int64), *(np.zeros((q, k)) for _ in range(3))) for _ in arms)
    for rows, at in chunks(k, m, columns):
        inside = [np.ascontiguousarray(arm[:, at].T) for arm in arms]
        weights = [mask.astype(np.float64) for mask in inside]
        for arm, mask in zip(found, inside, strict=True):
            arm.models[rows] = mask.sum(axis=1)
        for query in range(q):
            block = np.clip(scores[:, query, at].T, -LARGEST, LARGEST, order="C")
            exact = block.astype(np.float64)
            for arm, mask, weight in zip(found, inside, weights, strict=True):
                _sum_up(arm, query, rows, block, exact, mask, weight, center)
            _refuse_nan(exact, found, query, rows)
    return found


def resolve(variance: Variance, parts: Sequence[Sequence[Arm]]) -> Spread:
    """Where the variance comes from, given the sizes of the arms."""
    if variance != "auto":
        return variance
    by_arm = zip(*parts, strict=True)
    sizes = [np.concatenate([arm.models for arm in arms]).mean() for arms in by_arm]
    # rounded: random halves of 64 models make arms of about 32
    return "pooled" if round(min(sizes)) < PER_EXAMPLE_MODELS else "per-example"


def bounded(ratios: FloatArray, clip: float) -> FloatArray:
    """Log-ratios with what lies beyond ±``clip`` pressed into one further nat, order kept.

    A mean of plain ones is decided by the few examples whose arm had little spread by chance; cut
    off hard, the clearest members would all look alike.
    """
    beyond = np.maximum(np.abs(np.clip(ratios, -1e300, 1e300)) - clip, 0.0)
    inner = np.clip(ratios, -clip, clip)
    return np.asarray(inner + np.sign(inner) * beyond / (1.0 + beyond))


def posterior(ratios: FloatArray) -> FloatArray:
    """p₁ / (p₁ + p₂) from log p₁ − log p₂, in [0, 1]; densities that underflow do no harm."""
    return np.asarray(expit(ratios), dtype=np.float64)


def chunks(k: int, m: int, columns: IntArray | None) -> Iterator[tuple[slice, slice | IntArray]]:
    """(where the results of a chunk go, where its examples are found)."""
    step = max(1, CHUNK_ELEMENTS // max(1, m))
    for start in range(0, k, step):
        rows = slice(start, min(start + step, k))
        yield rows, rows if columns is None else columns[rows]


def _sum_up(
    arm: Arm,
    query: int,
    rows: slice,
    block: Scored,
    exact: FloatArray,
    mask: Mask,
    weight: FloatArray,
    center: Center,
) -> None:
    """Write one query of a chunk of examples into ``arm``; arrays are (c, m)."""
    models = arm.models[rows]
    mean = np.einsum("cm,cm->c", exact, weight) / np.maximum(models, 1)
    apart = exact - mean[:, None]
    apart *= weight
    arm.mean[query, rows] = mean
    arm.squares[query, rows] = np.einsum("cm,cm->c", apart, apart)
    middle = mean if center == "mean" else _median(block, mask, models)
    arm.center[query, rows] = np.where(models >= MIN_MODELS, middle, np.nan)


def _median(block: Scored, mask: Mask, models: IntArray) -> FloatArray:
    """(c,) median of the marked entries of each row; infinite where none is."""
    ordered = np.where(mask, block, np.inf)
    ordered.sort(axis=1)
    each = np.arange(len(ordered))
    lower = ordered[each, np.maximum(models - 1, 0) // 2].astype(np.float64)
    upper = ordered[each, np.minimum(models // 2, ordered.shape[1] - 1)].astype(np.float64)
    return np.asarray((lower + upper) / 2.0)


def _refuse_nan(exact: FloatArray, found: Sequence[Arm], query: int, rows: slice) -> None:
    if any(np.isnan(arm.mean[query, rows]).any() for arm in found):
        broken = np.flatnonzero(np.isnan(exact).any(axis=0))
        raise ValueError(f"shadow model {broken[0] + 1} answers NaN: its training diverged")


def _spreads(arms: Sequence[Arm], variance: Spread, epsilon: float) -> list[FloatArray]:
    """Standard deviations of one arm in every part."""
    if variance == "per-example":
        return [np.sqrt(arm.squares / np.maximum(arm.models, 1)) + epsilon for arm in arms]
    if variance == "pooled":
        squares = np.sum([arm.squares.sum(axis=1) for arm in arms], axis=0)
        freedom = sum(int(np.maximum(arm.models - 1, 0).sum()) for arm in arms)
        pooled = np.sqrt(squares / max(freedom, 1))[:, None] + epsilon
        return [pooled for _ in arms]
    count = sum(int(arm.models.sum()) * len(arm.mean) for arm in arms) or 1
    middle = sum(float((arm.models * arm.mean).sum()) for arm in arms) / count
    total = sum(float((arm.squares + arm.models * (arm.mean - middle) ** 2).sum()) for arm in arms)
    return [np.full((1, 1), np.sqrt(total / count) + epsilon) for _ in arms]
