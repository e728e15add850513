"""A process that writes may be killed at any moment: what is visible is whole, nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_thirty_kills_leave_a_store_that_ends_like_one_without(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.killed", str(tmp_path), "30", "7"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    told = json.loads(done.stdout)
    assert told["faults"] == []
    assert told["kills"] == 30
    assert told["entries"] == 9
    assert told["private"] > 0  # some were hit while they wrote
    assert done.stderr == ""
