"""From measurements to calibrated indices: controls, residual index, power.

Two ways to know what 0 and 1 mean on this data:

``retrained``   0 is the mean of the retrained models, 1 is the original.
``in-model``    0 is AUC ½ of forget against unseen, which holds by exchangeability when the
                forget set was never trained on; 1 is the AUC of retain against unseen on the
                subject itself. Sample scenario only: elsewhere forget and unseen differ in class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from unaudit.columns import columns, mean_measure, measure_of
from unaudit.evidence import FAMILIES, Family, FloatArray, Scores
from unaudit.measuring import Measurement
from unaudit.scale import LEAST_SPREAD, Scale
from unaudit.stats import (
    JointBootstrap,
    ResidualIndex,
    false_discovery,
)

if TYPE_CHECKING:
    from unaudit.case import Case

Mode = Literal["retrained", "in-model"]
Control = Literal["passed", "failed", "not-run"]

MIN_RETRAINED = 2
"""Below this the retrained models have no spread."""
MIN_HELD_OUT = 3
"""Retrained models needed to hold one out and still know the spread of the others."""
MIN_HELD_OUT_COMPARED = 4
"""The same for a comparative probe, whose spread takes three models to see."""
CHANCE = 0.5
"""AUC of forget against unseen when the forget set was never trained on."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """One probe on the subject, on an axis whose ends are known."""

    measurement: Measurement
    mode: Mode | None
    measure: float
    scale: Scale | None
    index: ResidualIndex | None
    positive: Control
    negative: Control
    reason: str | None
    """Why the probe is not informative; None if it is."""
    calibrators: Mapping[str, ResidualIndex] = field(default_factory=dict)
    """What the probe says of models that bundled unlearners made."""

    @property
    def informative(self) -> bool:
        return self.reason is None

    @property
    def pooled(self) -> bool:
        """Whether it speaks of the whole request, so that it counts in its family's pool."""
        return self.measurement.card.asks is None

    @property
    def family(self) -> Family:
        return self.measurement.card.family


def calibrate(
    measurements: Sequence[Measurement],
    case: Case,
    *,
    alpha: float,
    tau: float,
    replicates: int,
    rng: np.random.Generator,
) -> list[Calibrated]:
    """Put every measurement on its axis; all share one bootstrap, so that they can be pooled.

    The standard error that a scalar brings along is taken as common to all scalars of a model: how
    far they share it is not known, and shared noise does not average out.
    """
    modes = [choose_mode(measurement, case) for measurement in measurements]
    values: list[list[float]] = []
    bootstrap = JointBootstrap(
        {name: len(split) for name, split in case.splits.items()}, replicates, rng
    )
    most = max((len(m.retrained) + len(m.calibrators) for m in measurements), default=0)
    # model by model, so that further models change nobody's noise
    least_noise, *shared = rng.standard_normal((4 + most, replicates))
    noise: dict[int, FloatArray] = {}
    smallest: list[int] = []
    column = 0
    for measurement, (mode, _) in zip(measurements, modes, strict=True):
        own, counts = [], [len(case.splits["forget"])]
        for model, (value, influences, stderr) in enumerate(columns(measurement, mode)):
            own.append(value)
            for split, rows, phi in influences:
                bootstrap.add(split, phi, rows=rows, column=column)
                counts.append(len(phi))
            noise[column] = stderr * shared[model]
            column += 1
        values.append(own)
        smallest.append(min(counts))
    deviations = bootstrap.run(column)
    for at, deviation in noise.items():
        deviations[:, at] += deviation
    calibrated = []
    start = 0
    for measurement, (mode, reason), own, n in zip(
        measurements, modes, values, smallest, strict=True
    ):
        part = deviations[:, start : start + len(own)]
        start += len(own)
        spanning = len(own) - (len(measurement.calibrators) if mode == "retrained" else 0)
        if len(own) > 1:
            # no measure is known better than to one example in n, however equal the scores are
            least = (own[1] - float(np.mean(own[2:spanning] or CHANCE))) / n
            part[:, [0, *range(spanning, len(own))]] += least * least_noise[:, None]
        axis = own[:spanning], part[:, :spanning]
        one = _calibrate_one(measurement, mode, reason, *axis, alpha, tau, n - 1.0)
        others = zip(measurement.calibrators, own[spanning:], part.T[spanning:], strict=False)
        calibrated.append(
            replace(
                one,
                calibrators={
                    name: one.scale.of_another(value, deviation).index(alpha, tau)
                    for name, value, deviation in others
                    if one.scale is not None
                },
            )
        )
    return _correct_controls(calibrated, alpha)


def choose_mode(measurement: Measurement, case: Case) -> tuple[Mode | None, str | None]:
    """How a probe can be calibrated here, or why it cannot."""
    if measurement.original is not None and len(measurement.retrained) >= MIN_RETRAINED:
        return "retrained", None
    answer = measurement.subject.answers[0]
    in_model = (
        case.scenario == "sample"
        and measurement.card.family == "membership"
        and isinstance(answer, Scores)
        and answer.unseen is not None
        and answer.retain is not None
    )
    if in_model and case.mix_differs:
        return None, (
            "forget and unseen differ in their mix of classes, canaries or wrong labels, or their "
            "texts can be told apart by words alone, so without references their difference says "
            "nothing; add --original, --retrained"
        )
    if in_model:
        return "in-model", None
    if len(measurement.retrained) == 1:
        return None, "one retrained model has no spread to compare with; add another --retrained"
    if measurement.retrained:
        return None, "needs the original model as positive control; add --original"
    return None, "needs an original and at least two retrained models; add --original, --retrained"


def _calibrate_one(
    measurement: Measurement,
    mode: Mode | None,
    reason: str | None,
    values: list[float],
    deviations: FloatArray,
    alpha: float,
    tau: float,
    example_df: float,
) -> Calibrated:
    measure = mean_measure(measurement.subject)
    if mode is None:
        return Calibrated(measurement, None, measure, None, None, "not-run", "not-run", reason)
    if mode == "in-model":
        null = np.full(MIN_RETRAINED, CHANCE)  # a known value: no spread, no bootstrap deviation
        still = np.zeros((len(deviations), len(null)))
        scale = Scale(values[0], values[1], null, np.hstack([deviations, still]), example_df)
    else:
        retrained = _spread(np.array(values[2:]), measurement.card.comparative)
        scale = Scale(values[0], values[1], retrained, deviations, example_df, LEAST_SPREAD)
    index = scale.index(alpha, tau)
    positive: Control = "passed" if index.positive_control_p <= alpha else "failed"
    negative: Control = "not-run"
    enough = MIN_HELD_OUT_COMPARED if measurement.card.comparative else MIN_HELD_OUT
    if mode == "retrained" and len(scale.retrained) >= enough:
        negative = "failed" if _flags_held_out(measurement, scale, alpha, tau) else "passed"
    if positive == "failed" or index.detectable is None:
        reference = "the original from the retrained models"
        if mode == "in-model":
            reference = "retained from unseen examples"
        reason = f"cannot tell {reference} on this data"
    elif negative == "failed":
        reason = "flags a retrained model that was held out"
    return Calibrated(measurement, mode, measure, scale, index, positive, negative, reason)


def _correct_controls(calibrated: Sequence[Calibrated], alpha: float) -> list[Calibrated]:
    """Benjamini–Hochberg over the positive controls of each family.

    Uncorrected, one of ten blind probes passes its control by chance, with the original's lucky
    draw as its unit, and would speak for the whole family. Probes that are not pooled are corrected
    among themselves: a clear control of theirs must not lend its weight to the others.
    """
    corrected = list(calibrated)
    for family, pooled in product(FAMILIES, (True, False)):
        at = [
            i
            for i, c in enumerate(calibrated)
            if (c.family, c.pooled) == (family, pooled) and c.index is not None
        ]
        p_values = [calibrated[i].index.positive_control_p for i in at]  # type: ignore[union-attr]
        if not at:
            continue
        for i, p in zip(at, false_discovery(p_values), strict=True):
            if p > alpha and calibrated[i].informative:
                reason = (
                    "its positive control does not stand out among those of its family "
                    f"(corrected p {p:.2g})"
                )
                corrected[i] = replace(calibrated[i], positive="failed", reason=reason)
    return corrected


def _flags_held_out(measurement: Measurement, scale: Scale, alpha: float, tau: float) -> bool:
    """Whether any retrained model, judged by the others, would have been called residual.

    Bonferroni over the m models, so that an honest probe survives with probability ≥ 1 − α.
    """
    m = len(scale.retrained)
    measured = [mean_measure(reading) for reading in measurement.retrained]
    for held_out in range(m):
        others = [i for i in range(m) if i != held_out]
        values = scale.retrained[others]
        if measurement.card.comparative:
            values = np.array([_without(measurement, i, held_out) for i in others])
            values = _spread(values, comparative=True)
        columns = [2 + held_out, 1, *(2 + i for i in others)]
        index = Scale(
            float(measured[held_out]),
            scale.original,
            values,
            scale.deviations[:, columns],
            scale.example_df,
            scale.least_spread,
        ).index(alpha, tau)
        p = index.p_residual
        if measurement.card.family == "membership":
            p = min(p, index.p_over_unlearned)
        if p < alpha / m:
            return True
    return False


def _spread(values: FloatArray, comparative: bool) -> FloatArray:
    """Retrained values whose spread is that of a fresh retrained model.

    A comparative measure of model i averages over the others: with d(i, j) = a_i + a_j the averages
    spread by (m − 2)/(m − 1) of what the a_i do, because each also moves all the others. The factor
    is undone here; the mean stays.
    """
    m = len(values)
    if not comparative:
        return values
    return np.asarray(values.mean() + (values - values.mean()) * (m - 1) / (m - 2))


def _without(measurement: Measurement, model: int, held_out: int) -> float:
    """A comparative measure of one retrained model that leaves another out of its references."""
    compared_with = [i for i in range(len(measurement.retrained)) if i != model]
    answers = measurement.retrained[model].answers
    kept = [a for a, i in zip(answers, compared_with, strict=True) if i != held_out]
    return float(np.mean([measure_of(answer) for answer in kept]))
