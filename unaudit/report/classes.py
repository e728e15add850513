"""Accuracy by class, subject beside retrained models."""

from __future__ import annotations

import math

from unaudit.report.language import accuracy
from unaudit.report.nouns import nouns_of
from unaudit.report.record import ClassAccuracy, Record
from unaudit.report.svg import Drawing, Figure, Scale, ticks
from unaudit.report.text import number, percent

WIDTH = 350.0
MOST_CLASSES = 20


def classes(record: Record) -> Figure | None:
    """Accuracy on the forget examples of each class, subject beside retrained models."""
    nouns = nouns_of(record)
    rows = [
        row for row in record.controls.per_class if None not in (row.forget, row.retrained_forget)
    ]
    if len(rows) < 3:
        return None
    shown = sorted(sorted(rows, key=_gap, reverse=True)[:MOST_CLASSES], key=lambda row: row.label)
    step, top = 20.0, 34.0
    name = accuracy(record)
    title = f"{name.capitalize()} on forget {nouns.many} by {nouns.kind}"
    drawing = Drawing(
        "classes",
        WIDTH,
        top + step * len(shown) + 40,
        title,
        "; ".join(
            f"{nouns.kind} {row.label}: subject {percent(row.forget)}, retrained "
            f"{percent(row.retrained_forget)}"
            for row in shown
        ),
        size=11,
    )
    least = min(min(row.forget or 0.0, row.retrained_forget or 0.0) for row in shown)
    most = max(max(row.forget or 0.0, row.retrained_forget or 0.0) for row in shown)
    end = min(1.0, math.ceil(10 * most + 0.5) / 10)
    x = Scale(max(0.0, math.floor(10 * least - 0.5) / 10), end, 58, 332)
    floor = top + step * len(shown)
    for rate in ticks(x.start, x.end, 4):
        drawing.line("grid", x(rate), top - 4, x(rate), floor)
        drawing.text("muted", x(rate), floor + 16, f"{100 * rate:g}%", anchor="middle", size=10)
    for place, row in enumerate(shown):
        y = top + step * (place + 0.5)
        own, other = x(row.forget or 0.0), x(row.retrained_forget or 0.0)
        drawing.text("ink", 50, y + 4, f"{nouns.kind} {row.label}", anchor="end", size=10.5)
        drawing.line("tick-model", own, y, other, y)
        drawing.circle("mark-retrained", other, y, 4)
        drawing.path("mark-forget", _triangle(own, y), closed=True)
    drawing.line("axis", x.low, floor, x.high, floor)
    drawing.path("mark-forget", _triangle(62, 12), closed=True)
    drawing.text("ink", 72, 16, "subject", size=11)
    drawing.circle("mark-retrained", 134, 12, 4)
    drawing.text("ink", 144, 16, "retrained models, mean", size=11)
    drawing.text("muted", (x.low + x.high) / 2, floor + 34, name, anchor="middle", size=10.5)
    left_out = len(rows) - len(shown)
    return Figure(
        "classes",
        title,
        nouns.say("A retrained model gets these examples right only as far as it generalizes.")
        + (f" Shown: the {len(shown)} {nouns.kinds} that differ most." if left_out else ""),
        drawing.markup(),
        None,
        (nouns.kind.capitalize(), "Subject", "Retrained, mean", "Difference"),
        tuple(
            (
                str(row.label),
                percent(row.forget),
                percent(row.retrained_forget),
                number(100 * ((row.forget or 0.0) - (row.retrained_forget or 0.0)), 1),
            )
            for row in shown
        ),
        "Difference in percentage points.",
    )


def _gap(row: ClassAccuracy) -> float:
    return abs((row.forget or 0.0) - (row.retrained_forget or 0.0))


def _triangle(x: float, y: float) -> list[tuple[float, float]]:
    return [(x, y - 4.5), (x + 4.6, y + 3.5), (x - 4.6, y + 3.5)]
