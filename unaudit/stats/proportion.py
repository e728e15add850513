"""Exact confidence limits of a proportion (Clopper & Pearson, Biometrika 26, 1934).

They cover with *at least* the stated probability, whatever the true rate: for small counts clearly
more (a 95 % interval from 20 trials covers 96 to 100 %). The mid-p variant would sit nearer 95 % on
average, but falls below it for some rates, and a bound that is quoted alone must not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from unaudit.evidence import FloatArray
from unaudit.stats.samples import Interval, require_rate


def lower_limit(successes: npt.ArrayLike, trials: int, alpha: float) -> FloatArray:
    """One-sided lower limits: P(limit > rate) ≤ α. Takes and returns arrays of any shape."""
    count = _counts(successes, trials, alpha)
    # Beta(x, n − x + 1); at x = 0 the quantile is undefined and the limit is 0
    limit = special.betaincinv(np.maximum(count, 1), trials - count + 1, alpha)
    return np.where(count == 0, 0.0, limit)


def upper_limit(successes: npt.ArrayLike, trials: int, alpha: float) -> FloatArray:
    """One-sided upper limits: P(limit < rate) ≤ α. Takes and returns arrays of any shape."""
    return 1.0 - lower_limit(trials - _counts(successes, trials, alpha), trials, alpha)


def clopper_pearson(successes: int, trials: int, level: float) -> Interval:
    """Two-sided interval for the rate behind ``successes`` out of ``trials``.

    Raises:
        ValueError: no trials, a count outside 0 … trials, or a level outside (0, 1).
    """
    require_rate(level, "level")
    tail = (1.0 - level) / 2.0
    return Interval(
        estimate=successes / trials if trials else float("nan"),
        low=float(lower_limit(successes, trials, tail)),
        high=float(upper_limit(successes, trials, tail)),
        level=level,
    )


def _counts(successes: npt.ArrayLike, trials: int, alpha: float) -> FloatArray:
    require_rate(alpha, "alpha")
    count = np.asarray(successes, dtype=np.float64)
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    if not np.all((count >= 0) & (count <= trials) & (count == np.floor(count))):
        raise ValueError(f"successes must be whole numbers between 0 and {trials}")
    return count
