"""What ``unaudit plan`` says of models that would be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.shadows.planned import plan_in
from unaudit import cost

CONFIG = """\
[model]
arch = "unaudit:mlp?widths=16-8-3"
[data]
train = "train.npz"
unseen = "unseen.npz"
[request]
forget = "forget.txt"
scenario = "sample"
[recipe]
epochs = 2
batch = 16
[calibration]
retrained = 3
unlearners = ["finetune", "neggrad-plus"]
workers = 1
[shadows]
count = 16
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plan_in(tmp_path)
    (tmp_path / "unaudit.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNAUDIT_STORE", str(tmp_path / "store"))
    return tmp_path


@pytest.fixture
def a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shadow model takes one, and answers at once."""
    paces: dict[str, Any] = dict.fromkeys(cost.TIMINGS, lambda *_: 60 / 120)
    monkeypatch.setattr(cost, "TIMINGS", paces | {"asked": lambda *_: 0.0})


def said(run: Run, *flags: str) -> str:
    result = run("plan", "subject.safetensors", *flags)
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines()[:-1])) <= 80
    return " ".join(result.out.split())


@pytest.mark.usefixtures("folder", "a_minute")
class TestCost:
    def test_models_time_operations_and_power(self, run: Run) -> None:
        words = said(run)
        # epochs × examples: 2 × 60, 3 × 2 × 48, 2 × 2 × 60, 16 × 2 × 60; a pool of 54
        assert (
            "trains 1 original, 3 retrained models, 2 calibrators and 16 shadow models by the "
            "recipe takes about 21 min on this machine, by a short timing, for 3.4 thousand "
            "examples through networks (2.6 MFLOP) LiRA 16 shadow models and 12 forget examples "
            "can detect a mean shift of "
        ) in words
        assert (
            "standard deviations (80 % power at α = 5 %), on its own; true-positive rates can be "
            "told at false-positive rates from 3.3 % on"
        ) in words
        assert "given up" not in words
        # subject, original, three retrained models and two calibrators; 304 operations an example
        assert "21 forward passes over 630 examples in all (190 kFLOP); what" in words

    def test_what_a_limit_costs(self, run: Run) -> None:
        words = said(run, "--max-minutes", "9")
        assert "and 8 shadow models by the recipe" in words
        assert "given up 8 of 16 shadow models fit into 9 min by a timing" in words
        assert "LiRA 8 shadow models and 12 forget examples" in words

    def test_too_little_time_is_said(self, run: Run) -> None:
        result = run("plan", "subject.safetensors", "--max-minutes", "2")
        assert result.code == 2
        assert "the 4 shadow models that it takes at least need about 4 min" in result.err

    def test_without_a_recipe_there_is_nothing_to_say(self, run: Run, folder: Path) -> None:
        text = CONFIG.partition("[recipe]")[0]
        (folder / "unaudit.toml").write_text(text, encoding="utf-8")
        words = said(run)
        assert " trains " not in words
        assert " LiRA " not in words.partition("Will run")[0]


def test_a_first_and_a_second_time(run: Run, folder: Path) -> None:
    """With nothing replaced."""
    flags = ("--shadows", "4", "--access", "black-box")
    assert "takes about" in said(run, *flags)
    assert run("check", "subject.safetensors", *flags, "-o", "json", "-q").code in (1, 3)
    words = said(run, *flags)
    assert "trains nothing; the cache holds all models (10) LiRA 4 shadow" in words


@pytest.mark.parametrize(
    "flag", [("--unlearner", "finetune"), ("--max-minutes", "9"), ("--show-examples",)]
)
def test_a_flag_about_shadow_models_without_any(
    run: Run, folder: Path, flag: tuple[str, ...]
) -> None:
    result = run("plan", "subject.safetensors", "--shadows", "0", *flag)
    assert result.code == 2
    assert f"{flag[0]} is about shadow models, and none are asked for; add --shadows" in result.err
