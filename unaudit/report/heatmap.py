"""Heat maps of residual indices: models by probes, the subject among models of known making.

One map for the probes that see outputs, one for those that see the inside: a fake looks like a
retrained model in the first and like the original in the second.
"""

from __future__ import annotations

import math
from statistics import median

from unaudit.evidence import Access
from unaudit.report.heatgrid import draw_grid
from unaudit.report.heatgrid_layout import NARROW, WIDE, column_blocks
from unaudit.report.record import Matrix, MatrixRow, Record
from unaudit.report.svg import Figure, Numbers
from unaudit.report.text import bounds, number
from unaudit.report.wording import reading, unsigned_probes
from unaudit.text import shorten

MAPS: tuple[tuple[Access, str, str], ...] = (
    ("black-box", "outputs", "What outputs show"),
    ("white-box", "inside", "What activations and weights show"),
)
"""Access of the probes, name and title of their map."""
CAPTION = (
    "Residual index of every model in every probe. 0, white: like a retrained model. 1, orange: "
    "like the original. Below 0, blue: over-unlearned. The mark says where the whole interval lies "
    "(single tests, not corrected). Gray: probes that cannot see on these data. Last line: "
    "standard deviation of the retrained models."
)
MOST_MODELS = 7
"""Of one table."""


def heatmaps(record: Record) -> list[Figure]:
    """The matrix by the access of its probes, in pictures of one page each; none without
    calibrators."""
    if record.matrix is None:
        return []
    unsigned = unsigned_probes(record)
    figures: list[Figure] = []
    for access, name, title in MAPS:
        seen = [i for i, c in enumerate(record.matrix.columns) if c.access == access]
        if not seen:
            continue
        part = _some(record.matrix, seen)
        first, *others = (_some(part, block) for block in column_blocks(part, WIDE))
        caption = "The same for probes that look inside." if figures else CAPTION
        figures.append(_figure(first, name, title, caption, _reading(part), unsigned))
        figures += [
            _figure(other, f"{name}-{at}", f"{title}, continued", "", "", unsigned)
            for at, other in enumerate(others, start=2)
        ]
    return figures


def _some(matrix: Matrix, columns: list[int]) -> Matrix:
    return Matrix(
        columns=tuple(matrix.columns[i] for i in columns),
        rows=tuple(
            row.model_copy(update={"cells": tuple(row.cells[i] for i in columns)})
            for row in matrix.rows
        ),
    )


def _figure(
    matrix: Matrix,
    name: str,
    title: str,
    caption: str,
    said: str,
    unsigned: frozenset[str],
) -> Figure:
    wide, narrow = (
        draw_grid(matrix, f"matrix-{name}{suffix}", layout, unsigned, title, said)
        for suffix, layout in (("", WIDE), ("-narrow", NARROW))
    )
    first, *more = _tables(matrix, unsigned)
    return Figure(
        f"matrix-{name}",
        title,
        caption,
        wide.markup("wide"),
        narrow.markup("narrow"),
        first.head,
        first.rows,
        "Estimate, mark and interval. –: the probe declined or broke on that model.",
        said,
        tuple(more),
    )


def _tables(matrix: Matrix, unsigned: frozenset[str]) -> list[Numbers]:
    """Probes down, models across, so many models to a table as a page takes."""
    rows = matrix.rows
    size = math.ceil(len(rows) / math.ceil(len(rows) / MOST_MODELS))
    return [
        Numbers(
            ("Probe", *(shorten(row.model, 40) for row in rows[start : start + size])),
            tuple(
                (
                    shorten(column.title, 60),
                    *(
                        _said(row, place, column.probe in unsigned)
                        for row in rows[start : start + size]
                    ),
                )
                for place, column in enumerate(matrix.columns)
            ),
        )
        for start in range(0, len(rows), size)
    ]


def _said(row: MatrixRow, place: int, unsigned: bool) -> str:
    cell = row.cells[place]
    if cell is None or cell.index is None:
        return "–"
    symbol = reading(cell.outcome, unsigned=unsigned).symbol
    said = f"{number(cell.index.estimate)} {symbol}", bounds(cell.index)
    # a line may end between the two and nowhere else
    return " ".join(part.replace(" ", "\u00a0") for part in said)


def _reading(matrix: Matrix) -> str:
    """Whose row the subject's is most like."""
    subject = next((row for row in matrix.rows if row.role == "subject"), None)
    if subject is None:
        return ""
    apart = {"the retrained models": _apart(matrix, subject, None)}
    for row in matrix.rows:
        if row.role != "subject":
            name = "the original" if row.role == "original" else shorten(row.model, 60)
            apart[name] = _apart(matrix, subject, row)
    known = {name: value for name, value in apart.items() if value is not None}
    if not known:
        return "No probe of this kind can see on these data."
    nearest = min(known, key=lambda name: known[name])
    others = [
        f"{number(known[name])} to {name}"
        for name in ("the retrained models", "the original")
        if name in known and name != nearest
    ]
    count = sum(column.informative for column in matrix.columns)
    probes = f"Over the {count} probes that can" if count != 1 else "In the one probe that can"
    return (
        f"{probes} see here, the subject is most like {nearest}: median difference "
        f"{number(known[nearest])}, against {' and '.join(others)}."
    )


def _apart(matrix: Matrix, one: MatrixRow, other: MatrixRow | None) -> float | None:
    """Median distance over the informative probes; without ``other``, from 0."""
    found = []
    for place, column in enumerate(matrix.columns):
        mine = one.cells[place]
        theirs = other.cells[place] if other else None
        if not column.informative or mine is None or mine.index is None:
            continue
        if other is None:
            found.append(abs(mine.index.estimate))
        elif theirs is not None and theirs.index is not None:
            found.append(abs(mine.index.estimate - theirs.index.estimate))
    return median(found) if found else None
