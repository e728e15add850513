"""Condense per-example scores into what figures need: nothing that names or shows one example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unaudit.calibration import Calibrated
from unaudit.evidence import FloatArray, Scores, Statistic
from unaudit.report.record import Histogram, Interval, OperatingPoint, Roc
from unaudit.stats import (
    advantage,
    auc_interval,
    band,
    epsilon_lower_bound,
    tpr_at_fpr,
)

BINS = 40
TAIL = 0.005
"""Share of scores on each side that is drawn in the outermost bin."""
FIXED_FPR = (0.1, 0.01, 0.001)


def histograms(calibrated: Sequence[Calibrated]) -> tuple[Histogram, ...]:
    """Binned scores of the subject, for every probe that ranks examples."""
    return tuple(_histogram(item, scores) for item, scores in _ranking(calibrated))


def rocs(
    calibrated: Sequence[Calibrated], alpha: float, rng: np.random.Generator
) -> tuple[Roc, ...]:
    """Forget against unseen on the subject, for every probe that ranks examples."""
    root = [int(word) for word in rng.integers(0, 1 << 32, size=4)]
    return tuple(
        _roc(item, scores, alpha, _own_generator(root, item.measurement.card.name))
        for item, scores in _ranking(calibrated)
    )


COMPARING: frozenset[Statistic] = frozenset({"auc", "mean-difference"})
"""Statistics that hold forget against unseen examples. A mean over forget alone does not, even
where scores of unseen examples come with it, as from linear probes."""
MIN_GROUP = 20
"""Scores of fewer forget examples are not drawn: a curve of few steps shows single examples."""


def _ranking(calibrated: Sequence[Calibrated]) -> list[tuple[Calibrated, Scores]]:
    answers = [(item, item.measurement.subject.answers[0]) for item in calibrated]
    return [
        (item, answer)
        for item, answer in answers
        if isinstance(answer, Scores)
        and answer.statistic in COMPARING
        and answer.unseen is not None
        and len(answer.forget) >= MIN_GROUP
    ]


def _histogram(item: Calibrated, scores: Scores) -> Histogram:
    groups = [g for g in (scores.forget, scores.unseen, scores.retain) if g is not None]
    low, high = np.quantile(np.concatenate(groups), [TAIL, 1 - TAIL])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)

    def counts(values: FloatArray | None) -> tuple[int, ...] | None:
        if values is None:
            return None
        return tuple(int(n) for n in np.histogram(np.clip(values, low, high), edges)[0])

    return Histogram(
        probe=item.measurement.card.name,
        title=item.measurement.card.title,
        unit="score, higher = more remembered",
        edges=_floats(edges),
        forget=counts(scores.forget) or (),
        unseen=counts(scores.unseen),
        retain=counts(scores.retain),
    )


def _roc(item: Calibrated, scores: Scores, alpha: float, rng: np.random.Generator) -> Roc:
    positive, negative = scores.forget, scores.unseen
    assert negative is not None
    level = 1 - 2 * alpha
    interval = auc_interval(positive, negative, level)
    curve = band(positive, negative, level)
    points = [tpr_at_fpr(positive, negative, rate, level) for rate in FIXED_FPR]
    return Roc(
        probe=item.measurement.card.name,
        title=item.measurement.card.title,
        positives=len(positive),
        negatives=len(negative),
        auc=Interval(estimate=interval.estimate, low=interval.low, high=interval.high, level=level),
        advantage=advantage(positive, negative, rng),
        fpr=_floats(curve.fpr),
        tpr=_floats(curve.tpr),
        band_low=_floats(curve.low),
        band_high=_floats(curve.high),
        points=tuple(
            OperatingPoint(fpr=point.fpr, tpr=point.tpr, low=point.low, high=point.high)
            for point in points
            if point is not None
        ),
        epsilon_low=epsilon_lower_bound(positive, negative, alpha, rng).epsilon,
    )


def _own_generator(root: list[int], name: str) -> np.random.Generator:
    """Decided by the probe's name, so that leaving another probe out changes no number."""
    return np.random.default_rng([*root, *name.encode()])


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
