"""What one audit produced, before it is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from unaudit.calibration import Calibrated
from unaudit.case import Case
from unaudit.evidence import Access, Probe
from unaudit.measuring import Missed
from unaudit.plan import AuditPlan
from unaudit.twin import Foretold
from unaudit.verdict import Verdict
from unaudit.views import BlackBox
from unaudit.white_box import WhiteBox


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that one audit produced."""

    plan: AuditPlan
    command: str | None
    access: Access
    case: Case
    view_of: Mapping[str, BlackBox]
    inside_of: Mapping[str, WhiteBox]
    """Empty where the access is black-box; recorded outputs are not in it."""
    n_classes: int
    device: str
    probes: tuple[Probe, ...]
    missed: tuple[Missed, ...]
    calibrated: tuple[Calibrated, ...]
    verdict: Verdict
    foretold: Foretold
    started: datetime
    seconds: Mapping[str, float]
    name_of: Callable[[str], str]
    """From an example's id to a name that the auditor alone can resolve, see ``worst.namer``."""
    rng: np.random.Generator
