"""``unaudit report``: render a record again, without torch and without the models."""

from __future__ import annotations

from pathlib import Path

import click

from unaudit.cli.auditing import show
from unaudit.cli.consoles import note
from unaudit.cli.options import AuditCommand


@click.command(cls=AuditCommand, short_help="Render a record.json again.")
@click.argument("record", metavar="RECORD")
@click.option(
    "-o",
    "formats",
    multiple=True,
    metavar="FORMAT[:PATH]",
    help="html, pdf or json, repeatable; without a path next to RECORD. Default: the summary on "
    "stdout.",
)
def report(record: str, formats: tuple[str, ...]) -> None:
    """Render RECORD, a record.json, as HTML, PDF or JSON, or print its summary.

    Needs neither the models nor the data. The exit code tells whether the files were written; it
    does not repeat the verdict.
    """
    from unaudit.report import parse_target, render
    from unaudit.report.record import Record

    path = Path(record)
    targets = [parse_target(spec, path.parent) for spec in formats]
    found = Record.read(path)
    if not targets:
        show(found, quiet=False)
    for target in render(found, targets):
        note(f"wrote {target}")
