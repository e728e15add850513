"""How every probe reads the subject, the original and the models that unlearners made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unaudit.calibration import Calibrated
from unaudit.case import Case
from unaudit.evidence import FAMILIES
from unaudit.judging import classify
from unaudit.recording.intervals import interval_of
from unaudit.report.record import Matrix, MatrixCell, MatrixColumn, MatrixRow, Role
from unaudit.scale import Scale
from unaudit.stats import ResidualIndex


def matrix(case: Case, calibrated: Sequence[Calibrated], alpha: float, tau: float) -> Matrix | None:
    """Probes by models; None without calibrators.

    The retrained models have no rows: their mean is 0 on every axis by construction, and what is
    ordinary among them is the spread that each column states.

    Args:
        case: says which calibrators there are, in their order.
        calibrated: of every probe that gave a measurement.
        alpha, tau: of the policy.
    """
    if not case.calibrators:
        return None
    ordered = sorted(calibrated, key=lambda c: (not c.informative, FAMILIES.index(c.family)))
    named: list[tuple[str, Role]] = [(case.subject.label, "subject")]
    named += [(case.original.label, "original")] if case.original else []
    named += [(model.label, "calibrator") for model in case.calibrators]
    return Matrix(
        columns=tuple(_column(item) for item in ordered),
        rows=tuple(
            MatrixRow(
                model=label,
                role=role,
                cells=tuple(_cell(item, label, role, alpha, tau) for item in ordered),
            )
            for label, role in named
        ),
    )


def _column(item: Calibrated) -> MatrixColumn:
    card = item.measurement.card
    return MatrixColumn(
        probe=card.name,
        title=card.title,
        family=card.family,
        access=card.access,
        informative=item.informative,
        reason=item.reason,
        retrained_spread=_spread(item.scale) if item.scale and item.mode == "retrained" else None,
    )


def _spread(scale: Scale) -> float | None:
    """Standard deviation of the retrained models, in units of their distance to the original."""
    unit = abs(scale.original - float(scale.retrained.mean()))
    if len(scale.retrained) < 2 or unit == 0.0:
        return None
    return float(scale.retrained.std(ddof=1)) / unit


def _cell(item: Calibrated, label: str, role: Role, alpha: float, tau: float) -> MatrixCell | None:
    if role == "calibrator" and item.mode == "retrained" and label not in item.calibrators:
        return None
    index = _index(item, label, role, alpha, tau)
    return MatrixCell(
        index=interval_of(index, alpha),
        outcome=classify(index, alpha) if item.informative else "not-informative",
    )


def _index(
    item: Calibrated, label: str, role: Role, alpha: float, tau: float
) -> ResidualIndex | None:
    if role == "subject":
        return item.index
    if role == "calibrator":
        return item.calibrators.get(label)
    if item.scale is None or item.mode != "retrained":
        return None
    own = np.asarray(item.scale.deviations[:, 1])
    return item.scale.of_another(item.scale.original, own).index(alpha, tau)
