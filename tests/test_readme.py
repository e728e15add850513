"""The README says what is so: its help text, its examples, its tables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import World
from unaudit.errors import ExitCode
from unaudit.plan import AuditPlan

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


@pytest.mark.parametrize("command", [(), ("check",)])
def test_the_help_text_is_the_commands_own(command: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "unaudit", *command, "--help"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert printed.strip() in README


def test_the_python_example_runs(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = world("finetuned", "sample")
    assert plan.model.path is not None
    monkeypatch.chdir(Path(plan.model.path).parent)
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("fail ")


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    path = tmp_path / "unaudit.toml"
    path.write_text(example, encoding="utf-8")
    assert AuditPlan.from_toml(path).data.unseen == str(tmp_path / "test.parquet")


def test_every_exit_code_is_listed() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.M)}
    assert {int(code) for code in ExitCode} <= listed


def test_every_picture_is_there() -> None:
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / name).is_file()
