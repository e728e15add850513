"""The real pipeline through the command line, on the demo's files, as a newcomer would run it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from unaudit.cli.main import main
from unaudit.demo import SUBJECTS as DEMO_SUBJECTS
from unaudit.report.record import Record


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which ``unaudit demo`` was run."""
    folder = tmp_path_factory.mktemp("newcomer")
    before = Path.cwd()
    os.chdir(folder)
    os.environ["UNAUDIT_STORE"] = str(folder / "store")
    try:
        assert main(["demo", "-o", "json", "-q", "--out", "demo"]) == 0
        yield folder
    finally:
        os.chdir(before)
        del os.environ["UNAUDIT_STORE"]


@pytest.fixture
def demo(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(demo_run)
    return demo_run


def verdict(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))["verdict"]


def test_the_demo_is_the_check_on_its_files(run: Run, demo: Path, tmp_path: Path) -> None:
    flags = ("--store", "store", "--out", tmp_path, "-o", "json")
    result = run("check", "demo/inputs/subject.safetensors", *flags)
    assert verdict(tmp_path / "record.json") == verdict(demo / "demo/record.json")
    assert result.code == Record.read(tmp_path / "record.json").verdict.exit_code
    assert result.err.splitlines()[0] == (
        "unaudit: using demo/inputs/unaudit.toml (next to the model)"
    )


def test_no_folder_of_the_machine_gets_into_the_record(demo: Path) -> None:
    assert str(demo) not in (demo / "demo/record.json").read_text(encoding="utf-8")


def test_the_demo_says_what_a_gate_would_have_seen(run: Run, demo: Path, tmp_path: Path) -> None:
    result = run("demo", "--subject", "retrained", "--out", tmp_path / "a b", "-o", "json")
    code = Record.read(tmp_path / "a b/record.json").verdict.exit_code
    assert result.code == 0
    assert code != 1
    assert f"A gate would have seen exit code {code}; the demo itself ends with 0." in result.out
    model = tmp_path / "a b/inputs/subject.safetensors"
    assert f"unaudit check '{model}' --out '{tmp_path}/a b'" in result.err


def test_plan_says_what_would_run_and_runs_nothing(run: Run, demo: Path) -> None:
    flags = ("--tau", "0.3", "--access", "black-box")
    result = run("plan", "demo/inputs/subject.safetensors", *flags)
    assert result.code == 0
    assert max(map(len, result.out.splitlines()[:-1])) <= 80
    words = " ".join(result.out.split())
    assert "forget 200, retain 1000, unseen 597" in words
    assert "27 forward passes over 16173 examples" in words
    assert "τ = 0.3 (custom)" in words
    assert "membership" in words
    assert "--accept-black-box lets it pass" in words
    assert words.endswith(
        "unaudit check demo/inputs/subject.safetensors --access black-box --tau 0.3"
    )
    assert not (demo / "unaudit-audit").exists()


def test_plan_names_what_is_missing_and_skipped(run: Run, demo: Path, tmp_path: Path) -> None:
    inputs = demo / "demo/inputs"
    bare = tmp_path / "bare.toml"
    bare.write_text("[preprocess]\nscale = 16\n[probes.loss]\nenabled = false\n", encoding="utf-8")
    result = run(
        *("plan", inputs / "subject.safetensors", "--config", bare),
        *("--forget", inputs / "forget.txt", "--train", inputs / "train.npz"),
        *("--arch", "unaudit:mlp?widths=64-128-128-10"),
    )
    assert result.code == 0
    assert "the original model (--original)" in result.out
    assert "level 1 of 4 at most" in result.out
    will_not = result.out.partition("Will not run")[2].partition("Missing")[0]
    assert "left out by the configuration" in will_not
    assert "add --retrained" in " ".join(will_not.split())


MISTAKES = [
    (["check", "demo/inputs/subjct.safetensors"], 2, "no such file"),
    (["check", "demo/inputs"], 2, "demo/inputs"),
    (["check", "demo/inputs/forget.txt"], 2, "is a text file, not a model"),
    (["check", "{m}", "--forget", "absent.txt"], 2, "absent.txt: no such file"),
    (["check", "{m}", "--id-type", "index"], 2, "'digit-"),
    (["check", "{m}", "--train", "demo/inputs/unseen.npz"], 2, "not in the training data"),
    (["check", "{m}", "--unseen", "demo/inputs/train.npz"], 2, "also in the training data"),
    (["check", "{m}", "--arch", "unaudit:mlp?widths=64-32-10"], 2, "'head.weight' is (10, 128)"),
    (["check", "{m}", "--arch", "unaudit:mpl?widths=64-32-10"], 2, "did you mean"),
    (["check", "{m}", "--arch", "py:os:system"], 4, "--trust-code"),
    (["check", "{m}", "--device", "gpu"], 2, "--device"),
    (["check", "{m}", "--original", "original.pt"], 2, "original.pt: no such file"),
    (["plan", "{m}", "--retrained", "demo/inputs/subject.safetensors"], 2, "own reference"),
    (["check", "{m}", "--store", "demo/inputs/forget.txt/x"], 2, "--store"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"), MISTAKES, ids=[" ".join(args) for args, _, _ in MISTAKES]
)
def test_a_newcomers_mistakes(
    run: Run, demo: Path, tmp_path: Path, arguments: list[str], code: int, complaint: str
) -> None:
    line = [word.format(m="demo/inputs/subject.safetensors") for word in arguments]
    result = run(*line, "--out", tmp_path, "-o", "json")
    assert result.code == code, result.err
    assert complaint in result.err
    complaints = [line for line in result.err.splitlines() if "unaudit: using" not in line]
    assert len(complaints) == 1, result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert not (tmp_path / "record.json").exists()


def test_the_demo_offers_every_subject() -> None:
    from unaudit.cli.demo import SCENARIOS, SUBJECTS
    from unaudit.demo import LAYOUTS

    assert SUBJECTS == DEMO_SUBJECTS
    assert tuple(LAYOUTS) == SCENARIOS


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--subject", "finetune"], "invalid value for '--subject'"),
        (["-o", "htlm"], "did you mean 'html'?"),
        (["--out", "demo/inputs/forget.txt/x"], "choose another folder with --out"),
        (["--seed", "-1"], "invalid value for '--seed'"),
    ],
    ids=str,
)
def test_mistakes_in_the_demos_flags(
    run: Run, demo: Path, arguments: list[str], complaint: str
) -> None:
    result = run("demo", *arguments)
    assert result.code == 2
    assert complaint in result.complaint()
