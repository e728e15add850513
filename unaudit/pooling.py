"""Several probes of a family on one axis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unaudit.calibration import Calibrated
from unaudit.scale import LEAST_SPREAD, Scale

LEAST_POOLED_SPREAD = LEAST_SPREAD / 2
"""The same for a pool, in which the accidents of single probes average out."""
MOST_PRECISE = 2.0
"""How many times narrower than the median of its family a probe's interval counts at most."""


def pool(calibrated: Sequence[Calibrated], alpha: float, floor: float = -math.inf) -> Scale | None:
    """One axis for the informative probes of a family that speak of the whole request.

    Each probe is brought to residual-index units, weighted by its precision and added up for every
    model and every bootstrap replicate: correlated probes do not count twice, and the spread of the
    pooled index among the retrained models is seen as it is. No probe counts as more than twice as
    precise as the family's median: a spread that came out small by chance among few models must not
    take over.

    Args:
        calibrated: the probes of the family.
        alpha: of the intervals from which precision is read.
        floor: the least that the subject's index on a single probe counts as; with one, what is
            lost on one probe cannot pay for what is kept on another.
    """
    usable = [c for c in calibrated if c.informative and c.pooled and c.scale is not None]
    modes = {c.mode for c in usable}
    if not usable:
        return None
    if len(modes) > 1:
        usable = [c for c in usable if c.mode == "retrained"]
    widths = np.array([_half_width(c, alpha) for c in usable])
    narrowest = float(np.median(widths)) / MOST_PRECISE
    weights = 1.0 / np.maximum(widths, max(narrowest, 1e-12)) ** 2
    if not weights.any():
        return None
    weights /= weights.sum()
    subject, retrained, deviations = 0.0, np.zeros(1), np.zeros((1, 1))
    for weight, item in zip(weights, usable, strict=True):
        scale = item.scale
        assert scale is not None
        zero = scale.retrained.mean()
        unit = weight / (scale.original - zero)
        subject += weight * max((scale.subject - zero) / (scale.original - zero), floor)
        retrained = retrained + unit * (scale.retrained - zero)
        deviations = deviations + unit * scale.deviations
    example_df = min(item.scale.example_df for item in usable if item.scale is not None)
    least = 0.0 if usable[0].mode == "in-model" else LEAST_POOLED_SPREAD
    return Scale(float(subject), 1.0, retrained, deviations, example_df, least)


def _half_width(calibrated: Calibrated, alpha: float) -> float:
    """Precision of a probe by the controls alone: a subject must not choose the weights."""
    scale = calibrated.scale
    assert scale is not None
    if calibrated.mode == "retrained":
        columns = [2, *range(1, scale.deviations.shape[1])]
        scale = dataclasses.replace(scale, deviations=scale.deviations[:, columns])
    detectable = scale.index(alpha, 0.0).detectable
    return float("inf") if detectable is None else detectable
