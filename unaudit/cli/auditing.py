"""Run an audit and deliver what it found, for ``check`` and ``demo`` alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unaudit.cli.consoles import drop_stdout, note, result_console, warn
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.request import writable_folder
from unaudit.errors import InputError, UsageError

if TYPE_CHECKING:
    from unaudit.plan import AuditPlan
    from unaudit.report import Target
    from unaudit.report.record import Record


def conduct(plan: AuditPlan, command: str, *, quiet: bool = False) -> Record:
    """Audit, write ``record.json`` and the reports, print the summary.

    Raises:
        UnauditError: as the audit and the renderers do; an unwritable folder before any work.
    """
    targets = makeable(plan_targets(plan), optional_pdf="formats" not in plan.run.model_fields_set)
    for folder in {target.path.parent for target in targets}:
        writable_folder(folder)
    _set_aside(targets[0].path)
    # imported late: torch and scipy take seconds, which a mistyped flag should not cost
    from unaudit.pipeline import audit
    from unaudit.report import render

    with progress_on_stderr(quiet) as progress:
        record = audit(plan, progress=progress, command=command)
        with progress.stage("writing reports"):
            written = render(record, targets)
    if not quiet:
        for path in written:
            note(f"wrote {path}")
    show(record, quiet=quiet)
    return record


def _set_aside(record: Path) -> None:
    """Rename the record of an earlier run: if this one ends in an error, a gate that reads the file
    must not find an old verdict."""
    if record.exists():
        record.replace(record.with_name(f"previous-{record.name}"))


def plan_targets(plan: AuditPlan) -> list[Target]:
    """What the plan asks to be written; ``record.json`` always comes first.

    Raises:
        UsageError: an unknown format, or one path for two reports.
    """
    from unaudit.report import Target, parse_target

    folder = Path(plan.run.out)
    asked = [parse_target(spec, folder) for spec in plan.run.formats]
    targets = list(dict.fromkeys([Target("json", folder / "record.json"), *asked]))
    paths = [target.path for target in targets]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"two reports would be written to {path}; give each its own path")
    return targets


def makeable(targets: list[Target], *, optional_pdf: bool) -> list[Target]:
    """The targets that this machine can make, found out before the long work.

    Args:
        targets: what is wanted.
        optional_pdf: where PDF cannot be made, warn and leave it out instead of refusing.

    Raises:
        InputError: a PDF was asked for and WeasyPrint or pango is missing.
    """
    if not any(target.format == "pdf" for target in targets):
        return targets
    from unaudit.report.pdf import library

    try:
        library()
    except InputError as error:
        if not optional_pdf:
            raise
        warn(str(error))
        return [target for target in targets if target.format != "pdf"]
    return targets


def show(record: Record, *, quiet: bool) -> None:
    """Print the summary, or the verdict alone. A reader that went away changes no exit code."""
    from unaudit.report.text import printable

    try:
        if quiet:
            verdict = printable(record).verdict
            click.echo(f"{verdict.outcome}: {verdict.headline}")
        else:
            from unaudit.report.terminal import print_summary

            print_summary(record, result_console())
    except BrokenPipeError:
        drop_stdout()
