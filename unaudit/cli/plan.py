"""``unaudit plan``: what an audit would do and what it could not see; no model is run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from unaudit.cli.consoles import one_line, result_console
from unaudit.cli.flags import audit_flags, quiet_flag
from unaudit.cli.options import AuditCommand
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.request import plan_from_line

if TYPE_CHECKING:
    from rich.console import Console

    from unaudit.cost import Cost
    from unaudit.forecast import Preview
    from unaudit.plan import AuditPlan

WIDTH = 80
COUNTS = ((1e9, "billion"), (1e6, "million"), (1e3, "thousand"))
OPERATIONS = (
    *((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
    *((1e3, "kFLOP"), (1.0, "FLOP")),
)
"""Units, the largest first."""


@click.command(cls=AuditCommand, short_help="Say what 'check' would do; runs no model.")
@audit_flags
@quiet_flag
@click.pass_context
def plan(ctx: click.Context, /, quiet: bool, **_: Any) -> None:
    """Say which probes 'unaudit check' would run with the same flags, what it would cost, what it
    could detect and what it could not see.

    Reads the files and checks them as 'check' does; runs no model and writes nothing but the cache.
    Where models would be trained, a network of random weights takes a few steps, to see how long.
    """
    line = plan_from_line(ctx)
    from unaudit.forecast import preview

    with progress_on_stderr(quiet) as progress:
        found = preview(line.plan, progress=progress)
    _print(result_console(), line.plan, found)
    click.echo(f"\nRun it with: {line.typed}")


def _print(console: Console, audit_plan: AuditPlan, found: Preview) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in found.splits.items())
    policy = audit_plan.policy
    preset = "custom" if policy.tau is not None else policy.preset
    gate = (
        f"exit code 1 for fail, {'3' if policy.fail_on == 'inconclusive' else '0'} for inconclusive"
    )
    _facts(
        console,
        "Audit",
        [
            ("subject", found.subject),
            ("examples", counts),
            ("scenario", found.scenario),
            ("access", found.access),
            ("assurance", f"level {found.assurance_level} of 4 at most"),
            (
                "cost",
                f"{found.forward_passes} forward passes over {found.examples} examples in "
                f"all{_passes(found)}; what the cache holds is not run again",
            ),
            *_training(found),
        ],
    )
    _facts(
        console,
        "Policy, fixed before the run",
        [
            (
                "margin",
                f"τ = {found.tau:g} ({preset}): residual influence must stay below "
                f"{found.tau:.0%} of the original's",
            ),
            ("error rate", f"α = {found.alpha:g}, over all probes together"),
            ("for a pass", f"every one of: {', '.join(found.required)}"),
            ("black box", _black_box(found)),
            ("gate", gate),
        ],
    )
    _facts(
        console,
        f"Will run ({len(found.will_run)})",
        [(card.name, f"{card.family}: {card.title}") for card in found.will_run],
    )
    _facts(
        console,
        f"Will not run ({len(found.will_not_run)})",
        [(missed.card.name, missed.reason) for missed in found.will_not_run],
    )
    _list(console, "Missing", (*found.missing, *found.warnings))
    _list(console, "What these probes cannot see", _blind_spots(found))


def _passes(found: Preview) -> str:
    if found.cost is None or found.cost.forward is None:
        return ""
    return f" ({_rounded(found.cost.forward * found.examples, OPERATIONS)})"


def _training(found: Preview) -> list[tuple[str, str]]:
    """What is made from the recipe, how long that takes, and what shadow models could tell."""
    rows: list[tuple[str, str]] = []
    cost = found.cost
    if cost is not None and cost.missing:
        *others, last = [
            f"{lot.missing} {lot.kind}{'' if lot.missing == 1 else 's'}"
            for lot in cost.lots
            if lot.missing
        ]
        made = f"{', '.join(others)} and {last}" if others else last
        held = f"; the cache holds {cost.stored} more" if cost.stored else ""
        rows += [("trains", f"{made} by the recipe{held}"), ("takes", _effort(cost))]
    elif cost is not None and cost.stored:
        rows.append(("trains", f"nothing; the cache holds all models ({cost.stored})"))
    if found.power is not None:
        least = f"{100 * found.power.least_fpr:.2g} %"
        rows.append(
            (
                "LiRA",
                f"{found.power}, on its own; true-positive rates can be told at false-positive "
                f"rates from {least} on",
            )
        )
    if found.given_up is not None:
        rows.append(("given up", found.given_up))
    return rows


def _effort(cost: Cost) -> str:
    from unaudit.cost import duration

    total = cost.effort
    passes = _rounded(total.trained + total.unlearned + total.asked, COUNTS)
    work = "" if cost.operations is None else f" ({_rounded(cost.operations, OPERATIONS)})"
    return (
        f"about {duration(cost.seconds)} on this machine, by a short timing, for {passes} examples "
        f"through networks{work}"
    )


def _rounded(number: int, units: Sequence[tuple[float, str]]) -> str:
    """Two digits and the largest unit that fits."""
    for size, unit in units:
        if number >= size:
            return f"{float(f'{number / size:.2g}'):g} {unit}"
    return str(number)


def _black_box(found: Preview) -> str:
    if found.access == "white-box":
        return "not relied on alone; probes see the weights too"
    if found.accept_black_box:
        return "accepted by the policy, although refitting the last layer can fake its evidence"
    return (
        "black-box evidence alone ends at best inconclusive, since refitting the last layer can "
        "fake it; --accept-black-box lets it pass"
    )


def _blind_spots(found: Preview) -> list[str]:
    """Each blind spot once, the most widely shared first, with the probes that have it."""
    probes_by_spot: dict[str, list[str]] = {}
    for card in found.will_run:
        for spot in card.blind_spots:
            probes_by_spot.setdefault(spot, []).append(card.name)
    everyone = [card.name for card in found.will_run]
    widest_first = sorted(probes_by_spot.items(), key=lambda item: -len(item[1]))
    return [f"{spot} [{_who(names, everyone)}]" for spot, names in widest_first]


def _who(names: list[str], everyone: list[str]) -> str:
    others = [name for name in everyone if name not in names]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) < 3 < len(names) else ", ".join(names)


def _facts(console: Console, heading: str, rows: list[tuple[str, str]]) -> None:
    """A heading, then labels with their texts, wrapped at 80 columns."""
    console.print(f"\n{heading}", style="bold")
    column = max((len(label) for label, _ in rows), default=0) + 2
    for label, text in rows or [("", "nothing")]:
        # names and texts may come from files and plug-ins
        _wrapped(console, f"  {one_line(label):<{column}}", text)


def _list(console: Console, heading: str, items: Sequence[str]) -> None:
    console.print(f"\n{heading}", style="bold")
    for item in items or ["nothing"]:
        _wrapped(console, "  - " if items else "  ", item)


def _wrapped(console: Console, start: str, text: str) -> None:
    indent = " " * len(start)
    console.print(
        textwrap.fill(
            one_line(text),
            WIDTH,
            initial_indent=start,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
    )
