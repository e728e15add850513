"""The grid of a heat map: slanted titles, rows of colored cells, families below.

Colors diverge from 0, a retrained model: orange toward 1, the original, and blue below 0. Each cell
also says its number and, by a mark, where its interval lies, so that no color has to be told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from unaudit.evidence import Family
from unaudit.report.heatgrid_layout import NARROW, Layout, Place, group_of, placed_blocks
from unaudit.report.record import Matrix, MatrixCell, MatrixColumn
from unaudit.report.svg import CHARACTER, Drawing
from unaudit.report.text import number
from unaudit.report.wording import FAMILY_TITLES, reading
from unaudit.text import shorten

STEPS = ("light", "medium", "strong", "full")
"""Depths of color for an index of about ¼, ½, ¾, and 1 or more, on either side of 0."""


SLANT = 62.0
"""Degrees."""
GAP = 7.0
"""Parts the subject and the original from the calibrators."""
FOOT = 46.0
"""Height of the lines of spreads and families."""
BETWEEN = 14.0
"""Between two blocks of columns."""
LEGEND = 40.0
SHORT: Mapping[Family, str] = {
    "membership": "Memb.",
    "output-distance": "Output",
    "representation": "Repr.",
    "recoverability": "Recov.",
    "utility": "Utility",
}
"""Families under one or two columns."""


def draw_grid(
    matrix: Matrix,
    name: str,
    layout: Layout,
    unsigned: frozenset[str],
    title: str,
    said: str,
) -> Drawing:
    """The whole grid, in blocks of columns one below another.

    Args:
        matrix: with at least one column.
        name: of the drawing.
        layout: wide or narrow.
        unsigned: probes that measure a distance.
        title, said: what screen readers are told.
    """
    blocks = placed_blocks(matrix, layout)
    heads = [_head(matrix, block, layout) for block in blocks]
    body = len(matrix.rows) * layout.row + 2 * GAP + FOOT
    drawing = Drawing(
        name,
        layout.width,
        sum(heads) + len(blocks) * body + (len(blocks) - 1) * BETWEEN + LEGEND,
        title,
        f"{len(matrix.rows)} models by {len(matrix.columns)} probes. {said}",
        size=12,
    )
    top = 0.0
    for block, head in zip(blocks, heads, strict=True):
        _titles(drawing, matrix, block, layout, top + head - 7)
        _block(drawing, matrix, block, layout, unsigned, top + head)
        top += head + body + BETWEEN
    _legend(drawing, layout, drawing.height - LEGEND + 8)
    return drawing


def _head(matrix: Matrix, block: list[Place], layout: Layout) -> float:
    """Height of the slanted titles."""
    longest = max(len(matrix.columns[place.index].title) for place in block)
    length = min(layout.title_characters, longest) * CHARACTER * layout.title
    return 18.0 + length * math.sin(math.radians(SLANT))


def _titles(drawing: Drawing, matrix: Matrix, block: list[Place], layout: Layout, y: float) -> None:
    for place in block:
        column = matrix.columns[place.index]
        style = "ink" if column.informative else "muted"
        title = shorten(column.title, layout.title_characters)
        drawing.text(style, place.center + 4, y, title, size=layout.title, slant=SLANT)


def _block(
    drawing: Drawing,
    matrix: Matrix,
    block: list[Place],
    layout: Layout,
    unsigned: frozenset[str],
    top: float,
) -> None:
    y = top
    for row in matrix.rows:
        middle = y + layout.row / 2
        style = "strong" if row.role == "subject" else "ink"
        label = shorten(row.model, layout.characters)
        drawing.text(style, 6, middle + 4, label, size=layout.size + 1)
        for place in block:
            column = matrix.columns[place.index]
            mark = column.probe in unsigned
            _cell(drawing, column, row.cells[place.index], place, y, layout, mark)
        if row.role == "subject":
            end = block[-1].left + block[-1].width
            drawing.rect("outline", 1, y - 0.5, end + 0.5, layout.row + 1)
        y += layout.row + (GAP if row.role != "calibrator" else 0.0)
    _spreads(drawing, matrix, block, layout, y)
    _families(drawing, matrix, block, layout, y + 23)


def _cell(
    drawing: Drawing,
    column: MatrixColumn,
    cell: MatrixCell | None,
    place: Place,
    y: float,
    layout: Layout,
    unsigned: bool,
) -> None:
    center, middle = place.center, y + layout.row / 2
    style = "floor"
    if column.informative and cell is not None and cell.index is not None:
        style = _heat(cell.index.estimate)
    drawing.rect(style, place.left + 1.5, y + 1.5, place.width - 3, layout.row - 3)
    if cell is None:
        drawing.text("muted", center, middle + 4, "–", anchor="middle", size=layout.size)
        return
    symbol = reading(cell.outcome, unsigned=unsigned).symbol
    if not column.informative or cell.index is None:
        drawing.text("muted", center, middle + 3, symbol, anchor="middle", size=8)
        return
    said = _brief(cell.index.estimate)
    drawing.text("ink", center, middle - 1.5, said, anchor="middle", size=layout.size)
    drawing.text("ink", center, middle + 9.5, symbol, anchor="middle", size=8)


def _heat(estimate: float) -> str:
    step = min(len(STEPS), round(4 * abs(estimate)))
    if step == 0:
        return "heat-zero"
    return f"heat-{'above' if estimate > 0 else 'below'}-{STEPS[step - 1]}"


def _brief(value: float) -> str:
    """As many digits as fit into a cell."""
    if abs(value) >= 99.5:
        return "> 99" if value > 0 else "< −99"
    return number(value, 2 if abs(value) < 9.995 else 1)


def _spreads(
    drawing: Drawing, matrix: Matrix, block: list[Place], layout: Layout, y: float
) -> None:
    """Under informative columns: where a probe is blind, its unit is noise as well."""
    if not any(matrix.columns[place.index].informative for place in block):
        return
    drawing.text("muted", 6, y + 14, "retrained, ± SD", size=layout.size)
    for place in block:
        column = matrix.columns[place.index]
        if column.informative and column.retrained_spread is not None:
            said = _brief(column.retrained_spread)
            size = layout.size - 0.5
            drawing.text("muted", place.center, y + 14, said, anchor="middle", size=size)


def _families(
    drawing: Drawing, matrix: Matrix, block: list[Place], layout: Layout, y: float
) -> None:
    """A line under the columns of each family, with its name."""
    size = layout.size - 0.5
    for group, members in itertools.groupby(block, key=lambda p: group_of(matrix.columns[p.index])):
        own = list(members)
        left, right = own[0].left + 1.5, own[-1].left + own[-1].width - 1.5
        drawing.line("axis", left, y, right, y)
        names = ("not informative", "blind", "□")
        if group is not None:
            names = (FAMILY_TITLES[group], SHORT[group], "")
        fits = next(n for n in names if len(n) * CHARACTER * size <= right - left + 4)
        drawing.text("muted", (left + right) / 2, y + 14, fits, anchor="middle", size=size)


def _legend(drawing: Drawing, layout: Layout, y: float) -> None:
    """The scale of colors, −1 to 1."""
    values = [step / 4 for step in range(-4, 5)]
    size = (layout.width - layout.right - layout.legend) / len(values) if layout is NARROW else 44.0
    for place, value in enumerate(values):
        drawing.rect(_heat(value), layout.legend + place * size + 0.5, y, size - 1, 12)
    start, end = layout.legend, layout.legend + len(values) * size
    for x, said, anchor in (
        (start, "≤ −1 over-unlearned", "start"),
        ((start + end) / 2, "0 like retrained", "middle"),
        (end, "≥ 1 like original", "end"),
    ):
        drawing.text("muted", x, y + 26, said, anchor=anchor, size=layout.size - 0.5)
