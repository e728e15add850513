"""``unaudit unlearners``: list the reference unlearners, or explain one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unaudit.cli.consoles import one_line, paragraph, result_console
from unaudit.cli.options import AuditCommand
from unaudit.cli.probes import parameters_of

if TYPE_CHECKING:
    from rich.console import Console

    from unaudit.unlearners import Unlearner


@click.command(cls=AuditCommand, short_help="List the unlearners, or explain one.")
@click.argument("name", required=False)
def unlearners(name: str | None) -> None:
    """List the reference unlearners, or explain NAME: what it optimizes, on which data, and where
    it departs from its paper."""
    from unaudit.unlearners import load_unlearners

    known = load_unlearners()
    console = result_console()
    if name is not None and name not in known.broken:
        _explain(console, name, known.get(name))
        return
    if name is None:
        for registered, kind in known.items():
            scenarios = ", ".join(sorted(kind.card.scenarios))
            title, mark = one_line(kind.card.title), "any" if len(kind.card.tasks) > 1 else ""
            console.print(
                f"  {one_line(registered):<18} {title:<18} {scenarios:<30}{mark}".rstrip()
            )
        console.print("any: works on language models and classifiers; else on classifiers")
        console.print(f"{len(known)} unlearners; explain one with: unaudit unlearners NAME")
    for broken, reason in known.broken.items():
        if name in (None, broken):
            paragraph(console, "broken", f"{broken}: the plug-in failed to import ({reason})")


def _explain(console: Console, name: str, kind: type[Unlearner]) -> None:
    from unaudit.unlearners.contract import MODELS

    card = kind.card
    console.print(one_line(f"{name}: {card.title}"), style="bold")
    facts = [
        ("idea", card.idea),
        ("source", card.source),
        ("consumes", ", ".join(sorted(card.consumes))),
        ("scenarios", ", ".join(sorted(card.scenarios))),
        ("models", " and ".join(MODELS[task] for task in sorted(card.tasks))),
        *(("departs", text) for text in card.deviations),
        *(("parameter", text) for text in parameters_of(kind)),
    ]
    for label, text in facts:
        paragraph(console, label, text)
    console.print(f"\nRun it with: unaudit unlearn {name} ORIGINAL --forget IDS -o OUT")
