"""Reports claim no more than tests can show."""

from __future__ import annotations

import ast
import io
import re
from html import unescape
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

import report_templates
from unaudit.report import html, terminal
from unaudit.report.record import ProbeOutcome
from unaudit.report.wording import MUST_APPEAR, READINGS, reading, threat_model

from .samples import ALL, passing

FORBIDDEN = re.compile(
    r"\b(deleted|erased|proven|certified|compliant|anonymous|safe|guaranteed|complies)\b",
    re.IGNORECASE,
)
PASSED = re.compile(r"\bpassed\b", re.IGNORECASE)
SCOPED = re.compile(r"\bpassed these tests, at these settings\b", re.IGNORECASE)


def claims(text: str) -> list[str]:
    """Words that promise more than a test can show."""
    found = [match.group() for match in FORBIDDEN.finditer(text)]
    return found + ["passed"] * (len(PASSED.findall(text)) - len(SCOPED.findall(text)))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The data were Deleted.", 1),
        ("This model is safe and compliant.", 2),
        ("The model passed.", 1),
        ("It passed these tests, at these settings.", 0),
        ("Passing is not proof of deletion.", 0),
        ("model.safetensors, Right to erasure", 0),
        ("unguaranteed-proven", 1),
    ],
)
def test_the_lint_itself(text: str, count: int) -> None:
    assert len(claims(text)) == count


def test_templates_promise_nothing() -> None:
    assert report_templates.__file__ is not None
    templates = list(Path(report_templates.__file__).parent.rglob("*.j2"))
    assert len(templates) > len(html.SECTIONS)
    for template in templates:
        assert not claims(template.read_text(encoding="utf-8")), template.name


def test_phrases_in_the_code_promise_nothing() -> None:
    for source in Path(html.__file__).parent.glob("*.py"):
        if source.name == "record.py":  # names of states, which renderers translate
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                assert not claims(node.value), (source.name, node.value)


@pytest.mark.parametrize("name", [name for name, _ in ALL if name != "hostile"])
def test_rendered_reports_promise_nothing(name: str) -> None:
    record = dict(ALL)[name]()
    body = html.to_html(record).split("<body>")[1]
    assert not claims(unescape(re.sub(r"<[^>]+>", " ", body)))
    stream = io.StringIO()
    terminal.print_summary(record, Console(file=stream, width=80))
    assert not claims(stream.getvalue())


def test_the_sentences_that_must_appear() -> None:
    # as the project's wording rules list them
    expected = (
        "passing is not proof of deletion",
        "failing is evidence, not proof of storage",
        "averages do not protect individuals",
        "results age as attacks improve",
        "other copies, backups and distilled models were not tested",
        "not legal advice",
    )
    for phrase, sentence in zip(expected, MUST_APPEAR, strict=True):
        assert phrase in sentence.lower()


def test_every_outcome_has_a_word_and_a_shape_of_its_own() -> None:
    outcomes: tuple[ProbeOutcome, ...] = get_args(ProbeOutcome)
    readings = [reading(outcome) for outcome in outcomes]
    assert len({read.word for read in READINGS}) == len({read.symbol for read in READINGS}) == 7
    assert len({read.mark for read in readings}) == len(outcomes)
    assert reading("residual", unsigned=True).word == "differs"
    assert reading("like-retrained", unsigned=True).word == "like retrained"


def test_threat_model_follows_the_access() -> None:
    record = passing()
    white = record.plan.policy.model_copy(update={"access": "white-box"})
    opened = record.model_copy(update={"plan": record.plan.model_copy(update={"policy": white})})
    assert threat_model(record).knowledge.startswith("Black-box")
    assert threat_model(opened).knowledge.startswith("White-box")
    assert "5 retrained reference models" in threat_model(record).auxiliary
    assert "gradients" in html.to_html(opened)
