"""``unaudit store``: what lies in the cache, what can go, whether it is whole."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unaudit.cli.consoles import exit_with, one_line, result_console
from unaudit.cli.flags import quiet_flag
from unaudit.cli.options import AuditCommand
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.quantities import age, n_bytes, seconds
from unaudit.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unaudit.engine.housekeeping import Stored

PURPOSES = {
    "logits": "outputs of models",
    "activations": "inner outputs of models",
    "answer": "what probes said",
    "make_model": "trained and unlearned models",
    "make_shadow": "shadow models",
    "shadow-pool": "examples that shadow models see",
    "shadow-masks": "which of them each model saw",
    "shadow-scores": "what shadow models say",
    "queried": "outputs for changed examples",
    "retrained-estimate": "what retraining would give",
    "weights": "originals, for unlearners",
    "inputs": "prepared examples",
    "labels": "labels of examples",
    "forget": "which examples to forget",
    "fingerprints": "to find copies among examples",
    "tokens": "texts as a model reads them",
    "token counts": "how long texts are",
    "unknown tokens": "how well they are read",
    "token scores": "what models say of texts",
    "text fingerprints": "to find copies among texts",
    "text compressed sizes": "texts after zlib",
    "npz inputs": "unpacked examples",
    "text inputs": "examples read from text",
    "unknown": "of an earlier version",
    "damaged": "set aside, never used again",
    "unfinished": "being written, or abandoned",
}
"""What entries of a kind are for."""
LONGEST_LIST = 20
"""Damaged entries that are named; the others are counted."""

F = TypeVar("F", bound="Callable[..., Any]")


@click.group(invoke_without_command=True, short_help="List, clean or check the cache.")
@click.pass_context
def store(ctx: click.Context) -> None:
    """The cache of models, outputs and answers: all of it can be computed again."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(int(ExitCode.BAD_INPUT))


def _store_flag(command: F) -> F:
    return click.option(
        "--store",
        "folder",
        metavar="DIR",
        help="Folder of the cache. Default: $UNAUDIT_STORE or the user's cache folder.",
    )(command)


@store.command("ls", cls=AuditCommand, short_help="List what is there, by kind.")
@_store_flag
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(folder: str | None, as_json: bool) -> None:
    """List what the cache holds: kinds of entries, how many, how large, how old."""
    from unaudit.engine.housekeeping import entries_of, unfinished

    root = _root(folder)
    kinds = _by_kind([*entries_of(root), *unfinished(root)])
    if as_json:
        rows = [kind.as_json() for kind in kinds]
        click.echo(json.dumps({"store": str(root), "kinds": rows}, indent=2))
    else:
        _show(root, kinds)


@store.command("gc", cls=AuditCommand, short_help="Remove what is old, or too much.")
@_store_flag
@click.option(
    "--older-than",
    callback=seconds,
    metavar="TIME",
    help="Remove what was not used for longer: 12h, 30d, 8w.",
)
@click.option(
    "--max-size",
    callback=n_bytes,
    metavar="SIZE",
    help="Remove what was not used for longest until the rest fits: 500M, 10G.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Count and remove this kind only, all of it if no other flag is given; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
def gc(
    folder: str | None,
    older_than: float | None,
    max_size: int | None,
    kinds: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Remove entries that are old or too much, and files that killed processes left.

    May run beside an audit: what a process uses stays. Without flags only abandoned files go. The
    auditor's key always stays.
    """
    from unaudit.engine.housekeeping import clean

    root = _root(folder)
    _refuse_unknown(kinds, root)
    done = clean(root, older_than=older_than, max_size=max_size, kinds=kinds, dry_run=dry_run)
    did = "would remove" if dry_run else "removed"
    console = result_console()
    counts = Counter(entry.kind for entry in done.removed)
    which = ", ".join(f"{one_line(kind)} {count}" for kind, count in sorted(counts.items()))
    console.print(f"{did} {_amount(done.removed)}{': ' if which else ''}{which}")
    if done.abandoned:
        console.print(f"{did} {_amount(done.abandoned, 'abandoned file')}")
    if done.busy:
        console.print(f"in use, so not removed: {_amount(done.busy)}")
    console.print(f"kept {_amount(done.kept)}")


@store.command("verify", cls=AuditCommand, short_help="Hash every entry anew.")
@_store_flag
@click.option("--repair", is_flag=True, help="Set damaged entries aside, to be computed again.")
@quiet_flag
def verify(folder: str | None, repair: bool, quiet: bool) -> None:
    """Hash every entry anew and list those that are damaged.

    Exit codes: 0 all are whole, or what was not has been set aside; 2 some are damaged.
    """
    from unaudit.engine.housekeeping import DAMAGED, damaged_entries, entries_of

    root = _root(folder)
    total = sum(entry.kind != DAMAGED for entry in entries_of(root))
    with (
        progress_on_stderr(quiet) as progress,
        progress.stage("checking the cache", total) as step,
    ):
        found = list(damaged_entries(root, repair=repair, on_checked=step))
    console = result_console()
    for damage in () if quiet else found[:LONGEST_LIST]:
        console.print(
            one_line(f"{damage.entry.path}: {damage.entry.kind}, {damage.reason}"), soft_wrap=True
        )
    if not quiet and len(found) > LONGEST_LIST:
        console.print(f"and {len(found) - LONGEST_LIST} more")
    left = [damage for damage in found if damage.moved_to is None]
    if not found:
        console.print(f"{total} entries, all whole")
    elif left:
        remedy = "" if repair else "; set them aside with --repair, or let the next audit do it"
        console.print(f"{len(left)} of {total} entries damaged{remedy}", soft_wrap=True)
        exit_with(ExitCode.BAD_INPUT)
    else:
        console.print(f"{len(found)} of {total} entries damaged and set aside")


@dataclass(frozen=True)
class _Kind:
    name: str
    entries: int
    size: int
    oldest: float | None
    """Seconds since 1970."""
    used: float
    """The last time, in seconds since 1970."""

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.name,
            "purpose": PURPOSES.get(self.name, ""),
            "entries": self.entries,
            "bytes": self.size,
            "oldest": _iso(self.oldest),
            "last_used": _iso(self.used),
        }


def _by_kind(files: Iterable[Stored]) -> list[_Kind]:
    """Largest first."""
    grouped: dict[str, list[Stored]] = {}
    for file in files:
        grouped.setdefault(file.kind, []).append(file)
    kinds = [
        _Kind(
            name,
            len(own),
            sum(file.size for file in own),
            min((file.created for file in own if file.created is not None), default=None),
            max(file.used for file in own),
        )
        for name, own in grouped.items()
    ]
    return sorted(kinds, key=lambda kind: (-kind.size, kind.name))


def _show(root: Path, kinds: Sequence[_Kind]) -> None:
    from rich.table import Table

    from unaudit.text import plain, size

    console = result_console()
    console.print(one_line(str(root)), soft_wrap=True)
    if not kinds:
        console.print("empty")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "entries", "size", "oldest", "used", "what it is"):
        table.add_column(title, justify="left" if title in ("kind", "what it is") else "right")
    now = time.time()
    for kind in kinds:
        table.add_row(
            plain(kind.name, 24),
            f"{kind.entries:,}",
            size(kind.size),
            "–" if kind.oldest is None else age(now - kind.oldest),
            age(now - kind.used),
            PURPOSES.get(kind.name, ""),
        )
    entries = sum(kind.entries for kind in kinds)
    table.add_row("total", f"{entries:,}", size(sum(kind.size for kind in kinds)), "", "", "")
    console.print(table)


def _root(folder: str | None) -> Path:
    from unaudit.engine.store import default_root

    root = default_root() if folder is None else Path(folder)
    if folder is not None and not root.is_dir():
        raise InputError(f"{one_line(folder)}: no such folder; check --store")
    return root


def _refuse_unknown(kinds: Sequence[str], root: Path) -> None:
    """A kind that is misspelled would remove nothing, without a word."""
    from unaudit.engine.housekeeping import UNFINISHED, entries_of
    from unaudit.registry import did_you_mean

    if not kinds:
        return
    known = ({*PURPOSES} | {entry.kind for entry in entries_of(root)}) - {UNFINISHED}
    for kind in kinds:
        if kind not in known:
            raise UsageError(f"no kind '{one_line(kind)}'{did_you_mean(kind, sorted(known))}")


def _amount(files: Sequence[Stored], what: str = "entry") -> str:
    from unaudit.text import size

    plural = "entries" if what == "entry" else f"{what}s"
    total = sum(file.size for file in files)
    return f"{len(files):,} {what if len(files) == 1 else plural} ({size(total)})"


def _iso(when: float | None) -> str | None:
    try:
        moment = None if when is None else datetime.fromtimestamp(when, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None  # a file can be dated to any year
    return None if moment is None else moment.isoformat(timespec="seconds")
