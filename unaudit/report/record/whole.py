"""The whole record: reading, writing, and its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from unaudit.errors import InputError
from unaudit.report.record.base import Part
from unaudit.report.record.calibration import Calibration
from unaudit.report.record.controls import Controls
from unaudit.report.record.estimate import RetrainedEstimate
from unaudit.report.record.findings import FamilyFinding, Finding, Skip, Verdict
from unaudit.report.record.inputs import Request, Subject
from unaudit.report.record.inside import Inside
from unaudit.report.record.language import Language
from unaudit.report.record.matrix import Fidelity, Matrix, Sanity
from unaudit.report.record.plan import Plan
from unaudit.report.record.shadows import GroupEvidence, ShadowModels, Worst

Version = Literal["1.0", "1.1"]
SCHEMA_VERSION: Version = "1.1"
ADDED = (
    "matrix",
    "sanity",
    "fidelity",
    "retrained_estimate",
    "shadows",
    "worst",
    "groups",
    "language",
)
"""Keys of a record that version 1.0 does not know."""
SCHEMA_PATH = Path(__file__).parent.with_name("record.schema.json")


class Environment(Part):
    unaudit: str
    python: str
    platform: str
    device: str
    packages: dict[str, str]
    command: str
    """The command that repeats this audit, folders removed."""
    started: str
    """UTC, ISO 8601."""
    seconds: dict[str, float]
    """Wall time by stage."""
    warnings: tuple[str, ...] = ()


class Record(Part):
    """One audit."""

    schema_version: Version = SCHEMA_VERSION
    report_id: str
    """First 16 hex digits of the digest of everything but ``environment``."""
    subject: Subject
    request: Request
    plan: Plan
    controls: Controls
    findings: tuple[Finding, ...]
    families: tuple[FamilyFinding, ...]
    skipped: tuple[Skip, ...]
    calibration: Calibration
    inside: Inside | None
    """Null where the access was black-box."""
    matrix: Matrix | None = None
    """Null without models made by reference unlearners."""
    sanity: Sanity | None = None
    """Null in records of version 1.0 alone."""
    fidelity: Fidelity | None = None
    """Null without an original or without retrained models."""
    retrained_estimate: RetrainedEstimate | None = None
    """Null in records that were written before there was one."""
    shadows: ShadowModels | None = None
    """Null without shadow models."""
    worst: tuple[Worst, ...] = ()
    """Of the attacks with shadow models."""
    groups: tuple[GroupEvidence, ...] = ()
    """Of attacks whose scores add up, where the data say whose record an example is."""
    language: Language | None = None
    """Null where the models are classifiers."""
    verdict: Verdict
    environment: Environment

    def to_json(self) -> str:
        """The record as indented JSON with a final newline, in its own version."""
        unknown = ADDED if self.schema_version == "1.0" else ()
        values = self.model_dump(mode="json", exclude=set(unknown))
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record.

        Raises:
            InputError: not a file, not JSON, another schema version, or not a record.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; give a record.json") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a JSON record: {error}") from None
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version not in get_args(Version):
            raise InputError(
                f"{path}: schema_version is {version!r:.40}, not one of "
                f"{', '.join(get_args(Version))}; render it with the version that wrote it"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: not a valid record: {where}: {first['msg']}") from None


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a record."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Record.model_json_schema(mode="serialization"),
    }
