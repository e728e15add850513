"""An audit may be killed at any moment and started again: nothing that was done is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import World


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_thirty_kills_change_no_number(world: World, tmp_path: Path) -> None:
    plan = world("finetuned", "sample")
    config = Path(plan.model.path or "").parent / "unaudit.toml"
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_audits", str(config), str(tmp_path), "30", "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
    )
    told = json.loads(done.stdout)
    assert told["kills"] == 30
    assert told["same"]  # each record that got through is the uninterrupted one
    assert told["damaged"] == 0
    assert told["kept"] > 5  # some were hit while shadow models were trained, and lost none
