"""``unaudit check``: audit one model and answer with an exit code."""

from __future__ import annotations

from typing import Any

import click

from unaudit.cli.auditing import conduct
from unaudit.cli.consoles import exit_with
from unaudit.cli.flags import audit_flags, quiet_flag
from unaudit.cli.options import AuditCommand, PlainOption
from unaudit.cli.request import plan_from_line


@click.command(cls=AuditCommand, short_help="Audit a model; the exit code is the verdict.")
@audit_flags
@click.option(
    "--exit-zero",
    is_flag=True,
    cls=PlainOption,
    help="Exit 0 whatever the verdict; errors keep their codes.",
)
@quiet_flag
@click.pass_context
def check(ctx: click.Context, /, exit_zero: bool, quiet: bool, **_: Any) -> None:
    """Can MODEL, after unlearning, still be told apart on the forget set from models that never saw
    it?

    MODEL is a weights file (safetensors, .pt), a Hugging Face folder of a text classifier or a
    causal language model, or outputs:FILE.npz with recorded logits. What the line leaves out comes
    from unaudit.toml.

    \b
    Exit codes: 0 pass, 1 evidence of retention, 2 bad input or usage,
    3 inconclusive, 4 model refused as unsafe, 70 internal error,
    130 interrupted.
    """
    line = plan_from_line(ctx)
    record = conduct(line.plan, line.repeats, quiet=quiet)
    exit_with(0 if exit_zero else record.verdict.exit_code)
