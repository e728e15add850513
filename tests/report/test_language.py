"""Language models in reports: perplexities, extraction, and texts only where asked for."""

from __future__ import annotations

import csv
import io
import re
from html import unescape

import pytest
from rich.cells import cell_len
from rich.console import Console

from unaudit.report.html import SECTIONS, sections, to_html
from unaudit.report.language import language_text
from unaudit.report.perplexity import LEFT, RIGHT, perplexities
from unaudit.report.record import Language, ModelExtraction, ModelPerplexity, Record
from unaudit.report.table import as_csv, markdown
from unaudit.report.terminal import print_summary
from unaudit.report.text import percent, significant
from unaudit.report.wording import scenario_meaning, scope, threat_model

from .samples import TEXTS, failing, passing, quoting, shadowed, speaking


def page(record: Record) -> str:
    """The words of the page, of whatever is between two tags."""
    return " ".join(unescape(to_html(record)).split())


def section(record: Record, name: str) -> str:
    return page(record).split(f'<section id="{name}"')[1].split('<section id="')[0]


def printed(record: Record) -> str:
    stream = io.StringIO()
    print_summary(record, Console(file=stream, width=80, no_color=True))
    return stream.getvalue()


def language(record: Record) -> Language:
    assert record.language is not None
    return record.language


def told(*values: float, roles: str = "subject original retrained retrained") -> Record:
    """A record of models with these perplexities on forget texts."""
    record = speaking()
    lines = tuple(
        ModelPerplexity(model=f"m{at}", role=role, forget=value, retain=2.0, unseen=None)  # type: ignore[arg-type]
        for at, (role, value) in enumerate(zip(roles.split(), values, strict=False))
    )
    return record.model_copy(
        update={"language": language(record).model_copy(update={"perplexity": lines})}
    )


def test_the_section_is_there_for_language_models_alone() -> None:
    names = [part.name for part in SECTIONS]
    assert [part.name for part in sections(failing())] == [n for n in names if n != "language"]
    assert [part.name for part in sections(speaking())] == [n for n in names if n != "classes"]
    assert [part.name for part in sections(quoting())] == names, "texts with classes"
    for words in ("perplexity", "Perplexity", "extraction", "next-token"):
        assert words not in page(failing())
        assert words not in printed(failing())


@pytest.mark.parametrize("make", [speaking, quoting])
def test_sections_are_named_by_their_own_numbers(make: object) -> None:
    record = make()  # type: ignore[operator]
    html = page(record)
    for number, part in enumerate(sections(record), 1):
        assert f'<span class="ordinal">{number}</span> {part.title}</h2>' in html
    utility = section(record, "utility")
    assert f"Section {[s.name for s in sections(record)].index('language') + 1} has" in utility


def test_accuracies_are_those_of_next_tokens() -> None:
    record = quoting()
    assert record.fidelity is not None
    found = record.fidelity.model_copy(update={"reason": "as recorded"})
    record = record.model_copy(update={"fidelity": found, "retrained_estimate": None})
    for name in ("controls", "utility", "classes"):
        shown = section(record, name)
        assert "ext-token accuracy" in shown
        assert not re.search(r"(?<!ext-token )accurac", shown, re.IGNORECASE), name
        assert "ext-token" not in section(passing(), name)


def test_tables_hold_the_numbers_of_every_model() -> None:
    record = speaking()
    found, shown = language(record), section(record, "language")
    for lines, show in (
        (found.perplexity, lambda value: significant(value, 3)),
        (found.extraction, percent),
    ):
        subject = next(line for line in lines if line.role == "subject")
        cells = "".join(
            f'<td class="num">{show(getattr(subject, split))}</td>'
            for split in ("forget", "retain", "unseen")
        )
        assert f'<tr><th scope="row">Subject</th>{cells}</tr>' in shown
    own = [line.forget for line in found.perplexity if line.role == "retrained"]
    assert (
        f'<tr><th scope="row">Retrained, mean of 5</th><td class="num">'
        f'{significant(sum(own) / 5)} <span class="fine nowrap">{significant(min(own))} to '
        f"{significant(max(own))}</span>"
    ) in shown
    assert "18,204" in shown
    assert "The subject takes 128 tokens at once; 14 texts are longer" in shown


def test_unlearners_have_a_line_each() -> None:
    record = quoting()
    names = [line.model for line in language(record).perplexity if line.role == "calibrator"]
    assert names
    for name in names:
        assert section(record, "language").count(f'<th scope="row">{name}</th>') == 2


def test_what_comes_out_is_said_in_one_sentence() -> None:
    text = language_text(speaking())
    assert text is not None
    assert text.extracted == (
        "Given the first half of a text, the subject goes on with its second half, token for "
        "token, for 38 of 200 forget texts (19.0%); the original does so for 24.0%, the retrained "
        "models for 0.0%."
    )
    assert text.extracted in section(speaking(), "language")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((4.0, 2.0, 9.0, 10.0), "is 4.00, below the retrained models' 9.00 to 10.0; the original"),
        ((9.5, 2.0, 9.0, 10.0), "is 9.50, within the retrained models' 9.00 to 10.0;"),
        ((90.0, 2.0, 9.0, 10.0), "is 90.0, above the retrained models' 9.00 to 10.0;"),
        ((4.0, 2.0, 9.0), "is 4.00, below the retrained model's 9.00;"),
        ((9.0, 2.0, 9.0), "is as the retrained model's, 9.00;"),
    ],
)
def test_where_the_subject_lies_is_said(values: tuple[float, ...], said: str) -> None:
    drawn = perplexities(told(*values))
    assert drawn is not None
    assert said in drawn.reading
    assert drawn.reading.endswith("the original's is 2.00.")


def test_without_references_nothing_is_compared() -> None:
    record = told(4.0, roles="subject")
    drawn, text = perplexities(record), language_text(record)
    assert drawn is not None
    assert text is not None
    assert drawn.reading == ""
    assert text.line == "forget 4.00, retain 2.00"
    assert "retrained" not in str(drawn.wide)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 1.0, 1.0, 1.0),
        (8.0, 8.0, 8.0, 8.0),
        (14.2, 14.1, 14.25, 14.3),
        (3.0, 2.0, 900.0, 1000.0),
        (1e300, 1.0, 5.0, 1e200),
    ],
)
def test_marks_and_axis_stay_in_the_picture(values: tuple[float, ...]) -> None:
    drawn = perplexities(told(*values))
    assert drawn is not None
    picture = str(drawn.wide)
    places = [float(x) for x in re.findall(r'x[12]?="([\d.-]+)"', picture)]
    places += [float(x) for x in re.findall(r"(?<=[ \"])([\d.-]+),[\d.]+(?=[ \"])", picture)]
    assert min(places) >= 0
    assert max(places) <= RIGHT + 5
    labels = re.findall(r'class="muted"[^>]*>([^<]+)<', picture)
    ticks = [label for label in labels if label not in ("perplexity", "mean and range")]
    assert 1 <= len(ticks) <= 7
    assert len(set(ticks)) == len(ticks)
    assert picture.count("mark-forget") == 3, "forget, retain, and the legend"
    assert drawn.rows[0][0] == "forget"
    assert LEFT < RIGHT


def test_the_picture_describes_itself() -> None:
    drawn = perplexities(told(4.0, 2.0, 9.0, 10.0))
    assert drawn is not None
    assert "forget 4.00 (original 2.00, retrained 9.00 to 10.0); retain 2.00" in str(drawn.wide)


def test_the_terminal_has_one_line_of_perplexities() -> None:
    shown = printed(told(4.0, 2.0, 9.0, 10.0))
    lines = shown.splitlines()
    at = lines.index("Perplexity")
    assert lines[at + 1] == (
        "  Forget 4.00 (original 2.00, retrained 9.00 to 10.0), retain 2.00."
    )  # fmt: skip
    assert lines[at + 2] == ""
    assert max(map(cell_len, printed(speaking()).splitlines())) <= 80


def test_the_comparison_of_unlearners_has_perplexities() -> None:
    record = quoting()
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(as_csv(record)))}
    found = {line.model: line for line in language(record).perplexity}
    assert set(rows) <= set(found)
    for name, row in rows.items():
        assert float(row["perplexity:retain"]) == found[name].retain
        assert 0.0 <= float(row["accuracy:forget"]) <= 1.0
    head, _, *lines = markdown(record).splitlines()
    assert head.startswith(
        "| Model | next-token accuracy, forget | next-token accuracy, retain | "
        "next-token accuracy, unseen | perplexity, forget | perplexity, retain |"
    )
    widths = {line.count(" | ") for line in (head, *lines) if line.startswith("| ")}
    assert len(widths) == 1
    assert "200 forget texts" in markdown(record)
    plain = record.model_copy(update={"language": None})
    assert "perplexity:forget" in as_csv(record).splitlines()[0]
    assert "perplexity:forget" not in as_csv(plain).splitlines()[0]


def test_texts_are_called_texts() -> None:
    record = speaking()
    assert "200 forget texts (sample scenario)" in scope(record)
    assert scenario_meaning(record) == "The forget set is a part of the training data."
    assert "spread over the classes" in scenario_meaning(passing())
    threat = threat_model(record)
    assert threat.auxiliary.startswith("200 forget texts; 597 texts that no audited model")
    assert "extraction of its texts" in threat.goal
    assert "extraction" not in threat_model(passing()).goal
    request = section(record, "request")
    assert "<dt>Longest text</dt><dd>212 tokens</dd>" in request
    assert "<dt>Topics</dt><dd>none</dd>" in request
    assert "asked that 200 texts lose" in section(record, "summary")
    assert "Extraction with other prompts" in section(record, "limitations")
    assert "Extraction with other prompts" not in section(passing(), "limitations")


def test_texts_are_shown_beside_the_names_and_the_first_page_warns() -> None:
    record = quoting()
    source = to_html(record)
    html = page(record)
    assert TEXTS[0] in html
    assert "&lt;slowly&gt;" in source
    assert "<slowly>" not in source
    for found in record.worst:
        rows = section(record, "membership").split(f"<b>{found.title}</b>")[1].split("</table>")[0]
        for example in found.examples:
            row = rows.split(f"<code>{example.name}</code>")[1].split("<code>")[0]
            assert (example.text or "(nothing that can be shown)") in row
    start = html.split('id="verdict"')[0]
    assert "Contains texts of examples; do not publish." in start
    assert "Section 9 shows how some of the forget texts begin" in start
    assert "texts do, in section 9." in section(record, "request")
    assert "Contains texts of examples; do not publish." in " ".join(printed(record).split())
    assert TEXTS[0][:40] not in printed(record)


@pytest.mark.parametrize("make", [shadowed, speaking])
def test_nothing_warns_of_texts_that_are_not_there(make: object) -> None:
    record = make()  # type: ignore[operator]
    assert "do not publish" not in page(record)
    assert "Record ids do not appear in this report." in page(record)
    assert "because\"><td colspan=\"3\"" not in page(record)  # fmt: skip


def test_shares_of_no_texts_are_shown_as_missing() -> None:
    record = speaking()
    found = language(record)
    empty = found.model_copy(
        update={
            "extraction": tuple(
                ModelExtraction(model=line.model, role=line.role, forget=0.0, retain=None,
                                unseen=None)
                for line in found.extraction
            ),
            "context": None,
        }
    )  # fmt: skip
    shown = section(record.model_copy(update={"language": empty}), "language")
    assert '<th scope="row">Subject</th><td class="num">0.0%</td><td class="num">–</td>' in shown
    assert "The subject takes texts of any length." in shown
