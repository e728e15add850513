"""What single probes and whole families amount to, each by its residual index alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unaudit.calibration import Calibrated
from unaudit.evidence import FAMILIES, Family, ProbeOutcome
from unaudit.pooling import pool
from unaudit.stats import ResidualIndex, holm

if TYPE_CHECKING:
    from unaudit.measuring import Missed


@dataclass(frozen=True, eq=False)
class Judged:
    """One probe with what it amounts to."""

    calibrated: Calibrated
    outcome: ProbeOutcome
    counted: bool
    p_adjusted: float | None
    """Corrected over the informative probes on the failing side."""
    fails: bool


@dataclass(frozen=True, eq=False)
class JudgedFamily:
    """One family with its pooled index."""

    family: Family
    required: bool
    informative: tuple[str, ...]
    index: ResidualIndex | None
    upper: float | None
    """Upper end of the pooled index, with what the subject lost on one probe not paying for what it
    kept on another; None: not bounded."""
    outcome: ProbeOutcome
    p_adjusted: float | None
    """Corrected over the required families on the failing side; None if it is not among them."""
    fails: bool
    blocked: str | None
    """Why a pass cannot rest on this family although its pool lies within the margin."""

    @property
    def clears(self) -> bool:
        """Whether the family allows a pass."""
        return self.outcome in ("like-retrained", "not-residual") and self.blocked is None


def judge_probes(calibrated: Sequence[Calibrated], alpha: float) -> tuple[Judged, ...]:
    """Outcome of each probe, corrected over the informative ones on the failing side."""
    counted = [c.informative and c.family != "utility" and not only_differs(c) for c in calibrated]
    adjusted = iter(
        corrected(
            [
                failing_side(c.index, c.family)
                for c, counts in zip(calibrated, counted, strict=True)
                if counts
            ]
        )
    )
    judged = []
    for item, counts in zip(calibrated, counted, strict=True):
        p = next(adjusted) if counts else None
        judged.append(
            Judged(
                calibrated=item,
                outcome=classify(item.index, alpha) if item.informative else "not-informative",
                counted=counts,
                p_adjusted=p,
                fails=p is not None and p <= alpha,
            )
        )
    return tuple(judged)


def only_differs(calibrated: Calibrated) -> bool:
    """A distance between the insides of models: one that lies far out is different, which is not to
    say that it remembers."""
    card = calibrated.measurement.card
    return card.unsigned and card.access == "white-box"


def failing_side(index: ResidualIndex | None, family: Family) -> float:
    """The p-value that can make the audit fail; two-sided for membership."""
    assert index is not None
    if family == "membership":
        return min(1.0, 2.0 * min(index.p_residual, index.p_over_unlearned))
    return index.p_residual


def corrected(p_values: Sequence[float]) -> list[float]:
    """Holm within one of the two halves of α; compare the result with α."""
    if not p_values:
        return []
    return [min(1.0, 2.0 * float(p)) for p in holm(np.array(p_values))]


def classify(index: ResidualIndex | None, alpha: float) -> ProbeOutcome:
    """Where the whole interval lies: within the margin, above it, below it, or astride."""
    if index is None:
        return "not-informative"
    if index.p_equivalence <= alpha:
        return "like-retrained"
    if index.p_residual <= alpha:
        return "residual"
    if index.p_over_unlearned <= alpha:
        return "over-unlearned"
    return "inconclusive"


def classify_family(
    index: ResidualIndex | None, family: Family, alpha: float, tau: float
) -> ProbeOutcome:
    """The same for a pool. Except for membership, where too different is a sign as well, an
    interval that ends below the margin is enough to say what it is not."""
    outcome = classify(index, alpha)
    astride = outcome == "inconclusive" and family != "membership"
    if astride and index is not None and index.high is not None and index.high <= tau:
        return "not-residual"
    return outcome


def judge_families(
    probes: Sequence[Judged],
    missed: Sequence[Missed],
    required: Sequence[Family],
    alpha: float,
    tau: float,
) -> tuple[JudgedFamily, ...]:
    """Pool each family's informative probes, say where the pooled interval lies, and correct over
    the required families."""
    members: dict[Family, list[Calibrated]] = {
        family: [
            judged.calibrated
            for judged in probes
            if judged.calibrated.family == family and not only_differs(judged.calibrated)
        ]
        for family in FAMILIES
        if family != "utility"
    }
    indices = {family: _pooled(own, alpha, tau) for family, own in members.items()}
    uppers = {
        family: _upper(indices[family], _pooled(own, alpha, tau, floor=-tau))
        for family, own in members.items()
    }
    tested = [family for family in required if indices[family] is not None]
    adjusted = dict(
        zip(
            tested,
            corrected([failing_side(indices[family], family) for family in tested]),
            strict=True,
        )
    )
    return tuple(
        JudgedFamily(
            family=family,
            required=family in required,
            informative=tuple(c.measurement.card.name for c in own if c.informative and c.pooled),
            index=indices[family],
            upper=uppers[family],
            outcome=classify_family(indices[family], family, alpha, tau),
            p_adjusted=adjusted.get(family),
            fails=adjusted.get(family, 1.0) <= alpha,
            blocked=_obstacle_to_pass(family, probes, missed, indices[family], uppers[family], tau),
        )
        for family, own in members.items()
        if family in required or any(c.informative for c in own)
    )


def _pooled(
    own: Sequence[Calibrated], alpha: float, tau: float, floor: float = -math.inf
) -> ResidualIndex | None:
    scale = pool(own, alpha, floor)
    return None if scale is None else scale.index(alpha, tau)


def _upper(index: ResidualIndex | None, guarded: ResidualIndex | None) -> float | None:
    """The larger upper end; None if either is not bounded."""
    ends = [None if one is None else one.high for one in (index, guarded)]
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


def _obstacle_to_pass(
    family: Family,
    probes: Sequence[Judged],
    missed: Sequence[Missed],
    index: ResidualIndex | None,
    upper: float | None,
    tau: float,
) -> str | None:
    """A signal that the pool may have averaged away, or one probe that broke."""
    for judged in probes:
        stands = judged.counted or only_differs(judged.calibrated)
        if judged.calibrated.family == family and stands and judged.outcome == "residual":
            return f"{judged.calibrated.measurement.card.title} alone lies beyond the margin"
    for miss in missed:
        if miss.card.family == family and miss.kind == "errored":
            return f"{miss.card.title} broke: {miss.reason}"
    within = index is not None and index.high is not None and index.high <= tau
    if within and (upper is None or upper > tau):
        return "what is lost on one test would have to make up for what is kept on another"
    return None
