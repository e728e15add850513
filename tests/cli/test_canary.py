"""``unaudit canary make`` from the training data to the audit that finds the canaries again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import Run
from unaudit.cli.main import main
from unaudit.data.ids import read_forget_list, read_ids
from unaudit.demo import LAYOUTS, PIXEL_MAX, load_digits
from unaudit.loading.networks import mlp
from unaudit.report.record import Finding, Record
from unaudit.training import Recipe, fit, initialize

FILES = ("planted.npz", "held-out.npz", "ids.txt", "request.txt", "manifest.json")
WIDTHS = (64, 48, 10)
RECIPE = Recipe(lr=0.1, epochs=30, batch=64)


def write_digits(folder: Path) -> None:
    """Digits of 8 × 8 pixels as the demo has them, and a list of 100 to be forgotten."""
    digits = load_digits(LAYOUTS["sample"], 0)
    for name, rows in (("train", digits.train), ("unseen", digits.unseen)):
        np.savez(
            folder / f"{name}.npz",
            x=(digits.inputs[rows] * PIXEL_MAX).round().to(torch.uint8).numpy(),
            y=digits.labels[rows].numpy(),
            id=np.array([f"digit-{row:04d}" for row in rows]),
        )
    lines = [f"digit-{row:04d}" for row in digits.forget[:100]]
    (folder / "in.txt").write_text("\n".join(lines), encoding="utf-8")


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as data:
        return dict(data)


def join(target: Path, *parts: Path) -> None:
    loaded = [arrays(part) for part in parts]
    joined: dict[str, Any] = {n: np.concatenate([p[n] for p in loaded]) for n in loaded[0]}
    np.savez(target, **joined)


def train(folder: Path, name: str, without: Sequence[str], seed: int) -> None:
    """A model of ``full.npz`` less some ids."""
    data = arrays(folder / "full.npz")
    kept = ~np.isin(data["id"], list(without))
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.tensor(data["x"][kept] / PIXEL_MAX, dtype=torch.float32)
    model = initialize(mlp(WIDTHS), generator)
    fit(model, inputs, torch.tensor(data["y"][kept]), RECIPE, generator)
    save_file(model.state_dict(), folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canaries made, planted and trained on, as whoever prepares an audit would."""
    folder = tmp_path_factory.mktemp("prepared")
    write_digits(folder)
    line = ["canary", "make", folder / "train.npz", "--unseen", folder / "unseen.npz"]
    line += ["--forget", folder / "in.txt", "--count", 40, "--seed", 5, "--out", folder / "made"]
    assert main([str(word) for word in line]) == 0
    join(folder / "full.npz", folder / "train.npz", folder / "made/planted.npz")
    join(folder / "all-unseen.npz", folder / "unseen.npz", folder / "made/held-out.npz")
    forget = read_ids(folder / "made/request.txt")
    train(folder, "original", (), 0)
    for number in range(1, 7):
        train(folder, f"retrained-{number}", forget, number)
    (folder / "unaudit.toml").write_text(
        f"""
        [model]
        arch = "unaudit:mlp?widths={"-".join(map(str, WIDTHS))}"
        [data]
        train = "full.npz"
        unseen = "all-unseen.npz"
        [preprocess]
        scale = {PIXEL_MAX}
        [request]
        forget = "made/ids.txt"
        [references]
        original = "original.safetensors"
        retrained = [{", ".join(f'"retrained-{n}.safetensors"' for n in range(1, 6))}]
        [policy]
        access = "black-box"
        [run]
        bootstrap = 400
        [probes]
        entropy.enabled = false
        confidence.enabled = false
        """,
        encoding="utf-8",
    )
    return folder


def audit(run: Run, folder: Path, model: str, out: Path) -> Record:
    line = ["check", folder / f"{model}.safetensors", "--config", folder / "unaudit.toml"]
    result = run(*line, "--out", out, "-o", "json", "--exit-zero", "-q")
    assert result.code == 0, result.err
    return Record.read(out / "record.json")


def finding(record: Record, probe: str) -> Finding:
    return next(found for found in record.findings if found.probe == probe)


def test_the_audit_finds_the_canaries_in_the_original(
    run: Run, prepared: Path, tmp_path: Path
) -> None:
    record = audit(run, prepared, "original", tmp_path)
    found = finding(record, "canary-ood")
    assert found.outcome == "residual"
    assert found.detail["forget_examples"] == found.detail["unseen_examples"] == 40
    assert found.measure > 0.9
    assert found.detail["exposure_mean"] > found.detail["exposure_by_chance"] + 1.5
    assert record.verdict.outcome == "fail"


def test_and_not_in_a_model_that_never_saw_them(run: Run, prepared: Path, tmp_path: Path) -> None:
    record = audit(run, prepared, "retrained-6", tmp_path)
    found = finding(record, "canary-ood")
    assert found.outcome in ("like-retrained", "inconclusive")
    assert found.residual_index is not None
    assert abs(found.residual_index.estimate) < 0.4
    assert found.counted
    assert record.verdict.outcome != "fail"
    # the rest of the forget set is reported on its own, informative or not
    assert finding(record, "canary-in").detail["forget_examples"] == 100


def test_without_marks_both_parts_are_skipped_with_the_reason(
    run: Run, prepared: Path, tmp_path: Path
) -> None:
    line = ["check", prepared / "retrained-6.safetensors", "--config", prepared / "unaudit.toml"]
    line += ["--forget", prepared / "made/request.txt", "--out", tmp_path, "-o", "json"]
    assert run(*line, "--exit-zero", "-q").code == 0
    record = Record.read(tmp_path / "record.json")
    reasons = {skip.probe: skip.reason for skip in record.skipped}
    assert "no canaries are marked" in reasons["canary-ood"]
    assert "no canaries are marked" in reasons["canary-in"]
    assert "not a relabeling" in reasons["interclass-confusion"]


def test_what_was_made(prepared: Path) -> None:
    made = prepared / "made"
    assert sorted(path.name for path in made.iterdir()) == sorted(FILES)
    listed = read_forget_list(made / "ids.txt")
    assert listed.ids[:100] == read_ids(prepared / "in.txt")
    assert len(listed.canaries) == len(listed.held_out) == 40
    assert set(arrays(made / "planted.npz")["id"]) == set(listed.canaries)
    assert set(arrays(made / "held-out.npz")["id"]) == set(listed.held_out)
    assert read_ids(made / "request.txt") == listed.ids
    assert arrays(made / "planted.npz")["x"].dtype == np.uint8
    manifest = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["design"] == {
        "count": 40, "seed": 5, "scramble": "pixels", "labels": "keep", "classes": [],
    }  # fmt: skip
    planted = {entry["id"] for entry in manifest["canaries"] if entry["planted"]}
    assert planted == set(listed.canaries)
    assert set(manifest["sha256"]) == set(FILES) - {"manifest.json"}


def test_the_same_line_makes_the_same_files(run: Run, prepared: Path, tmp_path: Path) -> None:
    line = ["canary", "make", prepared / "train.npz", "--unseen", prepared / "unseen.npz"]
    line += ["--forget", prepared / "in.txt", "--count", "40", "--out", tmp_path / "b"]
    result = run(*line, "--seed", "5")
    assert result.code == 0
    assert "never train on them" in result.out
    assert "the seed is 5" in result.err
    for name in FILES:
        assert (tmp_path / "b" / name).read_bytes() == (prepared / "made" / name).read_bytes()
    other = run(*line, "--force")  # a seed is drawn
    assert other.code == 0
    assert (tmp_path / "b/planted.npz").read_bytes() != (prepared / "made/planted.npz").read_bytes()
    seed = json.loads((tmp_path / "b/manifest.json").read_text("utf-8"))["design"]["seed"]
    assert f"the seed is {seed}" in other.err


def test_positions_and_a_config(run: Run, prepared: Path, here: Path) -> None:
    line = ("canary", "make", "--config", prepared / "unaudit.toml", "--id-type", "index")
    assert run(*line, "--count", "20", "--out", "c").code == 0
    listed = read_forget_list(here / "c/ids.txt")
    trained, unseen = (len(arrays(prepared / f"{n}.npz")["y"]) for n in ("full", "all-unseen"))
    assert list(listed.canaries) == [str(trained + n) for n in range(20)]
    assert list(listed.held_out) == [str(unseen + n) for n in range(20)]
    ids = arrays(here / "c/planted.npz")["id"]
    assert all(name.startswith("canary-") for name in ids)


def test_a_class_alone(run: Run, prepared: Path, here: Path) -> None:
    line = ("canary", "make", prepared / "train.npz", "--count", "20", "--class", "8")
    assert run(*line, "--scramble", "values").code == 0
    assert set(arrays(here / "unaudit-canaries/planted.npz")["y"]) == {8}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "no training data given; name it on the line (DATA) or with --config"),
        (["none.npz"], "none.npz: no such file or folder; check the path"),
        (["train.npz", "--count", "5000"], "--count asks for 5000; ask for fewer"),
        (["train.npz", "--count", "3"], "invalid value for '--count'"),
        (["train.npz", "--class", "11"], "train.npz: no examples of class 11; check --class"),
        (["train.npz", "--class", "eight"], "--class: train.npz has no class 'eight'"),
        (["train.npz", "--forget", "none.txt"], "none.txt: no such file; check --forget"),
        (["train.npz", "--forget", "bad.txt"], "bad.txt: line 2 has the unknown mark 'canry'"),
        (["train.npz", "--forget", "odd.txt"], "1 forget id is not in the training data"),
        (["train.npz", "--id-type", "index"], "add --unseen"),
        (["train.npz", "--out", "full"], "exists; --force overwrites it"),
        (["train.npz", "--out", "in.txt"], "in.txt: cannot be written"),
        (["train.npz", "--config", "none.toml"], "none.toml"),
        (["train.npz", "extra"], "unexpected extra argument"),
        (["train.npz", "--scramble", "all"], "invalid value for '--scramble'"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(
    run: Run, prepared: Path, here: Path, flags: list[str], complaint: str
) -> None:
    for name in ("train.npz", "in.txt"):
        (here / name).write_bytes((prepared / name).read_bytes())
    (here / "bad.txt").write_text("digit-0001\ndigit-0002\tcanry\n", encoding="utf-8")
    (here / "odd.txt").write_text("digit-9999\n", encoding="utf-8")
    (here / "full").mkdir()
    (here / "full/ids.txt").write_text("mine", encoding="utf-8")
    before = sorted(path.name for path in here.rglob("*"))
    result = run("canary", "make", *flags, "--store", here.parent / "elsewhere")
    assert result.code == 2
    assert complaint in result.complaint()
    assert sorted(path.name for path in here.rglob("*")) == before
    assert (here / "full/ids.txt").read_text(encoding="utf-8") == "mine"


def test_the_group_explains_itself(run: Run) -> None:
    result = run("canary")
    assert result.code == 2
    assert "make" in result.err
    assert run("canary", "mak").complaint().startswith("no such command 'mak'")
    out = run("canary", "make", "--help").out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("labels", ["", ', "label": 0'])
def test_texts_are_refused_in_words_of_its_own(run: Run, here: Path, labels: str) -> None:
    (here / "train.jsonl").write_text(f'{{"text": "some words"{labels}}}\n', encoding="utf-8")
    result = run("canary", "make", "train.jsonl")
    assert result.code == 2
    assert "train.jsonl holds texts; canaries are made of images" in result.complaint()
