"""Where the columns of a heat map's grid are: in how many blocks, how wide, by family."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unaudit.evidence import Family
from unaudit.report.record import Matrix, MatrixColumn


@dataclass(frozen=True)
class Layout:
    """Where labels and cells are, in pixels."""

    width: float
    label: float
    """Width of the row labels."""
    right: float
    """Room for the last column's slanted title."""
    least: float
    most: float
    """Width of a cell."""
    row: float
    """Height of a row."""
    part: float
    """Between families."""
    size: float
    """Font size in cells."""
    title: float
    """Font size of columns' titles."""
    title_characters: int
    characters: int
    """Of a row's label."""
    legend: float
    """Where the scale of colors begins."""


WIDE = Layout(
    width=760, label=134, right=76, least=33, most=60, row=31, part=7, size=10.5, characters=20,
    title=11, title_characters=28, legend=134,
)  # fmt: skip
NARROW = Layout(
    width=340, label=94, right=62, least=28.5, most=44, row=29, part=4, size=9.5, characters=17,
    title=10, title_characters=28, legend=4,
)  # fmt: skip
GRAY = 0.5
"""Width of a column without numbers, as part of another's."""


@dataclass(frozen=True)
class Place:
    """One column of a block."""

    index: int
    """In the matrix."""
    left: float
    width: float

    @property
    def center(self) -> float:
        return self.left + self.width / 2


def column_blocks(matrix: Matrix, layout: Layout) -> list[list[int]]:
    """Columns by place, in blocks of about the same width, none wider than the page."""
    shares = _shares(matrix)
    room = _room(matrix, layout) / layout.least
    # a block may turn out wider than the average by a column
    count = 1 if sum(shares) <= room else math.ceil(sum(shares) / (room - 1.0))
    blocks: list[list[int]] = [[] for _ in range(count)]
    end = 0.0
    for index, share in enumerate(shares):
        end += share
        blocks[int((end - share / 2) / sum(shares) * count)].append(index)
    return [block for block in blocks if block]


def _shares(matrix: Matrix) -> list[float]:
    """Widths of the columns, relative to one with numbers."""
    return [1.0 if column.informative else GRAY for column in matrix.columns]


def _room(matrix: Matrix, layout: Layout) -> float:
    gaps = len({group_of(column) for column in matrix.columns}) - 1
    return layout.width - layout.label - layout.right - layout.part * gaps


def placed_blocks(matrix: Matrix, layout: Layout) -> list[list[Place]]:
    """The same with their places on the page."""
    groups, shares = [group_of(column) for column in matrix.columns], _shares(matrix)
    blocks = column_blocks(matrix, layout)
    widest = max(sum(shares[i] for i in block) for block in blocks)
    cell = min(layout.most, _room(matrix, layout) / widest)
    return [_placed(block, groups, [cell * share for share in shares], layout) for block in blocks]


def _placed(
    block: list[int], groups: list[Family | None], widths: list[float], layout: Layout
) -> list[Place]:
    places: list[Place] = []
    x = layout.label
    for index in block:
        if places and groups[index] != groups[index - 1]:
            x += layout.part
        places.append(Place(index, x, widths[index]))
        x += widths[index]
    return places


def group_of(column: MatrixColumn) -> Family | None:
    """What a column stands among: its family, or None among those that see nothing."""
    return column.family if column.informative else None
