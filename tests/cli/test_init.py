from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Run
from unaudit.cli.init import DEFAULT, EXAMPLES, QUESTIONS, config_text
from unaudit.config import known_keys
from unaudit.plan import CONFIG_NAME, AuditPlan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ANSWERS = {
    "model.path": "model.pt",
    "model.arch": "torchvision:resnet18?num_classes=10",
    "data.train": "train.parquet",
    "request.forget": "forget.txt",
    "data.unseen": "unseen.parquet",
    "references.original": "original.pt",
    "references.retrained": "a.pt b.pt",
}


def test_the_defaults_are_written_without_a_terminal(run: Run, here: Path) -> None:
    result = run("init")
    assert (result.code, result.out) == (0, "wrote unaudit.toml\n")
    assert AuditPlan.from_toml(here / "unaudit.toml") == AuditPlan()


def test_answers_fill_the_file(here: Path) -> None:
    path = here / "unaudit.toml"
    path.write_text(config_text(ANSWERS), encoding="utf-8")
    plan = AuditPlan.from_toml(Path("unaudit.toml"))
    assert plan == AuditPlan.build(
        {
            "schema_version": 1,
            "model": {"path": "model.pt", "arch": ANSWERS["model.arch"]},
            "data": {"train": "train.parquet", "unseen": "unseen.parquet"},
            "request": {"forget": "forget.txt"},
            "references": {"original": "original.pt", "retrained": ["a.pt", "b.pt"]},
        }
    )


def keys_mentioned(text: str) -> Iterator[str]:
    section = ""
    for line in text.splitlines():
        if found := re.fullmatch(r"(?:# )?\[(\w+)[.\w]*\]", line):
            section = found[1]
            if section == "probes":
                yield section
        elif found := re.match(r"(?:# )?(\w+) = ", line):
            yield f"{section}.{found[1]}" if section else found[1]


def test_every_key_of_the_plan_is_mentioned_in_its_section() -> None:
    mentioned = set(keys_mentioned(config_text({})))
    assert mentioned - {"probes.enabled"} == set(known_keys(AuditPlan))


def test_what_is_commented_out_is_valid_when_switched_on(here: Path) -> None:
    text = config_text({})
    text = text.replace("# trust_code = false", "# trust_code = true")
    for line in re.findall(r"^# \w+ = .*$|^# \[(?:probes|recipe).*$", text, flags=re.MULTILINE):
        # the two ways to give the margin exclude each other
        if not line.startswith("# tau"):
            text = text.replace(line, line.removeprefix("# "))
    path = here / "unaudit.toml"
    path.write_text(text, encoding="utf-8")
    plan = AuditPlan.from_toml(path)
    assert plan.preprocess.mean == (0.485, 0.456, 0.406)
    assert plan.probes == {"NAME": {"enabled": False}}


def test_commented_defaults_are_the_defaults() -> None:
    shown = dict(re.findall(r"^# (\w+) = (\S+)", config_text({}), flags=re.MULTILINE))
    plan = AuditPlan()
    for section, key in (
        (plan.policy, "preset"),
        (plan.policy, "alpha"),
        (plan.policy, "accept_black_box"),
        (plan.policy, "fail_on"),
        (plan.run, "seed"),
        (plan.run, "bootstrap"),
        (plan.run, "batch_size"),
        (plan.run, "device"),
        (plan.run, "out"),
        (plan.preprocess, "layout"),
        (plan.model, "trust_code"),
    ):
        assert tomllib.loads(f"x = {shown[key]}")["x"] == getattr(section, key), key


def test_the_file_fits_80_columns() -> None:
    assert max(map(len, config_text({}).splitlines())) <= 80


@given(
    st.fixed_dictionaries(
        {}, optional={key: st.text(min_size=1).map(str.strip).filter(bool) for key, _ in QUESTIONS}
    )
)
def test_any_answer_is_quoted(answers: dict[str, str]) -> None:
    values = tomllib.loads(config_text(answers))
    for key, answer in answers.items():
        section, _, name = key.partition(".")
        expected = answer.split() if key == "references.retrained" else answer
        assert values[section][name] == expected


def test_questions_have_examples() -> None:
    assert DEFAULT == CONFIG_NAME
    assert [key for key, _ in QUESTIONS if key not in EXAMPLES] == []
    # which column holds texts is found out, not asked
    assert {*EXAMPLES} - {key for key, _ in QUESTIONS} == {"data.text_column"}


@pytest.mark.parametrize("name", ["unaudit.toml", "other.toml"])
def test_nothing_is_overwritten_without_force(run: Run, here: Path, name: str) -> None:
    (here / name).write_text("mine", encoding="utf-8")
    result = run("init", name)
    assert result.code == 2
    assert result.complaint().startswith(f"{name} exists; --force overwrites it")
    assert (here / name).read_text(encoding="utf-8") == "mine"
    assert run("init", name, "--force").code == 0
    assert "schema_version = 1" in (here / name).read_text(encoding="utf-8")


def test_an_unwritable_place_is_one_line(run: Run, here: Path) -> None:
    result = run("init", "absent/unaudit.toml")
    assert result.code == 2
    assert "absent/unaudit.toml: cannot be written" in result.complaint()


def test_it_asks_on_a_terminal(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unaudit.cli.init.is_interactive", lambda stream: stream is sys.stdin)
    answers = iter(ANSWERS.values())
    monkeypatch.setattr(click, "prompt", lambda *_, **__: next(answers))
    assert run("init").code == 0
    assert (here / "unaudit.toml").read_text(encoding="utf-8") == config_text(ANSWERS)


def test_yes_asks_nothing(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unaudit.cli.init.is_interactive", lambda _: True)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: pytest.fail("it asked"))
    assert run("init", "--yes").code == 0


def test_ctrl_c_at_a_question_writes_nothing(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> str:
        raise click.Abort

    monkeypatch.setattr("unaudit.cli.init.is_interactive", lambda _: True)
    monkeypatch.setattr(click, "prompt", interrupt)
    assert run("init").code == 130
    assert list(here.iterdir()) == []
