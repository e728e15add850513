"""Where several classes were to be forgotten: was each of them?

A pooled index averages over the forget set, so that one class kept whole can hide among several
that are gone. Here every index is taken again on the examples of one class alone. What shows rules
a pass out; it does not make the audit fail, which is for the corrected tests on the whole set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unaudit.calibration import Calibrated
from unaudit.case import Case
from unaudit.evidence import FloatArray, IntArray, Scores
from unaudit.explain import index_text
from unaudit.measuring import Reading
from unaudit.scale import LEAST_SPREAD, Scale
from unaudit.stats import JointBootstrap, ResidualIndex, influence_mean

MIN_EXAMPLES = 10
"""Examples of a class below which nothing is said of it alone."""


def kept_classes(
    calibrated: Sequence[Calibrated],
    case: Case,
    *,
    alpha: float,
    tau: float,
    replicates: int,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """One line for each class of several that some informative probe finds beyond the margin.

    Args:
        calibrated: every probe on the whole forget set.
        case: what is audited.
        alpha, tau: of the policy.
        replicates: of the bootstrap.
        rng: draws the resamples.
    """
    labels = case.splits["forget"].labels
    if case.scenario != "class" or len(case.forget_classes) < 2:
        return ()
    probes = [item for item in calibrated if _can_be_cut(item)]
    seed = int(rng.integers(1 << 63))
    lines = []
    for label in case.forget_classes:
        own = np.flatnonzero(labels == label).astype(np.int64)
        if len(own) < MIN_EXAMPLES:
            continue
        found = [
            (index, item.measurement.card.title)
            for item in probes
            # the same resamples for every probe: one more changes no other number
            for resamples in [np.random.default_rng([seed, label])]
            for index in [_index_on(item, own, len(labels), alpha, tau, replicates, resamples)]
            if index.p_residual <= alpha
        ]
        if found:
            index, title = max(found, key=lambda pair: pair[0].estimate)
            lines.append(
                f"class {label} alone is beyond the margin: {title} gives {index_text(index)} there"
            )
    return tuple(lines)


def _can_be_cut(item: Calibrated) -> bool:
    """Whether the measure is a mean over forget examples that can be taken over some of them."""
    readings = [item.measurement.subject, *item.measurement.retrained]
    return (
        item.informative
        and item.mode == "retrained"
        and item.family != "utility"
        and all(
            isinstance(answer, Scores) and answer.statistic == "mean"
            for reading in readings
            for answer in reading.answers
        )
    )


def _index_on(
    item: Calibrated,
    rows: IntArray,
    size: int,
    alpha: float,
    tau: float,
    replicates: int,
    rng: np.random.Generator,
) -> ResidualIndex:
    measurement = item.measurement
    assert measurement.original is not None
    bootstrap = JointBootstrap({"forget": size}, replicates, rng)
    values = []
    readings = [measurement.subject, measurement.original, *measurement.retrained]
    for column, reading in enumerate(readings):
        scores, where = _mean_scores(reading, rows)
        values.append(float(scores.mean()))
        bootstrap.add("forget", influence_mean(scores), rows=where, column=column)
    scale = Scale(
        values[0],
        values[1],
        np.array(values[2:]),
        bootstrap.run(len(readings)),
        len(rows) - 1.0,
        LEAST_SPREAD,
    )
    return scale.index(alpha, tau)


def _mean_scores(reading: Reading, rows: IntArray) -> tuple[FloatArray, IntArray]:
    """Scores of those of ``rows`` that every answer scored, averaged over the answers."""
    whole = []
    kept = rows
    for answer in reading.answers:
        assert isinstance(answer, Scores)
        scored = answer.rows.get("forget")
        scored = np.arange(len(answer.forget)) if scored is None else scored
        whole.append(dict(zip(scored.tolist(), answer.forget.tolist(), strict=True)))
        kept = np.intersect1d(kept, scored)
    scores = np.array([[part[row] for row in kept.tolist()] for part in whole])
    return scores.mean(axis=0), kept
