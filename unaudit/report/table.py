"""The matrix of residual indices as a table to paste or to compute with: Markdown, CSV."""

from __future__ import annotations

import csv
import io
from statistics import fmean

from unaudit.errors import InputError
from unaudit.report.record import Accuracy, Matrix, MatrixCell, Record
from unaudit.report.shadows import variants
from unaudit.report.text import bounds, level, number, percent, printable, sentence
from unaudit.report.wording import READINGS, reading, unsigned_probes

ACCURACIES = ("forget", "retain", "unseen")


def matrix_of(record: Record) -> Matrix:
    """The matrix of a record.

    Raises:
        InputError: it has none.
    """
    if record.matrix is not None:
        return record.matrix
    reason = (record.sanity.reason if record.sanity else None) or "calibration.unlearners is empty"
    raise InputError(
        f"no unlearner was run on the original, so there is nothing to compare: {reason}"
    )


def markdown(record: Record) -> str:
    """Rows are models, columns are probes: estimate, interval and mark.

    Raises:
        InputError: there is no matrix.
    """
    shown = printable(record)
    matrix, unsigned = matrix_of(shown), unsigned_probes(shown)
    accuracy = _accuracy_of(shown)
    run = variants(shown)
    titles = [
        f"{c.title}{'' if c.informative else ' †'}{' ‡' if c.probe in run else ''}"
        for c in matrix.columns
    ]
    lines = [
        _line(["Model", *(f"accuracy, {name}" for name in ACCURACIES), *titles]),
        _line(["---", *["---:"] * (len(ACCURACIES) + len(titles))]),
    ]
    for row in matrix.rows:
        own = accuracy.get(row.model)
        cells = [percent(getattr(own, name) if own else None) for name in ACCURACIES]
        cells += [
            _said(cell, column.probe in unsigned)
            for column, cell in zip(matrix.columns, row.cells, strict=True)
        ]
        lines.append(_line([row.model, *cells]))
    lines.append(_line(["retrained, mean ± SD", *_ordinary(shown, matrix)]))
    marks = ", ".join(f"{read.symbol} {read.word}" for read in READINGS)
    notes = [
        f"Residual index, 0: like a retrained model, 1: like the original; "
        f"{level(1 - 2 * shown.plan.policy.alpha)} intervals; {marks} at a margin of "
        f"{number(shown.plan.policy.tau)}. Scenario {shown.request.scenario}, "
        f"{shown.request.forget} forget examples, {len(shown.controls.retrained)} retrained "
        "models.",
        *(
            f"† {column.title}: {sentence(column.reason or 'not informative')}"
            for column in matrix.columns
            if not column.informative
        ),
        *(f"‡ {c.title}: {run[c.probe]}." for c in matrix.columns if c.probe in run),
    ]
    return "\n".join([*lines, "", *(f"{_escaped(note)}  " for note in notes)]).rstrip() + "\n"


def as_csv(record: Record) -> str:
    """Rows are models; each probe has four columns, ``NAME``, ``NAME:low``, ``NAME:high`` and
    ``NAME:outcome``.

    Numbers have all their digits. Empty: an end that the data do not bound, or no number at all.

    Raises:
        InputError: there is no matrix.
    """
    matrix = matrix_of(record)
    accuracy = _accuracy_of(record)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["model", "role", *(f"accuracy:{name}" for name in ACCURACIES)]
    for column in matrix.columns:
        head += [column.probe, *(f"{column.probe}:{x}" for x in ("low", "high", "outcome"))]
    writer.writerow(head)
    for row in matrix.rows:
        own = accuracy.get(row.model)
        line: list[str | float | None] = [row.model, row.role]
        line += [getattr(own, name) if own else None for name in ACCURACIES]
        for cell in row.cells:
            index = cell.index if cell else None
            line += [index.estimate, index.low, index.high] if index else [None, None, None]
            line.append(cell.outcome if cell else None)
        writer.writerow(line)
    return out.getvalue()


def _ordinary(record: Record, matrix: Matrix) -> list[str]:
    """The retrained models: accuracies, and what is ordinary on every axis."""
    models = [row for row in record.controls.accuracy if row.role == "retrained"]
    cells = []
    for name in ACCURACIES:
        known = [rate for row in models if (rate := getattr(row, name)) is not None]
        cells.append(percent(fmean(known) if known else None))
    spreads = [column.retrained_spread for column in matrix.columns]
    return cells + ["–" if spread is None else f"0 ± {number(spread)}" for spread in spreads]


def _accuracy_of(record: Record) -> dict[str, Accuracy]:
    return {row.model: row for row in record.controls.accuracy}


def _said(cell: MatrixCell | None, unsigned: bool) -> str:
    if cell is None or cell.index is None:
        return "–"
    symbol = reading(cell.outcome, unsigned=unsigned).symbol
    return f"{number(cell.index.estimate)} {bounds(cell.index)} {symbol}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """Names come from plug-ins: no pipe may end a cell, no angle bracket may open a tag."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
