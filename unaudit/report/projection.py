"""Penultimate features of the same examples in two dimensions, model beside model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from unaudit.report.nouns import nouns_of
from unaudit.report.record import ProjectedModel, Projection, Record
from unaudit.report.svg import CHARACTER, Drawing, Figure, Scale
from unaudit.report.text import count, number, percent
from unaudit.text import shorten


@dataclass(frozen=True)
class Layout:
    """How panels are laid out, in pixels."""

    width: float
    panel: float
    columns: int


WIDE = Layout(width=760, panel=235, columns=3)
NARROW = Layout(width=340, panel=316, columns=1)
PANEL_HEAD, PANEL_FOOT, LEGEND = 24.0, 30.0, 30.0

SHAPES: Mapping[str, tuple[str, str]] = {
    "forget": ("point-forget", "m0,-3.4l3.1,5.4h-6.2z"),
    "retain": ("point-retain", "m-1.5,0a1.5,1.5 0 1,0 3,0a1.5,1.5 0 1,0 -3,0z"),
    "unseen": ("point-unseen", "m-2.5,0h5m-2.5,-2.5v5"),
}
"""Group → style and outline of its marks: triangles, dots, crosses."""


def projection(record: Record) -> Figure | None:
    """Features of the same examples in each model, side by side."""
    drawn = record.inside.projection if record.inside else None
    if drawn is None or not _projectable(drawn):
        return None
    say = nouns_of(record).say
    reading = say(_projection_reading(drawn))
    pictures = [
        _projection(drawn, suffix, layout, reading)
        for suffix, layout in (("", WIDE), ("-narrow", NARROW))
    ]
    sizes = ", ".join(f"{count(size)} {name}" for name, size in _groups(drawn))
    return Figure(
        "projection",
        "Penultimate features in two dimensions",
        say(f"The same randomly chosen examples ({sizes}) as each model represents them. ")
        + "The axes are each model's own two directions of largest variance, because the features "
        "of two networks have no axes in common; the planes are turned and mirrored to match the "
        "first one, and drawn at the same mean size.",
        pictures[0].markup("wide"),
        pictures[1].markup("narrow"),
        (
            "Model",
            "Variance, axis 1",
            "Variance, axis 2",
            "Forget near forget",
            *(f"Center of {name}" for name, _ in _groups(drawn)),
        ),
        tuple(_projection_row(drawn, model) for model in drawn.models),
        say(
            "Variance: share of all features' variance. Forget near forget: share of forget "
            f"examples among the {drawn.neighbors} nearest neighbors of forget examples in the "
            "plane. record.json has each point."
        ),
        reading=reading,
    )


def _groups(drawn: Projection) -> list[tuple[str, int]]:
    sizes = (("forget", drawn.forget), ("retain", drawn.retain), ("unseen", drawn.unseen))
    return [(name, size) for name, size in sizes if size > 0]


def _projectable(drawn: Projection) -> bool:
    total = sum(size for _, size in _groups(drawn))
    same = all(len(model.x) == len(model.y) == total for model in drawn.models)
    return same and drawn.forget > 0 and total > 1 and len(drawn.models) > 0


def _split(drawn: Projection, model: ProjectedModel) -> list[tuple[str, list[tuple[float, float]]]]:
    """Points by group."""
    points = iter(zip(model.x, model.y, strict=True))
    return [(name, list(itertools.islice(points, size))) for name, size in _groups(drawn)]


def _projection_reading(drawn: Projection) -> str:
    total = sum(size for _, size in _groups(drawn))
    shares = [
        f"{percent(model.near, 0)} {'are forget examples ' if place == 0 else ''}in the "
        f"{model.role}{' model' if model.role == 'retrained' else ''}"
        for place, model in enumerate(drawn.models)
    ]
    return (
        f"Of the {drawn.neighbors} nearest neighbors of a forget example in the plane, "
        f"{_and(shares)}; {percent((drawn.forget - 1) / (total - 1), 0)} would be if all groups "
        "lay mixed."
    )


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _projection(drawn: Projection, suffix: str, layout: Layout, reading: str) -> Drawing:
    step = PANEL_HEAD + layout.panel + PANEL_FOOT
    lines = -(-len(drawn.models) // layout.columns)
    drawing = Drawing(
        f"projection{suffix}",
        layout.width,
        LEGEND + lines * step,
        "Penultimate features in two dimensions",
        f"{len(drawn.models)} panels: {_and([model.model for model in drawn.models])}. {reading}",
        size=11,
    )
    start = 6.0
    for name, size in _groups(drawn):
        style, outline = SHAPES[name]
        drawing.marks(style, outline, [(start, 10)])
        label = f"{name} {count(size)}"
        drawing.text("ink", start + 9, 14, label)
        start += 9 + 11 * CHARACTER * len(label) + 20
    reach = 1.04 * max(
        (abs(value) for model in drawn.models for value in (*model.x, *model.y)), default=1.0
    )
    # half a pixel on each side for the frame
    gap = (layout.width - 1 - layout.columns * layout.panel) / max(1, layout.columns - 1)
    for place, model in enumerate(drawn.models):
        line, column = divmod(place, layout.columns)
        left = 0.5 + (column * (layout.panel + gap) if layout.columns > 1 else gap / 2)
        _panel(drawing, drawn, model, left, LEGEND + line * step, layout.panel, reach or 1.0)
    return drawing


def _panel(
    drawing: Drawing,
    drawn: Projection,
    model: ProjectedModel,
    left: float,
    top: float,
    size: float,
    reach: float,
) -> None:
    begin = top + PANEL_HEAD
    x = Scale(-reach, reach, left, left + size)
    y = Scale(-reach, reach, begin + size, begin)
    drawing.text("strong", left, top + 15, shorten(model.model, 30), size=12)
    drawing.line("grid", x(0), begin, x(0), begin + size)
    drawing.line("grid", left, y(0), left + size, y(0))
    frame = [(left, begin), (left + size, begin), (left + size, begin + size), (left, begin + size)]
    drawing.path("frame", frame, closed=True)
    for name, points in reversed(_split(drawn, model)):
        style, outline = SHAPES[name]
        drawing.marks(style, outline, [(x(across), y(up)) for across, up in points])
    said = f"{percent(sum(model.explained), 0)} of the variance in this plane"
    drawing.text("muted", left, begin + size + 16, said, size=10)


def _projection_row(drawn: Projection, model: ProjectedModel) -> tuple[str, ...]:
    centers = [
        f"({number(fmean(x for x, _ in points))}, {number(fmean(y for _, y in points))})"
        for _, points in _split(drawn, model)
    ]
    return (
        shorten(model.model, 60),
        *(percent(share) for share in model.explained),
        percent(model.near),
        *centers,
    )
