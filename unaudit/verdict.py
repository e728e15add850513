"""From calibrated probes and a policy to a verdict (a test that can fail, in both directions).

fail          some informative probe, or the pooled index of some required family, is beyond the
              margin after correction: above it, or, for membership, below it as well, since being
              too different from never-seen also betrays membership
pass          no such probe, no single probe that lies beyond the margin before correction, no probe
              of a required family that broke, and the pooled index of every required family ends
              below the margin; for membership it lies within the margin both ways. It must do so
              as well when no probe counts as less than −margin in the pool: what is lost on one
              probe cannot pay for what is kept on another
inconclusive  anything else; what cannot be seen never passes

What speaks against the references rules a pass out as well; whether a fail stands beside them, says
:mod:`unaudit.standing`.

Distances between the insides of models have no direction: one beyond the margin rules a pass out
and never makes the audit fail.

Correction: half of α goes to the families, half to the probes, Holm within each half, so that the
family-wise error rate is at most α whatever the dependence. Pools are there because with few
retrained models a single probe rarely has the power to fail anything on its own; probes are there
because a pool can hide one clear signal among many weak ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unaudit.calibration import Calibrated
from unaudit.errors import ExitCode
from unaudit.evidence import Access, Family, Outcome
from unaudit.explain import headline, missing_inputs, next_step, reasons
from unaudit.judging import Judged, JudgedFamily, judge_families, judge_probes, only_differs

if TYPE_CHECKING:
    from unaudit.case import Case
    from unaudit.measuring import Missed

EXIT_CODES: dict[Outcome, ExitCode] = {
    "pass": ExitCode.PASS,
    "fail": ExitCode.FAIL,
    "inconclusive": ExitCode.INCONCLUSIVE,
}


@dataclass(frozen=True, eq=False)
class Verdict:
    """The decision and everything that led to it."""

    outcome: Outcome
    assurance_level: int
    probes: tuple[Judged, ...]
    families: tuple[JudgedFamily, ...]
    headline: str
    upper_bound: float | None
    reasons: tuple[str, ...]
    caps: tuple[str, ...]
    missing: tuple[str, ...]
    next_step: str | None

    def exit_code(self, fail_on: Literal["fail", "inconclusive"]) -> ExitCode:
        """What a gate gets; ``fail_on = fail`` lets an inconclusive audit through."""
        if self.outcome == "inconclusive" and fail_on == "fail":
            return ExitCode.PASS
        return EXIT_CODES[self.outcome]


def decide(
    calibrated: Sequence[Calibrated],
    case: Case,
    *,
    alpha: float,
    tau: float,
    access: Access,
    accept_black_box: bool,
    missed: Sequence[Missed] = (),
    suspicions: Sequence[str] = (),
    remedy: str | None = None,
    faithful: bool = True,
) -> Verdict:
    """Apply the rule; see the module's head.

    Args:
        calibrated: every probe that gave a measurement.
        case: what was audited.
        alpha: family-wise error rate.
        tau: margin on the residual index.
        access: what the policy grants.
        accept_black_box: whether black-box evidence alone may pass.
        missed: probes that gave none.
        suspicions: reasons to doubt the references; any of them rules a pass out.
        remedy: the next step that would settle them.
        faithful: whether references are what their recipe should make; if not, they do not count
            towards the assurance level.
    """
    probes = judge_probes(calibrated, alpha)
    with_references = any(c.mode == "retrained" for c in calibrated)
    required = required_families(access, with_references)
    families = judge_families(probes, missed, required, alpha, tau)
    failing = [probe for probe in probes if probe.fails]
    failing_families = [family for family in families if family.fails]
    holding = [family for family in families if family.required and not family.clears]
    caps: list[str] = []
    outcome: Outcome = "inconclusive" if holding else "pass"
    if failing or failing_families:
        outcome = "fail"
    inside = any(
        c.informative
        and c.measurement.card.access == "white-box"
        and c.family in required
        and not only_differs(c)
        for c in calibrated
    )
    if outcome != "fail" and suspicions:
        outcome = "inconclusive"
        caps.extend(suspicions)
    if outcome == "pass" and not inside and not accept_black_box:
        outcome = "inconclusive"
        caps.append(
            "black-box evidence alone can be produced by refitting the last layer; "
            "the policy does not accept it (policy.accept_black_box)"
        )
    shadows = any(c.informative and c.measurement.card.shadows is not None for c in calibrated)
    uppers = [family.upper for family in families if family.required]
    known = [upper for upper in uppers if upper is not None]
    upper = max(known) if len(known) == len(required) else None
    return Verdict(
        outcome=outcome,
        assurance_level=assurance_level(access, with_references and faithful, shadows),
        probes=probes,
        families=families,
        headline=headline(
            outcome, failing, failing_families, holding, upper, alpha, tau, suspicions
        ),
        upper_bound=upper,
        reasons=reasons(failing, families, tau),
        caps=tuple(caps),
        missing=missing_inputs(case),
        next_step=next_step(holding, case, access, suspicions, remedy)
        if outcome == "inconclusive"
        else None,
    )


def required_families(access: Access, with_references: bool) -> tuple[Family, ...]:
    """What must be like retrained for a pass.

    Without references only membership has a known null; nothing else can be required, and the
    assurance level says so.
    """
    if not with_references:
        return ("membership",)
    if access == "black-box":
        return ("membership", "output-distance")
    return ("membership", "output-distance", "representation", "recoverability")


def assurance_level(access: Access, with_references: bool, shadows: bool) -> int:
    """1 without references · 2 black box with references · 3 white box with references · 4 as 3,
    and an attack with shadow models that can see on this data."""
    if not with_references:
        return 1
    if access == "black-box":
        return 2
    return 4 if shadows else 3
