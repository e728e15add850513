"""Rows of a forest plot, drawn: whiskers and marks for probes, diamonds for families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unaudit.report.record import Interval
from unaudit.report.svg import Drawing, Scale, fixed, ticks
from unaudit.report.text import interval
from unaudit.report.wording import Reading


@dataclass(frozen=True)
class Row:
    """One line of the plot."""

    label: str
    index: Interval | None
    reading: Reading
    counted: bool
    fails: bool = False
    pooled: bool = False
    models: tuple[float, ...] = ()
    """Residual index of each retrained model."""


@dataclass(frozen=True)
class Layout:
    """Where columns and lines are, in pixels."""

    width: float
    left: float
    right: float
    """The plot lies between ``left`` and ``right``."""
    step: float
    """Height of a row."""
    stacked: bool
    """Labels above the line instead of beside it."""


WIDE = Layout(width=760, left=212, right=596, step=25, stacked=False)
NARROW = Layout(width=340, left=8, right=332, step=43, stacked=True)
TOP = 40.0
BOTTOM = 46.0


def draw_rows(
    drawing: Drawing, groups: Sequence[Sequence[Row]], layout: Layout, x: Scale, tau: float
) -> None:
    """The axis, the zone within ±τ, and every row, group by group."""
    floor = drawing.height - BOTTOM
    drawing.rect(
        "zone", x(max(-tau, x.start)), TOP, x(min(tau, x.end)) - x(max(-tau, x.start)), floor - TOP
    )
    for value in ticks(x.start, x.end, 5):
        drawing.line("grid", x(value), TOP, x(value), floor)
        drawing.line("axis", x(value), floor, x(value), floor + 4)
        drawing.text(
            "muted", x(value), floor + 18, fixed(value).replace("-", "−"), anchor="middle", size=11
        )
    for edge, name in ((-tau, "−τ"), (tau, "τ")):
        if x.start <= edge <= x.end:
            drawing.line("margin", x(edge), TOP, x(edge), floor)
            drawing.text("muted", x(edge), TOP - 6, name, anchor="middle", size=11)
    for value, name in ((0.0, "retrained"), (1.0, "original")):
        drawing.line("reference", x(value), TOP - 4, x(value), floor)
        drawing.text("strong", x(value), TOP - 22, name, anchor="middle", size=11.5)
    drawing.line("axis", x.low, floor, x.high, floor)
    drawing.text(
        "muted", (x.low + x.high) / 2, floor + 36, "residual index", anchor="middle", size=11.5
    )
    y = TOP
    for group in groups:
        y += 4
        for row in group:
            _draw_row(drawing, row, layout, x, y)
            y += layout.step
        y += 4


def _draw_row(drawing: Drawing, row: Row, layout: Layout, x: Scale, y: float) -> None:
    style = "strong" if row.pooled else "ink" if row.counted else "muted"
    said = interval(row.index) if row.counted and row.index else row.reading.word
    if layout.stacked:
        middle = y + 30
        drawing.rect("plate", 0, y, layout.width, 20)
        drawing.text(style, 8, y + 15, row.label, size=12)
        drawing.text(style, layout.right, y + 15, said, anchor="end", size=12)
    else:
        middle = y + layout.step / 2
        drawing.text(style, 0 if row.pooled else 14, middle + 4.5, row.label)
        drawing.text(style, layout.width, middle + 4.5, said, anchor="end")
    for model in row.models:
        if x.start <= model <= x.end:
            drawing.line("tick-model", x(model), middle + 5, x(model), middle + 9)
    if row.index is None:
        return
    low = x.start - 1 if row.index.low is None else row.index.low
    high = x.end + 1 if row.index.high is None else row.index.high
    if row.pooled and row.counted:
        _diamond(drawing, row, x, low, high, middle)
        return
    whisker = "whisker" if row.counted else "whisker-off"
    drawing.line(whisker, _inside(x, low), middle, _inside(x, high), middle)
    _ends(drawing, row.counted, x, low, high, middle)
    if x.start <= row.index.estimate <= x.end:
        _mark(drawing, row, x(row.index.estimate), middle)


def _inside(x: Scale, value: float) -> float:
    return x(min(max(value, x.start), x.end))


def _ends(drawing: Drawing, counted: bool, x: Scale, low: float, high: float, y: float) -> None:
    style = "mark" if counted else "mark-off"
    if low < x.start:
        drawing.path(style, [(x.low, y), (x.low + 6, y - 3.5), (x.low + 6, y + 3.5)], closed=True)
    if high > x.end:
        drawing.path(
            style, [(x.high, y), (x.high - 6, y - 3.5), (x.high - 6, y + 3.5)], closed=True
        )


def _diamond(drawing: Drawing, row: Row, x: Scale, low: float, high: float, y: float) -> None:
    assert row.index is not None
    left, right, center = _inside(x, low), _inside(x, high), _inside(x, row.index.estimate)
    # a very narrow interval would make a diamond too thin to see
    left, right = min(left, center - 4), max(right, center + 4)
    style = "pooled-bad" if row.fails else "pooled"
    drawing.path(style, [(left, y), (center, y - 6), (right, y), (center, y + 6)], closed=True)
    if low < x.start or high > x.end:
        _ends(drawing, True, x, low, high, y)


def _mark(drawing: Drawing, row: Row, x: float, y: float) -> None:
    style = "mark-bad" if row.fails else "mark"
    shape = row.reading.mark
    if shape == "hollow" or not row.counted:
        drawing.rect("mark-off", x - 3.5, y - 3.5, 7, 7)
    elif shape == "up":
        drawing.path(style, [(x, y - 5.5), (x + 5.2, y + 4), (x - 5.2, y + 4)], closed=True)
    elif shape == "down":
        drawing.path(style, [(x, y + 5.5), (x + 5.2, y - 4), (x - 5.2, y - 4)], closed=True)
    elif shape == "square":
        drawing.rect(style, x - 4, y - 4, 8, 8)
    elif shape == "diamond":
        points = [(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y)]
        drawing.path("mark-hollow", points, closed=True)
    elif shape == "ring":
        drawing.circle("mark-hollow", x, y, 4.2)
    else:
        drawing.circle(style, x, y, 4.2)
