"""What white-box probes saw of every model: curves along layers and along steps of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from unaudit.report.layers import Layers, short_names
from unaudit.report.readings import curve_caption, curve_reading
from unaudit.report.record import Curve, Curves, Record, Role
from unaudit.report.svg import CHARACTER, Drawing, Figure, Scale, ticks
from unaudit.report.text import number
from unaudit.text import shorten

WIDTH, HEIGHT = 350.0, 246.0
LEFT, RIGHT, TOP, FLOOR = 42.0, 262.0, 32.0, 196.0
FEW = 8
"""Up to so many places, each point of a retrained model gets a mark."""
SPACING = 12.0
"""Least distance of the marks on one curve."""
TABLE_ROWS = 10
"""Longer tables are thinned out; the record keeps every value."""
LABEL = 18
"""Characters of a layer's name below the axis; where all do not fit, only some layers are named."""
GAP = 15.0
"""Least distance of labels."""

LINES: Mapping[Role, str] = {
    "retrained": "line-retrained",
    "subject": "forget",
    "original": "line-original",
}
"""In the order of drawing: dashes on a solid line, and a triangle in a hollow square, show both
where curves coincide."""


def curves(record: Record) -> list[Figure]:
    """One figure per probe that left curves."""
    drawn = record.inside.curves if record.inside else ()
    return [_curves(item, place, record) for place, item in enumerate(drawn) if _drawable(item)]


def _drawable(item: Curves) -> bool:
    numeric = [value for value in item.x if isinstance(value, float)]
    lengths = [
        len(values)
        for curve in item.series
        for values in (curve.y, curve.low, curve.high)
        if values is not None
    ]
    return (
        len(item.x) > 0
        and set(lengths) == {len(item.x)}
        and len(numeric) == (len(item.x) if item.axis == "step" else 0)
        and all(a < b for a, b in itertools.pairwise(numeric))
        and min(numeric, default=0.0) >= 0
        and any(curve.role == "subject" for curve in item.series)
    )


def _of(item: Curves, role: Role) -> list[Curve]:
    return [curve for curve in item.series if curve.role == role]


def _mean(series: Sequence[Curve]) -> tuple[float, ...]:
    return tuple(fmean(values) for values in zip(*(curve.y for curve in series), strict=True))


def _curves(item: Curves, place: int, record: Record) -> Figure:
    reading = curve_reading(item)
    drawing = Drawing(
        f"curves-{place}",
        WIDTH,
        HEIGHT,
        item.title,
        f"{item.y_label} by {'layer, from input to output' if item.axis == 'layer' else 'step'}, "
        f"for {len(item.series)} models. {reading}",
        size=11,
    )
    layers = short_names([str(name) for name in item.x] if item.axis == "layer" else [])
    y = _vertical(item)
    x = _horizontal(drawing, item, layers)
    for value in ticks(y.start, y.end, 4):
        drawing.line("grid", LEFT, y(value), RIGHT, y(value))
        drawing.text("muted", LEFT - 6, y(value) + 3.5, _tick(value), anchor="end", size=10)
    drawing.line("axis", LEFT, FLOOR, RIGHT, FLOOR)
    drawing.text("muted", 0, 13, shorten(item.y_label, 50), size=10.5)
    for role in LINES:
        for curve in _of(item, role):
            _draw_curve(drawing, curve, x, y)
    _label_ends(drawing, item, y)
    kept = _evenly(len(item.x), TABLE_ROWS)
    return Figure(
        drawing.name,
        item.title,
        curve_caption(item.probe, record),
        drawing.markup(),
        None,
        _table_head(item),
        tuple(_table_row(item, index, layers) for index in kept),
        _table_note(item, layers, thinned=len(kept) < len(item.x)),
        reading=reading,
    )


def _vertical(item: Curves) -> Scale:
    values = [
        value
        for curve in item.series
        for values in (curve.y, curve.low, curve.high)
        for value in values or ()
    ]
    low, high = min(values), max(values)
    if 0 <= low <= 0.6 * high:
        low = 0.0
    room = 0.06 * (high - low) or 0.5
    return Scale(low - (room if low else 0.0), high + room, FLOOR, TOP)


def _horizontal(drawing: Drawing, item: Curves, layers: Layers) -> list[float]:
    """Draws the axis and returns where the places are."""
    middle = (LEFT + RIGHT) / 2
    if item.axis == "layer":
        cell = (RIGHT - LEFT) / len(item.x)
        where = [LEFT + cell * (index + 0.5) for index in range(len(item.x))]
        labels = [shorten(name, LABEL) for name in layers.names]
        every = math.ceil((max(map(len, labels)) + 1) * CHARACTER * 10 / cell)
        for index, label in enumerate(labels):
            drawing.line("axis", where[index], FLOOR, where[index], FLOOR + 4)
            if index % every == 0:
                drawing.text("muted", where[index], FLOOR + 16, label, anchor="middle", size=10)
        said = "layer, from input to output"
    else:
        steps = [float(value) for value in item.x]
        # step 0 has a place on a logarithmic axis of steps + 1
        scale = Scale(1.0, max(2.0, 1.0 + steps[-1]), LEFT + 4, RIGHT, logarithmic=True)
        where = [scale(1.0 + step) for step in steps]
        for value in _step_ticks(steps[-1]):
            at = scale(1.0 + value)
            drawing.line("axis", at, FLOOR, at, FLOOR + 4)
            drawing.text("muted", at, FLOOR + 16, f"{value:,}", anchor="middle", size=10)
        said = "training steps"
    drawing.text("muted", middle, FLOOR + 34, said, anchor="middle", size=10.5)
    return where


def _step_ticks(most: float) -> list[int]:
    """0 and powers of 4, or of 10 on a long axis."""
    base = 4 if most <= 1024 else 10
    powers = itertools.takewhile(lambda value: value <= most, (base**n for n in range(20)))
    return [0, *powers]


def _tick(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _draw_curve(drawing: Drawing, curve: Curve, x: Sequence[float], y: Scale) -> None:
    if curve.role != "retrained" and curve.low is not None and curve.high is not None:
        for at, low, high in zip(x, curve.low, curve.high, strict=True):
            drawing.line("tick-model", at, y(low), at, y(high))
    points = [(at, y(value)) for at, value in zip(x, curve.y, strict=True)]
    drawing.path(LINES[curve.role], points)
    crowded = curve.role == "retrained" and len(points) > FEW
    last = math.inf
    for at, height in points[-1:] if crowded else reversed(points):
        if last - at >= SPACING:
            _mark(drawing, curve.role, at, height)
            last = at


def _mark(drawing: Drawing, role: Role, x: float, y: float) -> None:
    if role == "subject":
        corners = [(x, y - 4), (x + 4, y + 3), (x - 4, y + 3)]
        drawing.path("mark-forget", corners, closed=True)
    elif role == "original":
        corners = [
            (x + side, y + up) for side, up in ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5))
        ]
        drawing.path("mark-original", corners, closed=True)
    else:
        drawing.circle("mark-retrained", x, y, 2.9)


def _label_ends(drawing: Drawing, item: Curves, y: Scale) -> None:
    """Names beside the ends of the curves, moved apart; the retrained share one."""
    ends = [(y(_mean(series)[-1]), role) for role in LINES if (series := _of(item, role))]
    ends.sort()
    heights = [max(TOP, height) for height, _ in ends]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + GAP)
    over = max(0.0, heights[-1] - (FLOOR - 4))
    for height, (_, role) in zip(heights, ends, strict=True):
        _mark(drawing, role, RIGHT + 16, height - over)
        drawing.text("ink", RIGHT + 25, height - over + 4, role, size=11)


def _evenly(length: int, most: int) -> list[int]:
    if length <= most:
        return list(range(length))
    return sorted({round(index * (length - 1) / (most - 1)) for index in range(most)})


def _table_head(item: Curves) -> tuple[str, ...]:
    head = ["Layer" if item.axis == "layer" else "Steps", "Subject"]
    head += ["Original"] if _of(item, "original") else []
    head += ["Retrained", "Range"] if _of(item, "retrained") else []
    return tuple(head)


def _table_row(item: Curves, index: int, layers: Layers) -> tuple[str, ...]:
    place = item.x[index]
    cells = [f"{place:,.0f}" if isinstance(place, float) else shorten(layers.names[index], 60)]
    for role in ("subject", "original"):
        cells += [number(curve.y[index], 3) for curve in item.series if curve.role == role][:1]
    if retrained := _of(item, "retrained"):
        values = [curve.y[index] for curve in retrained]
        cells += [number(fmean(values), 3), f"{number(min(values), 3)} … {number(max(values), 3)}"]
    return tuple(cells)


def _table_note(item: Curves, layers: Layers, *, thinned: bool) -> str:
    said = ["Retrained: mean, and range of single models."] if _of(item, "retrained") else []
    if item.band:
        said.append(f"Upright lines in the figure: {item.band}; record.json has their ends.")
    if layers.cut:
        said.append(shorten(layers.cut, 120))
    if thinned:
        said.append("Selected rows; record.json has each.")
    return " ".join(said)
