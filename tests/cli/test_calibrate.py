"""What ``unaudit calibrate`` says of the models that it made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import Run
from tests.shadows.planned import RECIPE, WIDTHS, plan_in
from unaudit.loading.networks import mlp
from unaudit.training import Recipe, fit, initialize

CONFIG = """\
[model]
arch = "unaudit:mlp?widths=16-8-3"
[data]
train = "train.npz"
unseen = "unseen.npz"
[request]
forget = "forget.txt"
[recipe]
epochs = 20
batch = 16
[calibration]
retrained = 2
unlearners = []
workers = 1
"""
LINE = ("calibrate", "subject.safetensors", "--store", "store")


@pytest.fixture
def folder(here: Path) -> Path:
    """Models and data of a case, the original trained by the recipe of the config."""
    plan_in(here)
    (here / "unaudit.toml").write_text(CONFIG, encoding="utf-8")
    data = np.load(here / "train.npz")
    generator = torch.Generator().manual_seed(1)
    original = fit(
        initialize(mlp(WIDTHS), generator),
        torch.from_numpy(data["x"]),
        torch.from_numpy(data["y"]),
        Recipe(**RECIPE | {"epochs": 20}),  # type: ignore[arg-type]
        generator,
    )
    save_file(original.state_dict(), here / "original.safetensors")
    return here


@pytest.mark.usefixtures("folder")
def test_a_recipe_that_reproduces_the_original_is_no_news(run: Run) -> None:
    result = run(*LINE, "--original", "original.safetensors")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "accuracies; 2 retrained models, 0 calibrators"
    assert "warning" not in result.err


def test_one_that_does_not_is_warned_of(run: Run, folder: Path) -> None:
    config = CONFIG.replace("epochs = 20", "epochs = 1\nlr = 1e-6")
    (folder / "unaudit.toml").write_text(config, encoding="utf-8")
    result = run(*LINE, "--original", "original.safetensors", "--quiet")
    assert result.code == 0
    (line,) = (line for line in result.err.splitlines() if "warning" in line)
    assert line.startswith("unaudit: warning: the recipe does not reproduce the original: ")
    assert "state in [recipe] how the original was trained" in line


def test_a_recipe_cannot_be_held_against_itself(run: Run, folder: Path) -> None:
    """Original and retrained models are made, and the subject is as good as they are."""
    result = run("calibrate", "original.safetensors", "--store", "store")
    assert result.code == 0
    assert "warning" not in result.err
