"""A config that came with the model may not open the gate; the auditor's own may."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import World


def check(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unaudit", "check", *words, "-o", "json:again.json"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "loosening",
    [
        '[policy]\nfail_on = "fail"\n',
        "[policy]\naccept_black_box = true\n",
        "[policy]\ntau = 0.9\n",
        '[run]\nstore = "cache"\n',
        "[probes.loss]\nenabled = false\n",
    ],
)
def test_a_found_config_may_not_loosen_the_gate(
    world: World, tmp_path: Path, loosening: str
) -> None:
    plan = world("retrained", "class")
    assert plan.model.path is not None
    theirs = Path(plan.model.path).parent
    handed_in = tmp_path / "handed-in"
    handed_in.mkdir()
    for file in theirs.iterdir():
        (handed_in / file.name).write_bytes(file.read_bytes())
    config = handed_in / "unaudit.toml"
    config.write_text(config.read_text() + loosening)
    done = check(str(handed_in / "subject.safetensors"), cwd=tmp_path)
    assert done.returncode == 2
    assert "may not loosen the gate" in done.stderr
    assert not (tmp_path / "unaudit-audit" / "record.json").exists()


def test_an_error_sets_the_old_record_aside(world: World, tmp_path: Path) -> None:
    plan = world("retrained", "class")
    out = tmp_path / "unaudit-audit"
    out.mkdir()
    (out / "record.json").write_text(json.dumps({"verdict": {"outcome": "pass"}}))
    done = check(str(plan.model.path), "--unseen", str(plan.data.train), cwd=tmp_path)
    assert done.returncode == 2
    assert not (out / "record.json").exists()
    assert (out / "previous-record.json").exists()
