"""Resampling examples: an interval for any statistic, and one joint bootstrap for many.

``paired_bootstrap`` recomputes a statistic on resampled groups of examples and takes BCa limits.
``JointBootstrap`` resamples the influence functions of hundreds of statistics (probes × models)
that share the same examples, so that their deviations can be combined linearly afterwards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from unaudit.evidence import FloatArray
from unaudit.stats.samples import Interval, as_sample, require_rate

JACKKNIFE_BLOCKS = 200
"""At most this many leave-one-out evaluations per group; larger groups lose a block at a time."""
CHUNK_ELEMENTS = 1 << 22
"""Counts held at once by the joint bootstrap: 32 MiB of float64."""
EXACT_BITS = 52
"""Integers up to 2^52 add up exactly in float64."""


def influence_mean(values: npt.ArrayLike) -> FloatArray:
    """Empirical influence function of the mean, (n,): mean* − mean = its mean over a resample."""
    sample = as_sample(values, "values")
    return np.asarray(sample - sample.mean())


def multinomial_counts(n: int, replicates: int, rng: np.random.Generator) -> FloatArray:
    """(replicates, n): how often each of n examples is drawn in n draws with replacement.

    Replicate by replicate, so that a stream read in chunks gives the same counts.
    """
    counts = np.empty((replicates, n))
    for row in counts:
        row[:] = np.bincount(rng.integers(0, n, size=n), minlength=n)
    return counts


class JointBootstrap:
    """Linear bootstrap of many statistics over the same resamples of named groups of examples.

    A column is one statistic of one model; it is a sum of parts, each the mean of an influence
    function over (some rows of) a group. All columns see the same resamples, whoever adds what and
    in which order: those of a group depend on the generator, its name and its size alone.

    Influences are rounded to integers of 36 bits (60,000 examples; fewer bits for more), so that
    every sum is exact: the same bits come out for every chunk size, thread count and linear-algebra
    library, and whatever the other columns are.
    """

    def __init__(self, sizes: Mapping[str, int], replicates: int, rng: np.random.Generator) -> None:
        self._sizes = dict(sizes)
        self._replicates = replicates
        self._seed = [int(word) for word in rng.integers(0, 1 << 32, size=4)]
        self._influences: dict[str, dict[int, FloatArray]] = {name: {} for name in sizes}
        self._unknown: set[int] = set()
        self._width = 0

    def add(
        self, group: str, phi: npt.ArrayLike, rows: npt.ArrayLike | None = None, *, column: int
    ) -> None:
        """Add the mean of ``phi`` over ``rows`` of ``group`` to what ``column`` deviates by.

        Args:
            phi: (k,) influence of each scored example; centered here if it is not.
            rows: (k,) positions in the group; None: all of it, in order.

        Scaled by √(k/(k−1)), so that the deviations spread by the unbiased standard error. A single
        example has no spread to resample: the column becomes NaN, which is not 0.
        """
        influence = as_sample(phi, "phi")
        size = self._sizes[group]
        at = np.arange(size) if rows is None else np.asarray(rows)
        if at.shape != influence.shape:
            raise ValueError(f"{group}: {len(influence)} influences for {at.size} examples")
        if at.min() < 0 or at.max() >= size:
            raise ValueError(f"{group}: rows outside 0 … {size - 1}")
        if not np.isfinite(influence).all():
            raise ValueError(f"{group}: influences must be finite")
        self._width = max(self._width, column + 1)
        k = len(influence)
        if k == 1:
            self._unknown.add(column)
            return
        centered = (influence - influence.mean()) * math.sqrt(k / (k - 1)) / k
        column_influence = self._influences[group].setdefault(column, np.zeros(size))
        np.add.at(column_influence, at, centered)

    def run(self, columns: int | None = None) -> FloatArray:
        """(replicates, columns) deviations from the estimates; a column without parts stays 0.

        Args:
            columns: how many, if more than were added to.
        """
        width = self._width if columns is None else columns
        deviations = np.zeros((self._replicates, width))
        for group, influences in self._influences.items():
            if not influences:
                continue
            size = self._sizes[group]
            matrix = np.stack(list(influences.values()), axis=1)
            units = _unit(np.abs(matrix).max(axis=0), size)
            whole = np.rint(np.divide(matrix, units, out=matrix), out=matrix)
            rng = np.random.default_rng([*self._seed, *_words(group)])
            step = max(1, CHUNK_ELEMENTS // size)
            for start in range(0, self._replicates, step):
                stop = min(start + step, self._replicates)
                counts = multinomial_counts(size, stop - start, rng)
                sums = counts @ whole - whole.sum(axis=0)
                deviations[start:stop, list(influences)] += sums * units
        deviations[:, sorted(self._unknown)] = np.nan
        return deviations


def paired_bootstrap(
    statistic: Callable[..., float],
    groups: Sequence[npt.NDArray[Any]],
    replicates: int,
    rng: np.random.Generator,
    level: float,
) -> Interval:
    """BCa interval (Efron, JASA 82, 1987) of ``statistic(*groups)``.

    Each group is resampled on its own along axis 0; whatever lies on further axes (models, probes)
    stays together, which is what pairs them. The quantiles are widened as Student's t is against
    the normal (Hesterberg, Am. Stat. 69, 2015): percentile methods are too narrow by that much.

    Raises:
        ValueError: a group of fewer than two examples.
    """
    require_rate(level, "level")
    if min(len(group) for group in groups) < 2:
        raise ValueError("the bootstrap needs at least two examples in every group")
    estimate = float(statistic(*groups))
    draws = np.empty(replicates)
    for at in range(replicates):
        draws[at] = statistic(*(g[rng.integers(0, len(g), size=len(g))] for g in groups))
    below = float((draws < estimate).mean() + 0.5 * (draws == estimate).mean())
    # a bias correction of ±∞ would put both limits on one replicate
    bias = special.ndtri(min(max(below, 1.0 / replicates), 1.0 - 1.0 / replicates))
    influences = [_jackknife(statistic, groups, which) for which in range(len(groups))]
    acceleration, widened = _shape(influences, (1.0 + level) / 2.0)
    ends = []
    for quantile in (-widened, widened):
        shifted = bias + quantile
        stretched = bias + shifted / max(1.0 - acceleration * shifted, 1e-3)
        ends.append(float(special.ndtr(stretched)))
    low, high = np.quantile(draws, ends, method="weibull")
    return Interval(estimate=estimate, low=float(low), high=float(high), level=level)


def _jackknife(
    statistic: Callable[..., float], groups: Sequence[npt.NDArray[Any]], which: int
) -> FloatArray:
    """Empirical influences over n of one group's examples (or blocks of them)."""
    group = groups[which]
    blocks = np.array_split(np.arange(len(group)), min(len(group), JACKKNIFE_BLOCKS))
    without = np.empty(len(blocks))
    for at, block in enumerate(blocks):
        kept = [*groups[:which], np.delete(group, block, axis=0), *groups[which + 1 :]]
        without[at] = statistic(*kept)
    return np.asarray((without.mean() - without) * (len(blocks) - 1) / len(blocks))


def _shape(influences: Sequence[FloatArray], probability: float) -> tuple[float, float]:
    """Acceleration of a several-sample statistic (Davison & Hinkley 1997, eq. 5.25) and the widened
    normal quantile: Student's with Welch–Satterthwaite's ν, times √(n/(n−1)) for the bias of a
    bootstrap variance."""
    squares = np.array([(group**2).sum() for group in influences])
    cubes = sum(float((group**3).sum()) for group in influences)
    if squares.sum() <= 0.0:
        return 0.0, float(special.ndtri(probability))
    sizes = np.array([len(group) for group in influences])
    unbiased = squares * sizes / (sizes - 1)
    df = float(unbiased.sum() ** 2 / (unbiased**2 / (sizes - 1)).sum())
    ratio = math.sqrt(float(unbiased.sum() / squares.sum()))
    acceleration = cubes / (6.0 * float(squares.sum()) ** 1.5)
    return acceleration, ratio * float(special.stdtrit(df, probability))


def _unit(largest: FloatArray, size: int) -> FloatArray:
    """Per column, the power of two in which influences become integers that sum up exactly."""
    bits = EXACT_BITS - math.ceil(math.log2(max(size, 2)))
    _, exponent = np.frexp(largest)
    return np.asarray(np.ldexp(1.0, exponent - bits))


def _words(name: str) -> list[int]:
    """A group's name as seed words; the same on every platform."""
    digest = hashlib.sha256(name.encode()).digest()
    return [int.from_bytes(digest[at : at + 4], "little") for at in (0, 4, 8, 12)]
