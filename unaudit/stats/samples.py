"""What every statistic here takes and gives: samples of scores, and intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unaudit.evidence import FloatArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval."""

    estimate: float
    low: float
    high: float
    level: float
    """Two-sided level; either end alone holds with confidence (1 + level) / 2."""


def as_sample(values: npt.ArrayLike, name: str) -> FloatArray:
    """One score per example as a float64 vector; ±∞ is a score, NaN is not.

    Raises:
        ValueError: not a vector, empty, or NaN.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"{name}: expected a non-empty vector of scores, got shape {sample.shape}")
    if np.isnan(sample).any():
        raise ValueError(f"{name}: scores must not be NaN")
    return sample


def require_rate(value: float, name: str) -> None:
    """Refuse a level, α or δ outside the open unit interval.

    Raises:
        ValueError: not strictly between 0 and 1 (NaN included).
    """
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")


def split_in_half(sample: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Two random halves; of an odd sample the second one is larger, of a single one the first is
    empty."""
    order = rng.permutation(len(sample))
    middle = len(sample) // 2
    return sample[order[:middle]], sample[order[middle:]]
