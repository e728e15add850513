"""What a retrained model would get right: in the record, on the page, on the terminal."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from rich.cells import cell_len
from rich.console import Console

from unaudit.errors import InputError
from unaudit.report.estimate import Estimate, estimate
from unaudit.report.html import to_html
from unaudit.report.record import Record, RetrainedEstimate, json_schema
from unaudit.report.terminal import print_summary

from .samples import HOSTILE, bare, build, faked, hostile, passing
from .unlearned import fidelity, foretold, not_foretold

HEADING = "What would a retrained model still get right?"
TITLE = "Forget accuracy of a retrained model, estimated"


def with_estimate(
    found: RetrainedEstimate | None, record: Record | None = None, **request: object
) -> Record:
    record = record or passing()
    update = {
        "retrained_estimate": found,
        "request": record.request.model_copy(update=request),
    }
    return record.model_copy(update=update)


def alone(found: RetrainedEstimate | None = None) -> Record:
    """Without any retrained model."""
    record = build(outcome="inconclusive", scenario="sample", center=0.4, references=0)
    return with_estimate(found or foretold(retrained=0), record)


def sure(record: Record) -> Estimate:
    found = estimate(record)
    assert found is not None
    return found


def section(record: Record) -> str:
    found: list[str] = []

    class Words(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Words().feed(to_html(record).split('<section id="controls"')[1].split("<section id=")[0])
    return " ".join(" ".join(found).split())


def terminal(record: Record) -> list[str]:
    stream = io.StringIO()
    print_summary(record, Console(file=stream, width=80, no_color=True))
    return stream.getvalue().splitlines()


def test_the_record_carries_it(tmp_path: Path) -> None:
    for found in (foretold(), foretold(retrained=0), not_foretold("too few"), None):
        record = with_estimate(found)
        path = tmp_path / "record.json"
        path.write_text(record.to_json(), encoding="utf-8")
        assert Record.read(path).retrained_estimate == found
        jsonschema.Draft202012Validator(json_schema()).validate(json.loads(record.to_json()))


def test_a_record_without_the_key_is_read(tmp_path: Path) -> None:
    values = json.loads(passing().to_json())
    del values["retrained_estimate"]
    path = tmp_path / "record.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    assert Record.read(path).retrained_estimate is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"reason": "why"}, "or the reason why not"),
        ({"stderr": None}, "or the reason why not"),
        ({"truth": None}, "the truth is known where there are retrained models"),
        ({"retrained": 0}, "the truth is known where there are retrained models"),
        ({"value": 1.2}, "less than or equal to 1"),
        ({"stderr": -0.1}, "greater than or equal to 0"),
    ],
)
def test_halves_of_an_estimate_are_refused(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    values = json.loads(faked().to_json())
    values["retrained_estimate"] |= changes
    path = tmp_path / "record.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(InputError, match=f"retrained_estimate.*{complaint}") as caught:
        Record.read(path)
    assert "\n" not in str(caught.value)


def test_the_page_shows_estimate_and_truth_side_by_side() -> None:
    record = with_estimate(foretold())
    said = section(record)
    assert f"{HEADING} A model trained without the forget set should get 94.2% of it" in said
    assert "A retrained model, estimated ± 1.5 points 94.2%" in said
    assert "Retrained models, mean of 5 93.4%" in said
    assert "The 5 retrained models get 0.8 points less, within two standard errors." in said
    assert "The verdict does not rest on this estimate." in said
    assert "300 validation examples, which count as 291" in said
    assert "in cross-validation, 6.1% of them are foretold wrongly" in said
    for role, name in (("subject", "Subject"), ("original", "Original")):
        (row,) = (row for row in record.controls.accuracy if row.role == role)
        assert f"{name} {100 * row.forget:.1f}%" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"truth": 0.9421}, "The 5 retrained models get just as much right."),
        ({"truth": 0.96}, "The 5 retrained models get 1.8 points more, within two"),
        (
            {"truth": 0.90},
            "The 5 retrained models get 4.2 points less, more than two standard errors away; "
            "believe what was retrained.",
        ),
        ({"retrained": 1}, "The one retrained model gets 0.8 points less, within two"),
    ],
)
def test_the_truth_is_compared_in_words(changes: dict[str, Any], words: str) -> None:
    assert words in sure(with_estimate(foretold(**changes))).sentences


def test_models_from_another_recipe_are_not_to_be_believed() -> None:
    record = with_estimate(foretold(truth=0.9))
    doubtful = record.model_copy(update={"fidelity": fidelity(0.12)})
    assert "two standard errors away; believe" in sure(record).sentences
    assert "two standard errors away. The verdict" in sure(doubtful).sentences


def test_without_retrained_models_there_is_no_truth() -> None:
    found = sure(alone())
    assert [name for name, _, _ in found.rows] == ["A retrained model, estimated", "Subject"]
    assert "retrained models get" not in found.sentences
    assert HEADING in section(alone())


def test_reservations_are_stated() -> None:
    plain = sure(with_estimate(foretold())).note
    part = sure(with_estimate(foretold(), scenario="partial-class")).note
    assumed = sure(with_estimate(foretold(recipe_given=False))).note
    assert "the estimate is too high" in part
    assert "what is usual for such a network was assumed" in assumed
    for words in ("too high", "assumed"):
        assert words not in plain


def test_without_an_estimate_the_page_says_why() -> None:
    said = section(bare())
    assert "was not estimated: There is no original." in said
    assert HEADING not in said
    assert "was not estimated" not in section(passing())
    assert HEADING not in section(passing())
    assert estimate(bare()) is None
    assert estimate(passing()) is None


def test_hostile_strings_are_shown_as_they_are() -> None:
    reason = with_estimate(not_foretold(f"{HOSTILE} because"))
    for record in (hostile(), reason):
        page = to_html(record)
        assert "<script" not in page.split("<body>")[1]
        assert "&lt;script&gt;" in page.split('id="controls"')[1].split("<section id=")[0]
        assert not set("\x1b\x07\x00\x9b\u202e\u2066") & set(page)


def test_the_terminal_has_one_line_where_there_is_no_retrained_model() -> None:
    lines = terminal(alone())
    at = lines.index(TITLE)
    (subject,) = (row for row in alone().controls.accuracy if row.role == "subject")
    assert lines[at + 1] == (
        f"  94.2% ± 1.5 points; the subject's is {100 * subject.forget:.1f}%. It decides nothing."
    )
    assert re.fullmatch(r"\s*", lines[at + 2])
    assert max(map(cell_len, lines)) <= 80
    for record in (faked(), with_estimate(foretold()), bare(), alone(not_foretold("why"))):
        assert TITLE not in terminal(record)


def test_the_widest_line_fits() -> None:
    wide = alone(foretold(retrained=0, value=1.0, stderr=0.2))
    record = wide.model_copy(
        update={
            "controls": wide.controls.model_copy(
                update={
                    "accuracy": tuple(
                        row.model_copy(update={"forget": 1.0}) for row in wide.controls.accuracy
                    )
                }
            )
        }
    )
    (line,) = (line for line in terminal(record) if "100.0% ± 20.0 points" in line)
    assert line.endswith("It decides nothing.")
