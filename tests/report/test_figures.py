"""The drawings show the numbers of the record, whatever these are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unaudit.report.figures import draw
from unaudit.report.forest import LEAST, MOST
from unaudit.report.record import Histogram, Interval, Record
from unaudit.report.svg import Drawing, Figure, Scale, fixed, ticks
from unaudit.report.text import printable

from .samples import ALL, failing, inconclusive, many, passing

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ALL])


def figures_of(record: Record) -> list[Figure]:
    drawn = draw(printable(record))
    optional = [figure for figure in (drawn.classes, drawn.projection) if figure]
    return [
        drawn.glance,
        drawn.forest,
        *drawn.histograms,
        *drawn.rocs,
        *drawn.curves,
        *drawn.matrix,
        *optional,
    ]


def drawings_of(figure: Figure) -> list[ElementTree.Element]:
    """Every drawing of both widths."""
    return list(ElementTree.fromstring(f"<g>{figure.wide}{figure.narrow or ''}</g>"))


@EVERY
def test_drawings_are_xml_within_their_box(make: Callable[[], Record]) -> None:
    for figure in figures_of(make()):
        for svg in drawings_of(figure):
            _, _, width, height = map(float, svg.attrib["viewBox"].split())
            for element in svg.iter():
                for key, limit in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                    assert -0.01 <= float(element.get(key, 0)) <= limit + 0.01
                for pair in element.get("points", "").split():
                    x, y = map(float, pair.split(","))
                    assert -0.01 <= x <= width + 0.01
                    assert -0.01 <= y <= height + 0.01


@EVERY
def test_labels_do_not_run_into_each_other(make: Callable[[], Record]) -> None:
    # 0.56 em is a generous mean width of Inter's characters
    for figure in figures_of(make()):
        for svg in drawings_of(figure):
            base = float(svg.attrib["font-size"])
            rows: dict[float, list[tuple[float, float, str]]] = {}
            for label in svg.iter("text"):
                if "transform" in label.attrib:  # slanted titles never share a line
                    continue
                size = float(label.get("font-size", base))
                content = label.text or ""
                width = 0.56 * size * len(content)
                start = float(label.attrib["x"])
                start -= {"end": width, "middle": width / 2}.get(label.get("text-anchor", ""), 0)
                rows.setdefault(float(label.attrib["y"]), []).append(
                    (start, start + width, content)
                )
            assert rows
            for labels in rows.values():
                labels.sort()
                for (_, end, left), (start, _, right) in itertools.pairwise(labels):
                    assert end <= start + 4, (figure.name, left, right)


def test_forest_places_estimates_on_the_axis() -> None:
    record = passing()
    svg = ElementTree.fromstring(str(draw(record).forest.wide))
    reference = sorted(
        float(line.attrib["x1"]) for line in svg.iter("line") if line.get("class") == "reference"
    )
    zero, one = reference
    centers = sorted(
        (float(mark.attrib["cx"]) - zero) / (one - zero) for mark in svg.iter("circle")
    )
    expected = sorted(
        f.residual_index.estimate
        for f in record.findings
        if f.outcome == "like-retrained" and f.residual_index
    )
    assert centers == pytest.approx(expected, abs=1e-3)
    zone = next(r for r in svg.iter("rect") if r.get("class") == "zone")
    left, width = float(zone.attrib["x"]), float(zone.attrib["width"])
    assert ((left - zero) / (one - zero), (left + width - zero) / (one - zero)) == pytest.approx(
        (-0.5, 0.5), abs=1e-3
    )


def test_forest_keeps_every_finding_and_failures_lead_their_family() -> None:
    record = failing()
    rows = draw(record).forest.rows
    pooled = [row[0] for row in rows if row[0].endswith(", pooled")]
    assert pooled == ["Membership, pooled", "Output distance, pooled"]
    assert len(rows) == len(record.findings) + len(pooled)
    readings = [row[-1] for row in rows]
    assert readings.index("not informative") > readings.index("residual")


@pytest.mark.parametrize("ends", [(None, None), (None, 0.3), (-40.0, 50.0), (0.1, None)])
def test_unbounded_and_distant_ends_become_arrow_heads(
    ends: tuple[float | None, float | None],
) -> None:
    record = inconclusive()
    finding = record.findings[0]
    index = Interval(estimate=0.2, low=ends[0], high=ends[1], level=0.9)
    changed = finding.model_copy(update={"residual_index": index})
    altered = record.model_copy(update={"findings": (changed,), "families": ()})
    figure = draw(altered).forest
    heads = len(re.findall(r'<polygon [^>]*class="mark"', figure.wide))
    low, high = ends
    assert heads == sum((low is None or low < LEAST, high is None or high > MOST))
    assert figure.rows[-1][2:4] == (
        "−∞" if low is None else f"{low:.2f}".replace("-", "−"),
        "∞" if high is None else f"{high:.2f}",
    )


def test_retrained_models_are_drawn_where_they_are() -> None:
    record = many()
    control = record.calibration.probes[0]
    svg = str(draw(record).forest.wide)
    assert svg.count('class="tick-model"') == pytest.approx(
        sum(len(c.retrained) for c in record.calibration.probes), abs=10
    )
    assert control.mode == "retrained"


def test_histogram_tables_add_up() -> None:
    record = passing()
    for figure, histogram in zip(
        draw(record).histograms, record.calibration.histograms, strict=True
    ):
        assert len(figure.rows) <= 8
        for column, counts in ((1, histogram.forget), (2, histogram.unseen), (3, histogram.retain)):
            shown = sum(int(row[column].replace(",", "")) for row in figure.rows)
            assert shown == sum(counts or ())


def test_a_histogram_that_cannot_be_drawn_is_left_to_the_record() -> None:
    record = passing()
    broken = Histogram(
        probe="x", title="x", unit="x", edges=(1.0, 1.0), forget=(3,), unseen=None, retain=None
    )
    calibration = record.calibration.model_copy(update={"histograms": (broken,)})
    assert not draw(record.model_copy(update={"calibration": calibration})).histograms


def test_roc_shows_nothing_below_one_in_n() -> None:
    record = failing()
    roc, figure = record.calibration.rocs[0], draw(record).rocs[0]
    rates = [float(row[0].rstrip("%")) / 100 for row in figure.rows]
    assert min(rates) >= 1 / roc.negatives - 1e-4
    assert max(rates) == 1.0
    assert f"1/{roc.negatives}" in figure.wide


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_lie_in_range_and_are_evenly_spaced(start: float, span: float, wanted: int) -> None:
    found = ticks(start, start + span, wanted)
    assert len(found) <= 2 * wanted + 2
    slack = 1e-6 * (span + abs(start))
    assert all(start - slack <= value <= start + span + slack for value in found)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert all(step == pytest.approx(steps[0], rel=1e-3, abs=slack) for step in steps)


def test_scales() -> None:
    assert Scale(0, 2, 100, 200)(1) == 150
    decades = Scale(0.001, 1.0, 0, 300, logarithmic=True)
    assert decades(0.1) == pytest.approx(200)
    assert decades(0.0) == 0


@given(st.floats(-1e6, 1e6))
def test_coordinates_are_short_and_near(value: float) -> None:
    assert float(fixed(value)) == pytest.approx(value, abs=0.00501)
    assert fixed(value) != "-0"


def test_text_in_drawings_is_escaped_and_clean() -> None:
    drawing = Drawing("d", 10, 10, "<t>", '"d"&\x1b')
    drawing.text("ink", 0, 0, "<b>\u202e&\x00")
    svg = ElementTree.fromstring(str(drawing.markup()))
    assert [element.text for element in svg] == ["<t>", '"d"&', "<b>&"]
