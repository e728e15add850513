"""``unaudit bench``: every probe on every reference unlearner, as one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unaudit.cli.consoles import note
from unaudit.cli.flags import flags_of, plan_options, quiet_flag
from unaudit.cli.options import AuditCommand, PlainOption
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.request import plan_from_line
from unaudit.errors import UsageError

if TYPE_CHECKING:
    from unaudit.report.record import Record

    Render = Callable[[Record], str]

LEFT_OUT = ("policy.accept_black_box", "policy.fail_on", "run.out", "run.formats")
"""Of the plan: what decides a verdict or where reports go."""
KEYS = tuple(option.key for option in plan_options() if option.key not in LEFT_OUT)


@click.command(cls=AuditCommand, short_help="Tabulate every probe on every unlearner.")
@click.argument("model", required=False)
@flags_of(KEYS)
@click.option(
    "-o", "--output", "outputs", metavar="TABLE", multiple=True, cls=PlainOption,
    help="File to write, .md or .csv, repeatable. Default: Markdown on stdout.",
)  # fmt: skip
@quiet_flag
@click.pass_context
def bench(ctx: click.Context, /, outputs: tuple[str, ...], quiet: bool, **_: Any) -> None:
    """Audit MODEL and write what every probe says of it, of the original and of what the reference
    unlearners make of the original: rows are models, columns are probes.

    Needs a recipe, by --recipe or as [recipe] in unaudit.toml; --profile full takes every
    unlearner. The exit code tells whether the table was written, not what the verdict is.
    """
    targets = _targets(outputs)
    line = plan_from_line(ctx)
    if line.plan.recipe is None:
        raise UsageError(
            "bench compares models that reference unlearners make, and these take a recipe; add a "
            "[recipe] section to unaudit.toml (an empty one is filled in) or give --recipe FILE"
        )
    # imported late: torch and scipy take seconds, which a mistyped flag should not cost
    from unaudit.pipeline import audit
    from unaudit.report.files import write_atomically
    from unaudit.report.table import markdown, matrix_of

    with progress_on_stderr(quiet) as progress:
        record = audit(line.plan, progress=progress, command=line.repeats)
    matrix_of(record)
    for path, render in targets.items():
        write_atomically(path, render(record).encode("utf-8"))
        if not quiet:
            note(f"wrote {path}")
    if not targets:
        click.echo(markdown(record), nl=False)


def _targets(outputs: Sequence[str]) -> Mapping[Path, Render]:
    """What to write where, found out before any long work.

    Raises:
        UsageError: another ending, or not a place for a file.
    """
    from unaudit.report.table import as_csv, markdown

    kinds: dict[str, Render] = {".md": markdown, ".csv": as_csv}
    targets = {}
    for name in outputs:
        path = Path(name)
        if path.suffix.lower() not in kinds:
            raise UsageError(f"{name}: a table is .md or .csv; name such a file with -o")
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"{name}: not a file in an existing folder; choose another -o")
        targets[path] = kinds[path.suffix.lower()]
    return targets
