"""The whole plan: ``unaudit.toml`` plus flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from unaudit.config import first_complaint, merge, read_values, same_file
from unaudit.errors import UsageError
from unaudit.plan.inputs import (
    DataSection,
    ModelSection,
    PreprocessSection,
    ReferencesSection,
    RequestSection,
)
from unaudit.plan.policy import PolicySection, RunSection
from unaudit.plan.section import Section
from unaudit.plan.training import CalibrationSection, RecipeSection, ShadowsSection
from unaudit.text import plain

SCHEMA_VERSION: Literal[1] = 1
CONFIG_NAME = "unaudit.toml"


class AuditPlan(Section):
    """Everything that decides what an audit does, complete and frozen."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    preprocess: PreprocessSection = PreprocessSection()
    request: RequestSection = RequestSection()
    references: ReferencesSection = ReferencesSection()
    recipe: RecipeSection | None = None
    calibration: CalibrationSection = CalibrationSection()
    shadows: ShadowsSection = ShadowsSection()
    policy: PolicySection = PolicySection()
    probes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Parameters by probe name; ``enabled = false`` leaves a probe out (and says so)."""
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _models_play_one_part(self) -> AuditPlan:
        outputs_only = (self.model.path or "").startswith("outputs:")
        if outputs_only and self.policy.access == "white-box":
            raise ValueError("access white-box needs the weights; outputs: allows black-box only")
        parts = [("the subject", self.model.path), ("the original", self.references.original)]
        retrained: dict[str, str] = {}
        for spec in self.references.retrained:
            if same_file(spec) in retrained:
                raise ValueError(f"{spec!r:.80} is listed twice as retrained; name each model once")
            retrained[same_file(spec)] = spec
        for part, path in parts:
            if path is not None and same_file(path) in retrained:
                raise ValueError(
                    f"{path!r:.80} is {part} and also listed as retrained; "
                    "a model cannot be its own reference, take it out of --retrained"
                )
        return self

    @classmethod
    def from_toml(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> AuditPlan:
        """Read ``path`` and lay ``overrides`` (nested, as in the file) on top.

        Relative paths in the file are taken from the file's folder, those in ``overrides`` from the
        working directory. An override of None takes its key back to the default.

        Raises:
            InputError: the file cannot be read or is not TOML.
            UsageError: unknown keys, wrong types or values, contradictions.
        """
        values = read_values(path)
        name = plain(path, 200)
        plan = cls.build(values, source=name)
        if not overrides:
            return plan
        return cls.build(merge(values, overrides), source=f"flags on top of {name}")

    @classmethod
    def build(cls, values: Mapping[str, Any], source: str = "flags") -> AuditPlan:
        """Validate ``values``; every complaint is one line that names the key.

        Raises:
            UsageError: unknown keys, wrong types or values, contradictions.
        """
        try:
            return cls.model_validate(merge({}, values))
        except ValidationError as error:
            raise UsageError(f"{source}: {first_complaint(error, cls)}") from None
