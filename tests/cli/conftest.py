"""The command line in-process, with the audit replaced by one whose answer is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.report.samples import passing
from unaudit.cli.main import main
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.report.record import Record


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def complaint(self) -> str:
        """The only line on stderr; nothing but it was said."""
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("unaudit: ")
        assert "Traceback" not in lines[0]
        return lines[0].removeprefix("unaudit: ")


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("UNAUDIT_DEBUG", "UNAUDIT_STORE", "CI", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | os.PathLike[str]) -> Result:
        capsys.readouterr()
        code = main([os.fspath(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@dataclass
class FakeAudit:
    """Stands for ``unaudit.pipeline``: answers with ``record`` or raises ``error``."""

    record: Record = field(default_factory=passing)
    error: BaseException | None = None
    plans: list[AuditPlan] = field(default_factory=list)
    commands: list[str | None] = field(default_factory=list)

    def audit(
        self, plan: AuditPlan, *, progress: Progress = SILENT, command: str | None = None
    ) -> Record:
        self.plans.append(plan)
        self.commands.append(command)
        with progress.stage("scoring", 10) as step:
            step(10)
        if self.error is not None:
            raise self.error
        return self.record


@pytest.fixture
def fake_audit(monkeypatch: pytest.MonkeyPatch) -> FakeAudit:
    fake = FakeAudit()
    monkeypatch.setitem(sys.modules, "unaudit.pipeline", SimpleNamespace(audit=fake.audit))
    return fake


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_outcome(record: Record, outcome: str, exit_code: int) -> Record:
    changed: dict[str, Any] = {"outcome": outcome, "exit_code": exit_code}
    return record.model_copy(update={"verdict": record.verdict.model_copy(update=changed)})
