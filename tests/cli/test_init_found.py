"""``unaudit init`` beside the files of an audit: what it writes works at once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Run
from tests.hugging_face import causal_folder, words, write_texts
from unaudit.cli.init import _beside
from unaudit.cli.surroundings import found_around, text_column
from unaudit.plan import AuditPlan


@pytest.fixture
def texts(here: Path) -> Path:
    """Everything that an audit of a language model needs, without labels."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("unseen", 30)):
        rows = [" ".join(rng.choice(words(), 6)) for _ in range(count)]
        write_texts(here / f"{name}.jsonl", rows, name)
    (here / "forget.txt").write_text("".join(f"train-{row}\n" for row in range(0, 60, 3)))
    names = ("subject", "original", "retrained-1", "retrained-2", "retrained-10")
    for seed, name in enumerate(names):
        causal_folder(here / name, seed, n_layer=1)
    return here


def renamed(path: Path, column: str) -> None:
    """The same texts in another column."""
    rows = map(json.loads, path.read_text().splitlines())
    lines = (json.dumps({"id": row["id"], column: row["text"]}) for row in rows)
    path.write_text("\n".join(lines))


def test_a_language_model_can_be_audited_at_once(run: Run, texts: Path) -> None:
    result = run("init")
    assert (result.code, result.out) == (0, "wrote unaudit.toml\n")
    assert "filled in from what lies here: model.path = subject, references.original" in result.err
    plan = AuditPlan.from_toml(texts / "unaudit.toml")
    assert (plan.model.path, plan.model.arch) == (str(texts / "subject"), None)
    assert plan.references.retrained == tuple(str(texts / f"retrained-{n}") for n in (1, 2, 10))
    assert plan.data.label_column is None
    found = run("plan", "--store", "store")
    assert found.code == 0
    assert "subject    subject" in found.out
    assert "need no labels" in (texts / "unaudit.toml").read_text()


@pytest.mark.parametrize("named", ["subject", "subject" + os.sep, "./subject"])
def test_a_model_may_be_named(run: Run, texts: Path, named: str) -> None:
    (texts / "model").mkdir()
    assert run("init", named).code == 0
    assert (texts / "unaudit.toml").exists()
    plan = AuditPlan.from_toml(texts / "unaudit.toml")
    assert Path(str(plan.model.path)).resolve() == texts / "subject"
    assert run("init", named).complaint().startswith("unaudit.toml exists; --force")


def test_inside_a_model_that_model_is_meant(
    run: Run, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(texts / "original")
    assert run("init").code == 0
    assert Path(str(AuditPlan.from_toml(Path("unaudit.toml")).model.path)).samefile(".")


def test_another_folder_is_no_file_to_write(run: Run, here: Path) -> None:
    (here / "data").mkdir()
    for force in ((), ("--force",)):
        result = run("init", "data", *force)
        assert result.code == 2
        assert result.complaint() == (
            "data is a folder, and no Hugging Face folder (config.json); name the file to write"
        )


def test_a_column_of_texts_of_another_name_is_found(run: Run, texts: Path) -> None:
    renamed(texts / "train.jsonl", "content")
    renamed(texts / "unseen.jsonl", "content")
    assert run("init").code == 0
    assert AuditPlan.from_toml(texts / "unaudit.toml").data.text_column == "content"
    assert run("plan", "--store", "store").code == 0


def test_only_one_column_can_be_meant(texts: Path) -> None:
    model = texts / "subject"

    def column(name: str, content: str) -> str | None:
        (texts / name).write_text(content, encoding="utf-8")
        return text_column(model, texts / name)

    assert column("a.jsonl", '{"id": "1", "body": "b c", "label": "x", "n": 3}\n') == "body"
    assert column("a.jsonl", '\ufeff{"id": "1", "body": "b c"}\n') == "body"
    assert column("a.jsonl", '{"body": "b c", "title": "t"}\n') is None
    assert column("a.jsonl", '{"body": "b c", "text": "t"}\n') is None
    assert column("a.csv", 'body,n,label\n"b, c",3,x\n') == "body"
    assert column("a.tsv", "body\tn\nb c\t3\n") == "body"
    for broken in ("", "{", "[1]", "\0"):
        assert column("a.jsonl", broken) is None
        assert column("a.parquet", broken) is None
    pq.write_table(pa.table({"n": [1], "body": ["b c"]}), texts / "b.parquet")
    assert text_column(model, texts / "b.parquet") == "body"
    assert text_column(texts / "absent.pt", texts / "b.parquet") is None


def test_the_usual_names(here: Path) -> None:
    assert found_around(here) == {}
    for name in ("model.pt", "unlearned.safetensors", "test.csv", "train.npz", "retrained_2.pt"):
        (here / name).write_text("x")
    for name in ("retrained_10.pt", "retrained.txt", "retrained 3.pt", "forget.csv"):
        (here / name).write_text("x")
    (here / "original").mkdir()
    assert found_around(here) == {
        "model.path": "unlearned.safetensors",
        "data.train": "train.npz",
        "data.unseen": "test.csv",
        "references.retrained": "retrained_2.pt retrained_10.pt",
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Questions and what was proposed; everything proposed is taken, but for the original."""
    seen: list[tuple[str, str]] = []

    def answer(question: str, *, default: str, show_default: bool, **_: object) -> str:
        seen.append((question, default))
        assert show_default == bool(default)
        return "-" if question == "The model before unlearning" else default

    monkeypatch.setattr("unaudit.cli.init.is_interactive", lambda _: True)
    monkeypatch.setattr(click, "prompt", answer)
    return seen


def test_what_was_found_is_proposed(run: Run, texts: Path, asked: Sequence[object]) -> None:
    assert run("init").code == 0
    proposals = [proposed for _, proposed in asked]  # type: ignore[misc]
    retrained = "retrained-1 retrained-2 retrained-10"
    # a folder says itself of which architecture it is
    assert proposals == ["subject", "train.jsonl", "forget.txt", "unseen.jsonl", "original",
                         retrained]  # fmt: skip
    plan = AuditPlan.from_toml(texts / "unaudit.toml")
    assert plan.references.original is None
    assert plan.data.train == str(texts / "train.jsonl")


def test_answers_are_paths_from_here(
    run: Run, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (texts / "audit").mkdir()
    answers = iter(["subject", "train.jsonl", "absent.txt", "", "", "retrained-1 retrained-2"])
    monkeypatch.setattr("unaudit.cli.init.is_interactive", lambda _: True)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: next(answers))
    assert run("init", "audit/unaudit.toml").code == 0
    plan = AuditPlan.from_toml(Path("audit/unaudit.toml"))
    assert Path(str(plan.model.path)).samefile(texts / "subject")
    assert Path(str(plan.data.train)).samefile(texts / "train.jsonl")
    assert plan.request.forget == "audit/absent.txt"
    assert [Path(x).name for x in plan.references.retrained] == ["retrained-1", "retrained-2"]
    assert all(Path(x).exists() for x in plan.references.retrained)


ARCH = "Its architecture, e.g. torchvision:resnet18?num_classes=10"


def test_what_lies_beside_the_file_says_itself_what_it_is(
    run: Run, here: Path, asked: list[tuple[str, str]]
) -> None:
    (here / "sub").mkdir()
    causal_folder(here / "sub" / "subject", 0, n_layer=1)
    assert run("init", "sub/unaudit.toml").code == 0
    assert asked[0][1] == "subject"
    assert ARCH not in dict(asked)
    plan = AuditPlan.from_toml(here / "sub" / "unaudit.toml")
    assert plan.model.path == str(here / "sub" / "subject")


def answered(monkeypatch: pytest.MonkeyPatch, model: str) -> list[str]:
    """The questions to come; ``model`` is the first answer, train.jsonl that for training data."""
    seen: list[str] = []

    def answer(question: str, **_: object) -> str:
        seen.append(question)
        if len(seen) == 1:
            return model
        return "train.jsonl" if question.startswith("The original's training data") else ""

    monkeypatch.setattr("unaudit.cli.init.is_interactive", lambda _: True)
    monkeypatch.setattr(click, "prompt", answer)
    return seen


@pytest.mark.parametrize("model", ["subject", "./subject"])
def test_a_model_named_from_here_says_itself_what_it_is(
    run: Run, texts: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    (texts / "audit").mkdir()
    renamed(texts / "train.jsonl", "content")
    questions = answered(monkeypatch, model)
    assert run("init", "audit/unaudit.toml").code == 0
    assert ARCH not in questions
    assert AuditPlan.from_toml(Path("audit/unaudit.toml")).data.text_column == "content"


@pytest.mark.parametrize("nothing", ["", "-"])
@pytest.mark.parametrize("file", ["unaudit.toml", "audit/unaudit.toml"])
def test_a_model_left_open_is_not_the_folder_itself(
    run: Run, texts: Path, monkeypatch: pytest.MonkeyPatch, file: str, nothing: str
) -> None:
    (texts / "audit").mkdir()
    renamed(texts / "train.jsonl", "content")
    for folder in (texts, texts / "audit"):
        (folder / "config.json").write_text("{}")
    questions = answered(monkeypatch, nothing)
    assert run("init", file).code == 0
    assert ARCH in questions
    plan = AuditPlan.from_toml(Path(file))
    assert (plan.model.path, plan.data.text_column) == (None, None)


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ("logits.npz", "../logits.npz"),
        ("outputs:logits.npz", "outputs:../logits.npz"),
        ("outputs:./logits.npz", "outputs:../logits.npz"),
        ("outputs:beside.npz", "outputs:beside.npz"),
        ("outputs:absent.npz", "outputs:absent.npz"),
        ("outputs:", "outputs:"),
    ],
)
def test_recorded_outputs_are_paths_from_here(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, answer: str, written: str
) -> None:
    (here / "audit").mkdir()
    for name in ("logits.npz", "audit/beside.npz"):
        (here / name).write_bytes(b"x")
    answered(monkeypatch, answer)
    assert run("init", "audit/unaudit.toml").code == 0
    assert f'\npath = "{written}"\n' in (here / "audit" / "unaudit.toml").read_text()


@pytest.mark.parametrize(
    ("key", "answer", "written"),
    [
        ("model.arch", "hf:base", "hf:../base"),
        ("model.arch", "hf:absent", "hf:absent"),
        ("model.arch", "base", "base"),
        ("data.train", "torchvision:CIFAR10?root=base", "torchvision:CIFAR10?root=../base"),
        (
            "data.train",
            "torchvision:CIFAR10?train=true&root=base&x=1",
            "torchvision:CIFAR10?train=true&root=../base&x=1",
        ),
    ],
)
def test_folders_named_within_an_answer_are_moved_as_well(
    here: Path, key: str, answer: str, written: str
) -> None:
    for folder in ("audit", "base"):
        (here / folder).mkdir()
    assert _beside(Path("audit/unaudit.toml"), key, answer) == written
