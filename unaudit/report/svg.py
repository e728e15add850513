"""A small SVG writer: escaped, deterministic, readable by screen readers, themed by the page.

Colors come twice. Each element has a class, which the page's style sheet colors for light, dark
and print; and it has the light colors as presentation attributes, which lose against any style
sheet but are all that a renderer sees which does not apply the page's rules inside SVG
(WeasyPrint).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

from unaudit.text import clean

FONT = "Unaudit Sans,sans-serif"
CHARACTER = 0.56
"""Width of a character in em, generously."""

INK, MUTED, FAINT, SURFACE = "#1b2026", "#5a636e", "#d5dae0", "#ffffff"
FORGET, UNSEEN, RETAIN, ZONE = "#b4431f", "#1f5f99", "#5a636e", "#e3efe9"

STYLES: Mapping[str, Mapping[str, str]] = {
    "ink": {"fill": INK},
    "muted": {"fill": MUTED},
    "strong": {"fill": INK, "font-weight": "600"},
    "grid": {"stroke": FAINT, "stroke-width": "1", "fill": "none"},
    "axis": {"stroke": MUTED, "stroke-width": "1", "fill": "none"},
    "reference": {"stroke": INK, "stroke-width": "1", "fill": "none"},
    "margin": {"stroke": "#4e8a72", "stroke-width": "1", "stroke-dasharray": "3 3", "fill": "none"},
    "zone": {"fill": ZONE},
    "plate": {"fill": SURFACE},
    "band": {"fill": "#d3e2f0"},
    "floor": {"fill": "#eceff2"},
    "whisker": {"stroke": INK, "stroke-width": "1.6", "fill": "none"},
    "whisker-off": {
        "stroke": MUTED,
        "stroke-width": "1.2",
        "stroke-dasharray": "2 2",
        "fill": "none",
    },
    "mark": {"fill": INK, "stroke": INK, "stroke-width": "1.4", "stroke-linejoin": "round"},
    "mark-hollow": {"fill": SURFACE, "stroke": INK, "stroke-width": "1.4"},
    "mark-off": {"fill": SURFACE, "stroke": MUTED, "stroke-width": "1.2"},
    "mark-bad": {"fill": FORGET, "stroke": FORGET, "stroke-width": "1.4"},
    "pooled": {"fill": UNSEEN, "stroke": UNSEEN, "stroke-width": "1", "stroke-linejoin": "round"},
    "pooled-bad": {
        "fill": FORGET,
        "stroke": FORGET,
        "stroke-width": "1",
        "stroke-linejoin": "round",
    },
    "tick-model": {"stroke": MUTED, "stroke-width": "1", "fill": "none"},
    "forget-fill": {"fill": "#f3ddd3"},
    "forget": {"stroke": FORGET, "stroke-width": "1.8", "fill": "none"},
    "unseen": {
        "stroke": UNSEEN,
        "stroke-width": "1.6",
        "stroke-dasharray": "5 3",
        "fill": "none",
    },
    "retain": {
        "stroke": RETAIN,
        "stroke-width": "1.4",
        "stroke-dasharray": "1.5 2.5",
        "fill": "none",
    },
    "curve": {"stroke": UNSEEN, "stroke-width": "1.8", "fill": "none"},
    "chance": {"stroke": MUTED, "stroke-width": "1.2", "stroke-dasharray": "4 3", "fill": "none"},
    "mark-forget": {"fill": FORGET, "stroke": FORGET, "stroke-width": "1.4"},
    "mark-retrained": {"fill": SURFACE, "stroke": UNSEEN, "stroke-width": "1.6"},
    "line-original": {
        "stroke": INK,
        "stroke-width": "1.6",
        "stroke-dasharray": "7 3",
        "fill": "none",
    },
    "line-retrained": {
        "stroke": UNSEEN,
        "stroke-width": "1.1",
        "stroke-dasharray": "2 2",
        "fill": "none",
    },
    "mark-original": {"fill": "none", "stroke": INK, "stroke-width": "1.2"},
    "frame": {"stroke": FAINT, "stroke-width": "1", "fill": "none"},
    "point-forget": {"fill": FORGET},
    "point-retain": {"fill": RETAIN},
    "point-unseen": {"stroke": UNSEEN, "stroke-width": "1.2", "fill": "none"},
    "heat-below-full": {"fill": "#6fa6d9"},
    "heat-below-strong": {"fill": "#9cc3e6"},
    "heat-below-medium": {"fill": "#c6dcf0"},
    "heat-below-light": {"fill": "#e9f1f9"},
    "heat-zero": {"fill": SURFACE, "stroke": FAINT, "stroke-width": "1"},
    "heat-above-light": {"fill": "#fbeee7"},
    "heat-above-medium": {"fill": "#f5d0bd"},
    "heat-above-strong": {"fill": "#ecae90"},
    "heat-above-full": {"fill": "#e08a66"},
    "outline": {"stroke": INK, "stroke-width": "1.8", "fill": "none"},
}
"""Class → presentation attributes of the light theme; ``audit.css`` has a rule for each class."""


def fixed(value: float) -> str:
    """A coordinate with at most two decimals, so that equal numbers give equal bytes."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@dataclass
class Drawing:
    """An SVG in the making; coordinates are CSS pixels at full width."""

    name: str
    """Unique in the document; prefixes ids."""
    width: float
    height: float
    title: str
    description: str
    size: float = 12.5
    """Font size."""
    _body: list[str] = field(default_factory=list)

    def line(self, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._add("line", style, x1=fixed(x1), y1=fixed(y1), x2=fixed(x2), y2=fixed(y2))

    def rect(self, style: str, x: float, y: float, width: float, height: float) -> None:
        self._add(
            "rect",
            style,
            x=fixed(x),
            y=fixed(y),
            width=fixed(width),
            height=fixed(max(0.0, height)),
        )

    def path(
        self, style: str, points: Iterable[tuple[float, float]], *, closed: bool = False
    ) -> None:
        steps = " ".join(f"{fixed(x)},{fixed(y)}" for x, y in points)
        self._add("polygon" if closed else "polyline", style, points=steps)

    def marks(self, style: str, outline: str, points: Iterable[tuple[float, float]]) -> None:
        """One mark at each point, all in one element.

        Args:
            style: of all.
            outline: SVG path commands, relative to the point.
            points: at least one.
        """
        self._add("path", style, d="".join(f"M{fixed(x)},{fixed(y)}{outline}" for x, y in points))

    def circle(self, style: str, x: float, y: float, radius: float) -> None:
        self._add("circle", style, cx=fixed(x), cy=fixed(y), r=fixed(radius))

    def text(
        self,
        style: str,
        x: float,
        y: float,
        content: str,
        *,
        anchor: str = "start",
        size: float | None = None,
        slant: float = 0.0,
    ) -> None:
        """One line; ``anchor`` is start, middle or end. Control characters never get this far.

        ``slant`` turns it about its point, in degrees; it rises to the right if positive.
        """
        extra = {} if anchor == "start" else {"text-anchor": anchor}
        if slant:
            extra["transform"] = f"rotate({fixed(-slant)} {fixed(x)} {fixed(y)})"
        if size is not None:
            extra["font-size"] = fixed(size)
        self._add("text", style, escape(clean(content)), x=fixed(x), y=fixed(y), **extra)

    def _add(self, tag: str, style: str, content: str = "", **attributes: str) -> None:
        pairs = {**attributes, "class": style, **STYLES[style]}
        written = "".join(f' {key}="{escape(value)}"' for key, value in pairs.items())
        self._body.append(f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>")

    def markup(self, *classes: str) -> Markup:
        """The finished ``<svg>`` element."""
        head = (
            f'<svg class="{" ".join(("chart", *classes))}" '
            f'viewBox="0 0 {fixed(self.width)} {fixed(self.height)}" role="img" '
            f'aria-labelledby="{self.name}-title {self.name}-desc" '
            f'font-family="{FONT}" font-size="{fixed(self.size)}" '
            f'style="max-width:{fixed(self.width)}px">'
        )
        labels = (
            f'<title id="{self.name}-title">{escape(clean(self.title))}</title>'
            f'<desc id="{self.name}-desc">{escape(clean(self.description))}</desc>'
        )
        return Markup("\n".join((head, labels, *self._body, "</svg>")))


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from data to coordinates."""

    start: float
    end: float
    """Data range."""
    low: float
    high: float
    """Coordinates of its ends."""
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        start, end = self.start, self.end
        if self.logarithmic:
            value, start, end = math.log10(max(value, start)), math.log10(start), math.log10(end)
        return self.low + (value - start) / (end - start) * (self.high - self.low)


def ticks(start: float, end: float, wanted: int = 5) -> list[float]:
    """Round numbers that divide a range into about ``wanted`` steps."""
    span = end - start
    if not span > 0:
        return [start]
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(start / step - 1e-9)
    last = math.floor(end / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


@dataclass(frozen=True)
class Numbers:
    """A data table."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """One picture and its numbers."""

    name: str
    """Unique in the document; the element's id."""
    title: str
    caption: str
    wide: Markup
    """One drawing, or several one below the other."""
    narrow: Markup | None
    """The same picture for small screens; None where ``wide`` is small enough."""
    head: tuple[str, ...]
    """Column headers of the data table; the first column holds row headers."""
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """What the table leaves out, if anything."""
    reading: str = ""
    """What the picture shows, in one sentence."""
    further: tuple[Numbers, ...] = ()
    """More tables, where one would be too wide."""

    @property
    def tables(self) -> tuple[Numbers, ...]:
        """All of them."""
        return (Numbers(self.head, self.rows), *self.further)
