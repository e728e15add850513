"""The head-distillation check: would black-box probes take a known fake for forgetting?"""

from __future__ import annotations

from collections.abc import Sequence

from unaudit.calibration import Calibrated
from unaudit.case import Case
from unaudit.evidence import Family
from unaudit.judging import classify
from unaudit.plan import AuditPlan
from unaudit.references import FAKE
from unaudit.report.record import ProbeOutcome, Sanity


def sanity(plan: AuditPlan, case: Case, calibrated: Sequence[Calibrated], alpha: float) -> Sanity:
    """What the informative black-box probes say of the fake, or why there was none.

    Args:
        plan: says whether a fake was asked for.
        case: holds it, if there was one.
        calibrated: of every probe that gave a measurement; those of the utility family decide
            nothing of a subject either, and are left out.
        alpha: of the policy.
    """
    if not any(model.label == FAKE for model in case.calibrators):
        return Sanity(fake=None, reason=_why_not(plan, case), fooled=(), caught=(), undecided=())
    said: dict[str, list[str]] = {"fooled": [], "caught": [], "undecided": []}
    for item in calibrated:
        card = item.measurement.card
        counts = item.informative and item.family != "utility" and card.access == "black-box"
        if counts and FAKE in item.calibrators:
            outcome = classify(item.calibrators[FAKE], alpha)
            said[_group(outcome, item.family)].append(card.name)
    return Sanity(
        fake=FAKE,
        reason=None,
        fooled=tuple(said["fooled"]),
        caught=tuple(said["caught"]),
        undecided=tuple(said["undecided"]),
    )


def _group(outcome: ProbeOutcome, family: Family) -> str:
    if outcome == "like-retrained":
        return "fooled"
    fails = outcome == "residual" or (outcome == "over-unlearned" and family == "membership")
    return "caught" if fails else "undecided"


def _why_not(plan: AuditPlan, case: Case) -> str:
    if plan.recipe is None:
        return "no recipe was given; an empty [recipe] section has one filled in"
    if case.original is not None and case.original.recorded:
        return "the original is known by recorded outputs only; hand in its weights"
    return f"calibration.unlearners leaves '{FAKE}' out"
