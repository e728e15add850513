"""Assurance levels in words: how much an audit could see."""

from __future__ import annotations

from unaudit.report.record import Record

LEVELS: tuple[str, ...] = (
    "no reference models, or none that count",
    "black box, with reference models",
    "white box, with reference models",
    "white box, with reference models and shadow-model attacks that can see",
)
"""What each of them takes, from 1 to 4."""


def level_reached(record: Record) -> str:
    """What this audit had, on one line. More than its level takes may be there: shadow models do
    not lift a black-box audit."""
    access = record.plan.policy.access.replace("-", " ")
    if record.verdict.assurance_level == 1:
        return f"{access}, {_no_references(record)}"
    if record.shadows is None:
        return f"{access}, with reference models"
    sees = {control.probe for control in record.calibration.probes if control.informative}
    if any(attack.probe in sees for attack in record.shadows.attacks):
        return f"{access}, with reference models and shadow-model attacks"
    return f"{access}, with reference models; no shadow-model attack can see on these data"


def _no_references(record: Record) -> str:
    """Why references did not lift the audit above level 1."""
    controls = record.controls
    if any(control.mode == "retrained" for control in record.calibration.probes):
        return (
            "with reference models that do not count, for their recipe is not shown to reproduce "
            "the original"
        )
    if not controls.retrained and controls.original is None:
        return "without reference models"
    if controls.original is None or len(controls.retrained) < 2:
        return "without enough reference models"
    return "with reference models that no probe could be held against"
