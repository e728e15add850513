"""The entry point: commands, and every error as one line with its exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

import click

from unaudit.cli.bench import bench
from unaudit.cli.calibrate import calibrate
from unaudit.cli.canary import canary
from unaudit.cli.check import check
from unaudit.cli.consoles import CLOSED_PIPE, drop_stdout, listen_to_warnings, note
from unaudit.cli.demo import demo
from unaudit.cli.init import init
from unaudit.cli.plan import plan
from unaudit.cli.probes import probes
from unaudit.cli.report import report
from unaudit.cli.store import store
from unaudit.cli.unlearn import unlearn
from unaudit.cli.unlearners import unlearners
from unaudit.errors import ExitCode, UnauditError

DEBUG = "UNAUDIT_DEBUG"
"""Set to anything: errors show their traceback."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class CommandGroup(click.Group):
    """Lists commands in the order of their use and suggests near names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from unaudit.registry import did_you_mean

        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise click.UsageError(
                f"no command '{args[0]}'{did_you_mean(args[0], self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("unaudit")
    except PackageNotFoundError:
        found = "(not installed)"
    click.echo(f"unaudit {found}")
    ctx.exit()


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Decides whether a machine-unlearned model may be released.

    Try it without any input: unaudit demo
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(int(ExitCode.BAD_INPUT))


for command in (
    check,
    demo,
    init,
    plan,
    calibrate,
    bench,
    unlearn,
    probes,
    unlearners,
    report,
    canary,
    store,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never a traceback unless asked for."""
    _tolerate_narrow_encodings()
    listen_to_warnings()
    try:
        code = cli.main(
            None if arguments is None else list(arguments),
            prog_name="unaudit",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except BaseException as error:
        return _explain(error)
    return code if isinstance(code, int) else int(ExitCode.PASS)


def _explain(error: BaseException) -> int:
    """Say in one line on stderr what went wrong; the exit code that goes with it."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    if isinstance(error, UnauditError):
        note(str(error))
        return int(error.exit_code)
    if isinstance(error, click.UsageError):
        note(f"{_usage_message(error)} {_hint(error)}")
        return int(ExitCode.BAD_INPUT)
    if isinstance(error, click.ClickException):
        note(error.format_message())
        return int(ExitCode.BAD_INPUT)
    if isinstance(error, click.Abort) and isinstance(error.__cause__, EOFError):
        # click takes any EOFError for Ctrl-D; one that comes from a library is a fault of ours
        return _internal(error.__cause__)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        note("interrupted; the cache keeps what was finished")
        return int(ExitCode.INTERRUPTED)
    if isinstance(error, (BrokenPipeError, SystemExit)):
        # click turns a closed pipe into SystemExit(1), which would read as a verdict
        drop_stdout()
        return CLOSED_PIPE
    if isinstance(error, OSError) and error.errno in (*NO_ROOM, *NOT_ALLOWED):
        remedy = "free space" if error.errno in NO_ROOM else "check the permissions"
        where = f"{error.filename}: " if error.filename else ""
        note(f"{where}{error.strerror}; {remedy} or choose other folders (--out, --store)")
        return int(ExitCode.BAD_INPUT)
    return _internal(error)


def _internal(error: BaseException) -> int:
    note(
        f"internal error: {type(error).__name__}: {str(error)[:300]}; this is a bug, please report "
        f"it with the traceback that {DEBUG}=1 shows"
    )
    return int(ExitCode.INTERNAL)


def _usage_message(error: click.UsageError) -> str:
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    values = error.ctx.params if error.ctx is not None else {}
    if "unexpected extra argument" in message and values.get("retrained"):
        return f"{message}; to give several models, repeat the flag: --retrained A --retrained B;"
    return f"{message};"


def _hint(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx is not None else "unaudit"
    return f"see '{path} --help'"


def _tolerate_narrow_encodings() -> None:
    """A terminal without τ gets a substitute, not a crash."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
