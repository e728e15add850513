"""Texts of examples: in no output unless asked for, and then on one line beside the names."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from tests.hugging_face import (
    causal_folder,
    config_of,
    network_of,
    save,
    sentences,
    trained_tokenizer,
    words,
    write_jsonl,
    write_texts,
)
from tests.report.samples import quoting
from unaudit import pipeline
from unaudit.cli.main import main
from unaudit.data import open_dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.engine.store import Store
from unaudit.errors import InputError
from unaudit.loading import LoadedModel, load_model
from unaudit.measuring import obstacle
from unaudit.plan import AuditPlan, DataSection, PreprocessSection
from unaudit.recording import Run, write_record
from unaudit.recording.excerpts import CONTAINS, LENGTH, beginning, with_texts
from unaudit.report.html import to_html
from unaudit.report.record import Record, Worst, WorstExample
from unaudit.report.table import markdown
from unaudit.report.terminal import print_summary
from unaudit.splits import Split

PLANTED = "zyzzyva"
"""In every text of the tests, and in nothing else."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Short.", "Short."),
        ("two\nlines\tand  a  gap \r\n", "two lines and a gap"),
        ("\x1b[31mred\x07 \u202egnp.exe\u2066", "[31mred gnp.exe"),
        ("", ""),
        ("\x00" * 5000, "…"),
        ("x" * LENGTH, "x" * LENGTH),
        ("x" * (LENGTH + 1), "x" * (LENGTH - 1) + "…"),
        ("a" + " " * 5000 + "b", "a…"),
        ("\ud800lone", "lone"),
    ],
)
def test_a_text_begins_on_one_line(text: str, shown: str) -> None:
    assert beginning(text) == shown


def marked(folder: Path, *, causal: bool) -> Path:
    """A model of random weights and texts that are marked: a classifier, or a language model of
    texts without labels."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 120), ("unseen", 80)):
        texts, labels = sentences(count, 3, rng)
        texts = [f"{PLANTED}{name}{row} {text}" for row, text in enumerate(texts)]
        if causal:
            write_texts(folder / f"{name}.jsonl", texts, name[0])
        else:
            write_jsonl(folder / f"{name}.jsonl", texts, labels, name[0])
    (folder / "forget.txt").write_text("".join(f"t-{row}\n" for row in range(0, 120, 4)))
    if causal:
        causal_folder(folder / "model")
        return folder
    tokenizer = trained_tokenizer(words(), framed=False)
    config = config_of("gpt2", tokenizer.get_vocab_size(), 3)
    save(folder / "model", network_of("gpt2", config), tokenizer)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marked(tmp_path_factory.mktemp("marked"), causal=False)


@pytest.fixture(scope="module")
def dataset(folder: Path) -> TextDataset:
    model = load_model(str(folder / "model"), arch=None)
    assert isinstance(model, LoadedModel)
    found = open_dataset(
        str(folder / "train.jsonl"), DataSection(), PreprocessSection(),
        Store(folder / "texts"), text=model.text,
    )  # fmt: skip
    assert isinstance(found, TextDataset)
    return found


def stored(folder: Path) -> list[str]:
    lines = (folder / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_texts_are_read_by_their_rows(dataset: TextDataset, folder: Path) -> None:
    every = stored(folder)
    rows = np.array([7, 0, 119, 7])
    assert dataset.texts(rows) == [every[row] for row in rows]
    assert dataset.texts(np.empty(0, np.int64)) == []


def test_what_lies_behind_is_not_read(dataset: TextDataset, monkeypatch: Any) -> None:
    read: list[str] = []

    def some() -> Any:
        for text in ("a", "b", "c"):
            read.append(text)
            yield [text]

    monkeypatch.setattr(dataset, "_texts", some)
    assert dataset.texts(np.array([1])) == ["b"]
    assert read == ["a", "b"]


def lists(names: list[str]) -> tuple[Worst, ...]:
    examples = tuple(WorstExample(name=name, score=1.0, above_unseen=0.5) for name in names)
    return (Worst(probe="p", title="P", unseen=3, examples=examples),) * 2


def name_of(example_id: str) -> str:
    return f"{int(example_id.removeprefix('t-')):016x}"


def test_each_name_gets_its_own_text(dataset: TextDataset, folder: Path) -> None:
    forget = Split("forget", dataset, np.array([4, 8, 15, 16]))
    given = lists([name_of("t-16"), name_of("t-4")])
    found, note = with_texts(given, forget, name_of)
    every = stored(folder)
    for own in found:
        assert [example.text for example in own.examples] == [every[16], every[4]]
    assert note == CONTAINS
    assert all(example.text is None for own in given for example in own.examples)


def test_a_file_that_changed_costs_the_texts_alone(dataset: TextDataset, monkeypatch: Any) -> None:
    def changed(_: object) -> None:
        raise InputError("train.jsonl: the file changed; run again")

    monkeypatch.setattr(type(dataset.source), "check_unchanged", changed)
    forget = Split("forget", dataset, np.array([4, 8]))
    given = lists([name_of("t-8")])
    found, note = with_texts(given, forget, name_of)
    assert found == given
    assert note.endswith("asks for it: train.jsonl: the file changed; run again")


def test_without_lists_there_is_nothing_to_show(dataset: TextDataset) -> None:
    found, note = with_texts((), Split("forget", dataset, np.array([4])), name_of)
    assert found == ()
    assert "--shadows N" in note


def test_images_are_not_shown() -> None:
    given = lists([name_of("t-1")])
    split = cast(Split, SimpleNamespace(dataset=object()))
    found, note = with_texts(given, split, name_of)
    assert found == given
    assert note.endswith("the examples are no texts")


def outputs(record: Record) -> dict[str, str]:
    """Everything that is made of a record."""
    stream = io.StringIO()
    print_summary(record, Console(file=stream, width=80, no_color=True))
    return {
        "record.json": record.to_json(),
        "html": to_html(record),
        "terminal": stream.getvalue(),
    }


@pytest.fixture(scope="module", params=["classifier", "language model"])
def audited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Record]:
    """The texts with four shadow models."""
    folder = marked(tmp_path_factory.mktemp("audited"), causal=request.param == "language model")
    plan = AuditPlan.build(
        {
            "model": {"path": str(folder / "model")},
            "references": {"original": str(folder / "model")},
            "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "unseen")},
            "request": {"forget": str(folder / "forget.txt")},
            "recipe": {"lr": 0.01, "epochs": 1, "batch": 32},
            "calibration": {"unlearners": [], "workers": 1, "retrained": 3},
            "shadows": {"count": 4},
            "policy": {"access": "black-box"},
            "run": {"store": str(folder / "store"), "bootstrap": 200, "device": "cpu"},
        }
    )
    runs = []

    def written(run: Run) -> Record:
        runs.append(run)
        return write_record(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_record", written)
        record = pipeline.audit(plan)
    return runs[0], record


def asked(run: Run) -> Run:
    """The same run with texts."""
    settings = run.plan.run.model_copy(update={"show_examples": True})
    # what stands for random draws is used up by writing
    return replace(
        run, plan=run.plan.model_copy(update={"run": settings}), rng=np.random.default_rng(0)
    )


def test_no_text_is_in_any_output_unless_asked_for(audited: tuple[Run, Record]) -> None:
    run, record = audited
    assert record.worst
    assert (record.language is None) == (run.case.task == "classification")
    assert (record.request.unit == "text") == (record.language is not None)
    for name, text in outputs(record).items():
        assert PLANTED not in text.lower(), name
        assert CONTAINS not in text.lower(), name


def test_only_probes_of_such_models_were_planned(audited: tuple[Run, Record]) -> None:
    run, record = audited
    planned = {probe.name for probe in record.plan.probes}
    fitting = {p.card.name for p in run.probes if obstacle(p.card, run.case) is None}
    assert planned == fitting < {probe.card.name for probe in run.probes}
    assert all(run.case.task in p.card.tasks for p in run.probes if p.card.name in planned)
    # what does not fit is not passed over in silence
    assert {probe.card.name for probe in run.probes} - planned <= {s.probe for s in record.skipped}


def test_texts_without_labels_have_no_classes(audited: tuple[Run, Record]) -> None:
    _, record = audited
    labeled = record.language is None
    assert record.request.n_classes == (3 if labeled else 1)
    assert bool(record.request.classes) == bool(record.controls.per_class) == labeled


def test_a_word_of_all_forget_texts_is_no_part_of_the_record(audited: tuple[Run, Record]) -> None:
    run, _ = audited
    spec = f"keyword:{PLANTED}"
    request = run.plan.request.model_copy(update={"forget": spec})
    plan = run.plan.model_copy(update={"request": request})
    for command in (None, f"unaudit check model --forget {spec}"):
        again = replace(run, plan=plan, command=command, rng=np.random.default_rng(0))
        record = write_record(again)
        assert PLANTED not in record.to_json()
        assert record.plan.config["request"]["forget"] == "keyword:…"
        assert "--forget 'keyword:…'" in record.environment.command
        assert PLANTED in write_record(asked(again)).environment.command


def test_texts_are_in_the_record_and_the_page_if_asked_for(audited: tuple[Run, Record]) -> None:
    run, plain = audited
    record = write_record(asked(run))
    folder = Path(run.plan.data.train or "").parent
    every = {run.name_of(f"t-{row}"): text for row, text in enumerate(stored(folder))}
    for found in record.worst:
        for example in found.examples:
            assert example.text == every[example.name]
    made = outputs(record)
    assert PLANTED in made["record.json"]
    assert PLANTED in made["html"]
    assert PLANTED not in made["terminal"], "which lists no examples"
    for text in made.values():
        assert CONTAINS in text.lower()
    # it changes nothing else
    assert record.findings == plain.findings
    assert record.verdict == plain.verdict
    assert record.plan.sha256 == plain.plan.sha256
    assert record.plan.config["run"]["show_examples"] is True


def test_the_flag_reaches_the_plan(tmp_path: Path, monkeypatch: Any) -> None:
    plans: list[AuditPlan] = []

    def conduct(plan: AuditPlan, *_: Any, **__: Any) -> Any:
        plans.append(plan)
        return SimpleNamespace(verdict=SimpleNamespace(exit_code=0))

    monkeypatch.setattr("unaudit.cli.check.conduct", conduct)
    monkeypatch.chdir(tmp_path)
    line = ["check", "m.pt", "--forget", "ids.txt", "--train", "t.jsonl", "--shadows", "4"]
    assert main(line) == main([*line, "--show-examples"]) == 0
    assert [plan.run.show_examples for plan in plans] == [False, True]


def test_a_comparison_shows_no_text() -> None:
    record = quoting()
    texts = {e.text for found in record.worst for e in found.examples if e.text}
    assert texts
    assert not any(text[:20] in markdown(record) for text in texts)
