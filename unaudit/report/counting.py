"""Which probes the verdict rests on, and why one that can see is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unaudit.report.record import Record

ONLY_DIFFERS = (
    "It can see, but it measures a distance between the insides of models: one that lies far out "
    "is different, which is not to say that it remembers. It can rule out a pass, and does not "
    "count otherwise."
)
UTILITY = "It can see, but it measures utility, which the verdict does not rest on."


@dataclass(frozen=True)
class Counting:
    """Whether the verdict may rest on one probe."""

    counts: bool
    reason: str | None
    """Why not, in one sentence."""


def counting(record: Record) -> Mapping[str, Counting]:
    """By probe, of all that were calibrated; a probe that can see need not count."""
    counted = {finding.probe: finding.counted for finding in record.findings}
    inside = {probe.name for probe in record.plan.probes if probe.access == "white-box"}
    utility = {finding.probe for finding in record.findings if finding.family == "utility"}
    unsigned = {probe.name for probe in record.plan.probes if probe.unsigned}
    found = {}
    for control in record.calibration.probes:
        counts = control.informative and counted.get(control.probe, True)
        reason = control.reason
        if control.informative and not counts and control.probe in utility:
            reason = UTILITY
        elif control.informative and not counts and control.probe in unsigned & inside:
            reason = ONLY_DIFFERS
        found[control.probe] = Counting(counts, reason)
    return found
