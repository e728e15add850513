"""The audit plan: ``unaudit.toml`` plus flags, validated and frozen before anything runs.

The sections of the file are the fields of :class:`AuditPlan`; unknown keys are refused. Paths in a
file are relative to that file.
"""

from unaudit.plan.inputs import (
    DataSection,
    ModelSection,
    PreprocessSection,
    ReferencesSection,
    RequestSection,
)
from unaudit.plan.policy import TAU_PRESETS, PolicySection, RunSection
from unaudit.plan.training import CalibrationSection, RecipeSection, ShadowsSection
from unaudit.plan.whole import CONFIG_NAME, AuditPlan

__all__ = [
    "CONFIG_NAME",
    "TAU_PRESETS",
    "AuditPlan",
    "CalibrationSection",
    "DataSection",
    "ModelSection",
    "PolicySection",
    "PreprocessSection",
    "RecipeSection",
    "ReferencesSection",
    "RequestSection",
    "RunSection",
    "ShadowsSection",
]
