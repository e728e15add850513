"""Reference unlearners and references from a recipe through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Run
from unaudit.demo import build_world

RECIPE = '\n[recipe]\nlr = 0.1\nepochs = 15\nbatch = 64\n\n[calibration]\nprofile = "smoke"\n'


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a demo world, with a short recipe and without references."""
    folder = tmp_path_factory.mktemp("unlearn")
    build_world(folder, "finetuned", "class", retrained=2)
    config = folder / "unaudit.toml"
    text = config.read_text().partition("[references]")[0]
    config.write_text(text + RECIPE)
    return folder


@pytest.fixture
def world(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(built)
    return built


def test_what_is_written_is_a_model_like_the_original(run: Run, world: Path) -> None:
    result = run("unlearn", "salun", "original.safetensors", "-o", "out.safetensors", "-q")
    assert (result.code, result.out) == (0, "")
    original, made = load_file("original.safetensors"), load_file("out.safetensors")
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in original.items()}
    assert any(not torch.equal(made[key], original[key]) for key in original)


def test_the_file_does_not_tell_how_it_was_made(run: Run, world: Path) -> None:
    assert run("unlearn", "finetune", "original.safetensors", "-o", "ft.safetensors").code == 0
    with safe_open("ft.safetensors", framework="pt") as file:
        assert not file.metadata()
    assert b"finetune" not in Path("ft.safetensors").read_bytes()


def test_same_seed_same_model_and_parameters_count(run: Run, world: Path) -> None:
    def made(*flags: str) -> bytes:
        call = ("unlearn", "finetune", "original.safetensors", "-o", "x.safetensors", *flags)
        assert run(*call).code == 0
        return Path("x.safetensors").read_bytes()

    first = made()
    assert made() == first
    assert made("--seed", "1") != first
    assert made("--set", "lr=0.001") != first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["salon", "original.safetensors"], "unknown unlearner 'salon' (did you mean 'salun'?)"),
        (["salun", "original.safetensors", "--set", "lrr=1"], "unknown key 'lrr'"),
        (["salun", "original.safetensors", "--set", "lr"], "not KEY=VALUE"),
        (["salun", "original.safetensors", "--set", "lr=fast"], "unlearners.salun: lr"),
        (["salun", "nothing.safetensors"], "nothing.safetensors"),
        (["tmu", "original.safetensors"], "this request is class"),
        (["sure", "original.safetensors"], "add --validation DATA"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    run: Run, world: Path, arguments: list[str], said: str
) -> None:
    result = run("unlearn", *arguments, "-o", "new.safetensors", "--config", "unaudit.toml")
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err
    assert not Path("new.safetensors").exists()
    assert not list(Path().glob(".part-*"))


def test_a_place_that_cannot_be_written_is_refused_before_any_work(run: Run, world: Path) -> None:
    result = run("unlearn", "salun", "original.safetensors", "-o", "no/where.safetensors")
    assert result.code == 2
    assert "no/where.safetensors" in result.complaint()


def test_a_collapsed_model_is_an_error(run: Run, world: Path) -> None:
    flags = ("--set", "lr=1.0", "--set", "epochs=40", "--config", "unaudit.toml")
    result = run("unlearn", "random-labels", "original.safetensors", "-o", "c.safetensors", *flags)
    assert result.code == 2
    assert "lower" in result.err
    assert "learning rate" in result.err or "lr" in result.err
    assert not Path("c.safetensors").exists()


def test_unlearners_are_listed_and_explained(run: Run) -> None:
    listed = run("unlearners")
    assert listed.code == 0
    assert "salun" in listed.out
    assert max(map(len, listed.out.splitlines())) <= 80
    one = run("unlearners", "salun")
    assert "source" in one.out
    assert max(map(len, one.out.splitlines())) <= 80
    assert "did you mean 'salun'" in run("unlearners", "salum").complaint()


def test_calibrate_trains_what_check_then_finds(run: Run, world: Path, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "store"))
    first = run("calibrate", "subject.safetensors", *store)
    assert first.code == 0
    rows = {line.split()[0]: line.split() for line in first.out.splitlines()[1:-1]}
    assert {"subject", "original", "finetune", "head-distillation"} <= rows.keys()
    assert first.out.splitlines()[-1] == "accuracies; 3 retrained models, 2 calibrators"
    assert rows["head-distillation"][1] == "0.000"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.blob")}
    flags = ("--access", "black-box", "-o", "json", "--out", str(tmp_path / "out"))
    checked = run("check", "subject.safetensors", *store, *flags, "--config", "unaudit.toml")
    assert checked.code in (1, 3)
    assert len(before) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_recipe_may_stand_in_a_file_of_its_own(run: Run, world: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("lr = 0.05\nepocs = 3\n")
    result = run("calibrate", "subject.safetensors", "--recipe", tmp_path / "recipe.toml")
    assert result.code == 2
    assert "recipe.epocs" in result.err
    assert "did you mean 'epochs'" in result.err


def test_the_original_may_stand_in_another_file_than_the_config_says(
    run: Run, world: Path, tmp_path: Path
) -> None:
    save_file(load_file("original.safetensors"), tmp_path / "copy.safetensors")
    flags = ("--config", "unaudit.toml", "-o", tmp_path / "out.safetensors")
    assert run("unlearn", "finetune-head", tmp_path / "copy.safetensors", *flags).code == 0


def test_nothing_that_was_handed_in_is_written_over(run: Run, world: Path) -> None:
    before = (world / "original.safetensors").read_bytes()
    for target in ("original.safetensors", "forget.txt"):
        result = run("unlearn", "finetune", "original.safetensors", "-o", target)
        assert result.code == 2
        assert f"-o {target}: belongs to what was handed in" in result.err
    assert (world / "original.safetensors").read_bytes() == before
