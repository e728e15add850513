"""Binary classifiers on one signal: what the fitted membership attacks train.

Each takes (n,) signals and (n,) membership and returns a function from signals to decisions.
scikit-learn is imported on first use, so that listing the probes does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Chebyshev

from unaudit.evidence import FloatArray

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Decide: TypeAlias = Callable[[FloatArray], BoolArray]
"""From (n,) signals to (n,) whether each is called a member."""
Fit: TypeAlias = Callable[[FloatArray, BoolArray], Decide]

_DEGREE = 100
"""Enough for rounding error on a span of 11 (the entropy of 60,000 classes): the coefficients of a
unit Gaussian there fall below 1e-16 before degree 80."""


def fit_svc(signal: FloatArray, member: BoolArray, *, penalty: float, span: float) -> Decide:
    """Support vector classifier, RBF kernel of width 1 (``gamma='auto'`` with one feature).

    Its decision function is a sum of unit Gaussians, so its Chebyshev interpolant on [0, span]
    equals it up to rounding and costs the same for two or two thousand support vectors.

    Args:
        span: signals lie in [0, span]; rounding beyond it is clipped.
    """
    from sklearn.svm import SVC

    machine = SVC(C=penalty, kernel="rbf", gamma="auto").fit(signal[:, None], member)
    decision = Chebyshev.interpolate(
        lambda points: machine.decision_function(points[:, None]), _DEGREE, domain=[0.0, span]
    )

    def decide(values: FloatArray) -> BoolArray:
        return np.asarray(decision(np.clip(values, 0.0, span)) > 0)

    return decide


def fit_logistic(signal: FloatArray, member: BoolArray) -> Decide:
    """Logistic regression on the standardized signal."""
    from sklearn.linear_model import LogisticRegression

    center, spread = signal.mean(), signal.std() or 1.0
    model = LogisticRegression().fit((signal[:, None] - center) / spread, member)
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])

    def decide(values: FloatArray) -> BoolArray:
        return np.asarray((values - center) / spread * slope + intercept > 0)

    return decide
