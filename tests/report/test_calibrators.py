"""Models of known making: maps, the head-distillation check, the fidelity of the recipe."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.console import Console

from unaudit.report.fakes import check
from unaudit.report.figures import draw
from unaudit.report.heatgrid import SLANT
from unaudit.report.heatgrid_layout import NARROW, WIDE, column_blocks
from unaudit.report.html import to_html
from unaudit.report.record import Matrix, MatrixCell, Record
from unaudit.report.svg import CHARACTER
from unaudit.report.terminal import print_summary

from .samples import compared, crowded, failing, faked, passing
from .unlearned import FAKE, Group, fidelity, with_unlearners


def section(record: Record, name: str) -> str:
    found: list[str] = []

    class Words(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Words().feed(to_html(record).split(f'<section id="{name}"')[1].split("<section id=")[0])
    return " ".join(" ".join(found).split())


def terminal(record: Record) -> list[str]:
    stream = io.StringIO()
    print_summary(record, Console(file=stream, width=80))
    return stream.getvalue().splitlines()


def changed(matrix: Matrix, model: str, **cells: MatrixCell | None) -> Matrix:
    """With other cells of one model, by probe (dashes as underscores)."""
    rows = tuple(
        row.model_copy(
            update={
                "cells": tuple(
                    cells.get(column.probe.replace("-", "_"), cell)
                    for column, cell in zip(matrix.columns, row.cells, strict=True)
                )
            }
        )
        if row.model == model
        else row
        for row in matrix.rows
    )
    return matrix.model_copy(update={"rows": rows})


def grid(record: Record, number: int = 0) -> ElementTree.Element:
    return ElementTree.fromstring(str(draw(record).matrix[number].wide))


def texts(svg: ElementTree.Element, **attributes: str) -> list[ElementTree.Element]:
    return [
        label
        for label in svg.iter("text")
        if all(label.get(key) == value for key, value in attributes.items())
    ]


def test_one_map_for_outputs_and_one_for_the_inside() -> None:
    outputs, inside = draw(compared()).matrix
    assert (outputs.title, inside.title) == (
        "What outputs show",
        "What activations and weights show",
    )
    assert {row[0] for row in outputs.rows}.isdisjoint(row[0] for row in inside.rows)
    (only,) = draw(faked()).matrix
    assert only.title == "What outputs show"
    assert draw(passing()).matrix == []


def test_informative_columns_come_first_and_the_others_are_gray_without_numbers() -> None:
    record = faked()
    assert record.matrix is not None
    svg = grid(record)
    titles = [label for label in svg.iter("text") if "transform" in label.attrib]
    assert [label.get("class") for label in titles] == ["ink"] * 8 + ["muted"] * 2
    places = [float(label.attrib["x"]) for label in titles]
    assert places == sorted(places)
    gray = [r for r in svg.iter("rect") if r.get("class") == "floor"]
    assert len(gray) == 2 * len(record.matrix.rows)
    first_gray = min(float(rect.attrib["x"]) for rect in gray)
    numbers = [t for t in svg.iter("text") if re.fullmatch(r"−?\d+\.\d+", t.text or "")]
    assert max(float(label.attrib["x"]) for label in numbers) < first_gray


def test_cells_hold_the_numbers_and_marks_of_the_record() -> None:
    record = faked()
    assert record.matrix is not None
    shown = [t.text for t in grid(record).iter("text") if t.get("class") == "ink"]
    informative = [i for i, c in enumerate(record.matrix.columns) if c.informative]
    for row in record.matrix.rows:
        for place in informative:
            cell = row.cells[place]
            assert cell is not None
            assert cell.index is not None
            said = f"{cell.index.estimate:.2f}".replace("-", "−")
            assert said.removeprefix("−") == "0.00" or said in shown
    marks = "●▲▼◇■"
    assert sum(text in marks for text in shown if text) == len(informative) * len(
        record.matrix.rows
    )


def test_the_subject_is_framed_and_in_bold() -> None:
    svg = grid(faked())
    (frame,) = [r for r in svg.iter("rect") if r.get("class") == "outline"]
    (label,) = texts(svg, **{"class": "strong"})
    assert label.text == "subject"
    top = float(frame.attrib["y"])
    assert top < float(label.attrib["y"]) < top + float(frame.attrib["height"])


@pytest.mark.parametrize(
    ("estimate", "style", "said"),
    [
        (0.0, "heat-zero", "0.00"),
        (0.12, "heat-zero", "0.12"),
        (0.26, "heat-above-light", "0.26"),
        (-0.5, "heat-below-medium", "−0.50"),
        (0.74, "heat-above-strong", "0.74"),
        (1.0, "heat-above-full", "1.00"),
        (12.34, "heat-above-full", "12.3"),
        (-9999.0, "heat-below-full", "< −99"),
        (1e9, "heat-above-full", "> 99"),
    ],
)
def test_colors_go_with_the_index(estimate: float, style: str, said: str) -> None:
    record = faked()
    assert record.matrix is not None
    column = record.matrix.columns[0]
    cell = record.matrix.rows[0].cells[0]
    assert cell is not None
    assert cell.index is not None
    value = cell.index.model_copy(update={"estimate": estimate})
    only = Matrix(
        columns=(column,),
        rows=(
            record.matrix.rows[0].model_copy(
                update={"cells": (cell.model_copy(update={"index": value}),)}
            ),
        ),
    )
    svg = grid(record.model_copy(update={"matrix": only}))
    first = next(r for r in svg.iter("rect") if str(r.get("class")).startswith("heat"))
    assert first.get("class") == style
    assert said in [label.text for label in svg.iter("text")]


@pytest.mark.parametrize("make", [faked, compared, crowded])
def test_slanted_titles_stay_within_the_picture(make: Any) -> None:
    for figure in draw(make()).matrix:
        for markup in filter(None, (figure.wide, figure.narrow)):
            svg = ElementTree.fromstring(str(markup))
            width = float(svg.attrib["viewBox"].split()[2])
            titles = [label for label in svg.iter("text") if "transform" in label.attrib]
            assert titles
            for label in titles:
                length = CHARACTER * float(label.attrib["font-size"]) * len(label.text or "")
                x, y = float(label.attrib["x"]), float(label.attrib["y"])
                assert label.attrib["transform"] == f"rotate({-SLANT:.0f} {x:g} {y:g})"
                assert x + 0.47 * length <= width
                assert y - 0.88 * length >= 0


def test_many_columns_are_laid_out_in_pictures_and_many_models_in_tables() -> None:
    record = crowded()
    assert record.matrix is not None
    figures = draw(record).matrix
    assert [figure.title for figure in figures] == [
        "What outputs show",
        "What outputs show, continued",
        "What activations and weights show",
    ]
    assert sum(len(figure.rows) for figure in figures) == len(record.matrix.columns)
    for figure in figures:
        svg = ElementTree.fromstring(str(figure.wide))
        assert len([label for label in svg.iter("text") if label.text == "subject"]) == 1
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        assert height < 1.35 * width, "it has to fit on a page"
        heads = [numbers.head for numbers in figure.tables]
        assert sum(len(head) - 1 for head in heads) == len(record.matrix.rows) == 24
        assert max(map(len, heads)) <= 8
        assert {len(numbers.rows) for numbers in figure.tables} == {len(figure.rows)}
    narrow = ElementTree.fromstring(str(figures[0].narrow))
    assert len([label for label in narrow.iter("text") if label.text == "subject"]) > 1


@pytest.mark.parametrize("columns", range(1, 70))
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_no_block_is_wider_than_its_page(columns: int, share: float) -> None:
    record = faked()
    assert record.matrix is not None
    first = record.matrix.columns[0]
    seeing = round(share * columns)
    heads = tuple(first.model_copy(update={"informative": i < seeing}) for i in range(columns))
    row = record.matrix.rows[0].model_copy(update={"cells": (None,) * columns})
    matrix = Matrix(columns=heads, rows=(row,))
    for layout in (WIDE, NARROW):
        blocks = column_blocks(matrix, layout)
        assert [place for block in blocks for place in block] == list(range(columns))
        for block in blocks:
            needed = sum(1.0 if heads[i].informative else 0.5 for i in block) * layout.least
            assert needed <= layout.width - layout.label - layout.right


def test_the_table_has_every_interval_and_a_dash_where_a_probe_declined() -> None:
    record = compared()
    matrix = record.matrix
    assert matrix is not None
    tables = [numbers for figure in draw(record).matrix for numbers in figure.tables]
    cells = [cell for numbers in tables for row in numbers.rows for cell in row[1:]]
    assert len(cells) == len(matrix.rows) * len(matrix.columns)
    missing = sum(cell is None or cell.index is None for row in matrix.rows for cell in row.cells)
    assert cells.count("–") == missing == 1
    assert "1.00\u00a0▲ [0.70,\u00a01.30]" in cells


def test_the_reading_names_the_nearest_model() -> None:
    record = faked()
    (figure,) = draw(record).matrix
    begin = "Over the 8 probes that can see here, the subject is most like "
    assert figure.reading.startswith(f"{begin}the retrained models: median difference 0.0")
    assert figure.reading.endswith("to the original.")
    assert record.matrix is not None
    subject = record.matrix.rows[0]
    cells = {
        column.probe.replace("-", "_"): cell
        for column, cell in zip(record.matrix.columns, subject.cells, strict=True)
    }
    twin = record.model_copy(update={"matrix": changed(record.matrix, "salun", **cells)})
    (figure,) = draw(twin).matrix
    assert figure.reading.startswith(f"{begin}salun: median difference 0.00, against 0.0")
    outputs, inside = draw(with_unlearners(failing())).matrix
    assert "most like the original" in outputs.reading
    assert "most like the original" in inside.reading


def test_without_an_informative_probe_nothing_is_read_from_the_map() -> None:
    record = faked()
    assert record.matrix is not None
    blind = tuple(c.model_copy(update={"informative": False}) for c in record.matrix.columns)
    matrix = record.matrix.model_copy(update={"columns": blind})
    (figure,) = draw(record.model_copy(update={"matrix": matrix})).matrix
    assert figure.reading == "No probe of this kind can see on these data."


CASES: tuple[tuple[list[Group], str, str, bool], ...] = (
    (
        ["fooled"] * 8,
        "Outputs alone can be faked here.",
        "all took it for a retrained model and none caught it",
        True,
    ),
    (
        ["fooled"] * 3 + ["undecided"] * 5,
        "Outputs alone can be faked here.",
        "3 took it for a retrained model, none caught it and 5 said neither",
        True,
    ),
    (
        ["fooled"] * 3 + ["caught"] * 5,
        "Outputs alone can be faked for some of these tests, not for all.",
        "3 took it for a retrained model and 5 caught it",
        False,
    ),
    (
        ["caught"] * 8,
        "Refitting the last layer does not fool these tests.",
        "none took it for a retrained model and all caught it",
        False,
    ),
    (
        ["undecided"] * 8,
        "Whether outputs alone can be faked here stays open.",
        "none took it for a retrained model, none caught it and all said neither",
        False,
    ),
)


@pytest.mark.parametrize(("groups", "headline", "counts", "evadable"), CASES)
def test_the_check_is_said_in_a_box_and_on_one_line(
    groups: list[Group], headline: str, counts: str, evadable: bool
) -> None:
    record = with_unlearners(passing(), fake=groups)
    found = check(record)
    assert found is not None
    assert (found.headline, found.evadable) == (headline, evadable)
    said = section(record, "calibrators")
    assert headline in said
    assert f"Of the 8 black-box probes that can see on these data, {counts}." in said
    assert "Of 4 white-box probes that can see, all caught it." in said
    assert ("is no sign of forgetting" in said) == evadable
    lines = terminal(record)
    line = lines[lines.index("Head-distillation check") + 1]
    assert line == (
        f"  Fake (last layer refitted): {groups.count('fooled')} of 8 black-box probes fooled, "
        f"{groups.count('caught')} caught it."
    )
    assert cell_len(line) <= 80
    assert lines[lines.index("Head-distillation check") + 2] == ""


def test_the_check_names_its_probes() -> None:
    said = section(compared(), "calibrators").replace(" .", ".")
    assert "Took the fake for a retrained model: Loss attack (MIA-I)." in said
    assert "Said neither: Entropy attack (E-MIA)." in said


@pytest.mark.parametrize(
    ("group", "did"),
    [
        ("fooled", "took it for a retrained model"),
        ("caught", "caught it"),
        ("undecided", "said neither"),
    ],
)
def test_one_probe_is_not_counted(group: Group, did: str) -> None:
    found = check(with_unlearners(passing(), fake=[group]))
    assert found is not None
    assert f"The one black-box probe that can see on these data {did}." in found.sentence


def test_where_no_black_box_probe_sees_the_check_says_so() -> None:
    record = with_unlearners(passing(), fake=[])
    found = check(record)
    assert found is not None
    assert not found.evadable
    assert "No black-box probe can see on these data" in section(record, "calibrators")


def test_evadable_outputs_are_a_front_page_matter_of_black_box_audits_alone() -> None:
    words = "Outputs alone can be faked here. A fake whose last layer alone was refitted is taken"
    black = faked()
    assert words in section(black, "verdict")
    assert "by 8 of 8 black-box probes and caught by none" in section(black, "verdict")
    policy = black.plan.policy.model_copy(update={"access": "white-box"})
    white = black.model_copy(update={"plan": black.plan.model_copy(update={"policy": policy})})
    assert "faked" not in section(white, "verdict")
    caught = with_unlearners(passing(), fake="caught")
    assert "faked" not in section(caught, "verdict")


def test_without_a_recipe_the_report_says_what_is_missing() -> None:
    said = section(passing(), "calibrators")
    assert "The head-distillation check was not made: No recipe was given" in said
    assert "No reference unlearner was run on the original" in said
    assert check(passing()) is None
    assert not [line for line in terminal(passing()) if "Fake" in line]
    assert "reproduce the original" not in section(passing(), "controls")


def test_recipe_fidelity_is_a_sentence_or_a_warning() -> None:
    good, bad = faked(), compared()
    for record, begin in (
        (good, "The retrained models were made by unaudit from the recipe. The recipe reproduces"),
        (bad, "The retrained models were made by unaudit from the recipe. The recipe does not"),
    ):
        said = section(record, "controls")
        assert begin in said
        assert "retain 100.0% and 99.8%, 0.2 points apart; unseen 94.7% and " in said
    assert '<div class="callout">\n<p>The retrained models were made' in to_html(bad)
    assert '<div class="prose">\n<p>The retrained models were made' in to_html(good)
    assert "Recipe" in terminal(bad)
    assert "Recipe" not in terminal(good)
    both = good.model_copy(update={"fidelity": fidelity(0.0, ("original", "retrained"))})
    assert "Original and retrained models were made by unaudit" in section(both, "controls")


def test_calibrators_are_listed_with_their_accuracy() -> None:
    said = section(faked(), "controls")
    assert f"{FAKE} calibrator 40.0% 99.0% 93.0%" in said


def test_a_missing_cell_is_a_dash() -> None:
    record = faked()
    assert record.matrix is not None
    declined = record.model_copy(update={"matrix": changed(record.matrix, "salun", loss=None)})
    before, after = (
        [label.text for label in grid(r).iter("text")].count("–") for r in (record, declined)
    )
    assert after == before + 1
