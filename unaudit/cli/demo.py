"""``unaudit demo``: the same pipeline on embedded data; no input needed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from unaudit.cli.auditing import conduct
from unaudit.cli.consoles import note
from unaudit.cli.flags import quiet_flag
from unaudit.cli.options import AuditCommand
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.request import writable_folder

if TYPE_CHECKING:
    from unaudit.demo import Setting, Subject

SUBJECTS = ("finetuned", "head-distilled", "retrained", "original")
SCENARIOS = ("sample", "class")
SHADOWS = 64
INPUTS = "inputs"
"""Folder inside ``--out`` for what a user would hand in: models, data, ids, ``unaudit.toml``."""


@click.command(cls=AuditCommand, short_help="Audit models trained on embedded data; no input.")
@click.option(
    "--subject",
    type=click.Choice(SUBJECTS),
    default=SUBJECTS[0],
    show_default=True,
    help="What the audited model really is: fine-tuned without the forget set, a fake that only "
    "refits its last layer, retrained from scratch, or the original itself.",
)
@click.option(
    "--scenario",
    type=click.Choice(SCENARIOS),
    default=SCENARIOS[0],
    show_default=True,
    help="Forget 200 digits over all classes, or one whole class.",
)
@click.option(
    "--out",
    default="unaudit-demo",
    show_default=True,
    metavar="DIR",
    help="Folder for everything it writes.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Another cut of the data, other models.",
)
@click.option(
    "-o",
    "formats",
    multiple=True,
    metavar="FORMAT[:PATH]",
    help="Report to write, repeatable: html, pdf, json. Default: html and pdf.",
)
@quiet_flag
def demo(
    subject: str, scenario: str, out: str, seed: int, formats: tuple[str, ...], quiet: bool
) -> None:
    """Train models on scikit-learn's digits, then audit one of them as 'unaudit check' would.

    Ends with exit code 0 whatever the verdict, and says which one a gate would have seen.
    """
    folder = Path(out)
    writable_folder(folder)
    from unaudit.demo import build_world
    from unaudit.plan import CONFIG_NAME, AuditPlan
    from unaudit.report import parse_target

    for spec in formats:
        parse_target(spec)
    with progress_on_stderr(quiet) as progress:
        # whole classes show in any output; for examples among their like it takes shadow models
        shadows = SHADOWS if scenario == "sample" else 0
        world = build_world(
            folder / INPUTS,
            cast("Subject", subject),
            cast("Setting", scenario),
            seed,
            progress,
            shadows=shadows,
        )
    run = {"out": out, **({"formats": list(formats)} if formats else {})}
    plan = AuditPlan.from_toml(folder / INPUTS / CONFIG_NAME, {"run": run})
    model = Path(world.model.path or "")
    record = conduct(plan, shlex.join(["unaudit", "check", model.name]), quiet=quiet)
    repeat = shlex.join(["unaudit", "check", str(model), "--out", out])
    code = record.verdict.exit_code
    click.echo(f"A gate would have seen exit code {code}; the demo itself ends with 0.")
    note(f"repeat the audit on the written files with: {repeat}")
