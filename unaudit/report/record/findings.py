"""What was found, what did not run, and what follows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from unaudit.evidence import Family
from unaudit.report.record.base import Interval, Outcome, Part, ProbeOutcome, Rate


class Finding(Part):
    """One probe on the subject, calibrated."""

    probe: str
    title: str
    family: Family
    statistic: str
    """``mean``, ``auc``, ``mean-difference`` or ``scalar``."""
    measure: float
    """Higher = more remembered."""
    residual_index: Interval | None
    outcome: ProbeOutcome
    counted: bool
    """Whether the verdict may rest on it."""
    p_residual: Rate | None
    p_over_unlearned: Rate | None
    p_adjusted: Rate | None
    """Holm-adjusted over the informative probes on the failing side; half of α is theirs."""
    fails: bool
    """Whether the audit fails by it: significant on the failing side after Holm, and nothing speaks
    against what it was compared with."""
    detail: dict[str, Any] = Field(default_factory=dict)


class FamilyFinding(Part):
    """The pooled residual index of one family."""

    family: Family
    required: bool
    informative: tuple[str, ...]
    pooled: Interval | None
    outcome: ProbeOutcome
    p_adjusted: Rate | None = None
    """Holm-adjusted over the required families; half of α is theirs."""
    fails: bool = False
    """Whether the audit fails by it: significant on the failing side after correction, and nothing
    speaks against what it was compared with."""


class Skip(Part):
    probe: str
    title: str
    kind: Literal["skipped", "errored", "left-out"]
    reason: str


class Verdict(Part):
    outcome: Outcome
    assurance_level: Annotated[int, Field(ge=1, le=4)]
    headline: str
    """One sentence with the figure that decided."""
    upper_bound: float | None
    """Largest upper end among the required families' pooled residual indices, with what is lost on
    one probe not paying for what is kept on another."""
    reasons: tuple[str, ...]
    caps: tuple[str, ...]
    """Why the outcome or the assurance level was held down, if it was."""
    missing: tuple[str, ...]
    """What was not handed in and would have made the audit stronger."""
    next_step: str | None
    """The cheapest step that would resolve an inconclusive outcome."""
    exit_code: int
    """What a gate gets under the policy's ``fail_on``."""
