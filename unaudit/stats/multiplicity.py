"""Many tests at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from unaudit.evidence import FloatArray


def false_discovery(p: npt.ArrayLike) -> FloatArray:
    """Benjamini–Hochberg-adjusted p-values, in the order given (J. R. Statist. Soc. B 57, 1995).

    Rejecting where the adjusted p ≤ α keeps the expected share of false rejections ≤ α for
    independent or positively dependent tests; where every hypothesis is true, the chance of any
    rejection.
    """
    values = np.asarray(p, dtype=np.float64)
    return np.asarray(stats.false_discovery_control(values)) if len(values) else values


def holm(p: npt.ArrayLike) -> FloatArray:
    """Holm-adjusted p-values, in the order given (Holm, Scand. J. Statist. 6, 1979).

    Rejecting where the adjusted p ≤ α keeps the family-wise error rate ≤ α under any dependence.

    Raises:
        ValueError: not a vector, or values outside [0, 1] (NaN included).
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0.0) & (values <= 1.0)):
        raise ValueError("p-values must form a vector of numbers between 0 and 1")
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
