"""``unaudit probes``: list the probes, or explain one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from unaudit.cli.consoles import one_line, paragraph, result_console
from unaudit.cli.options import AuditCommand

if TYPE_CHECKING:
    from rich.console import Console

    from unaudit.evidence import Probe, ProbeCard

SHADOWS = {
    "trained": "shadow models (--shadows N)",
    "unlearned": "shadow models (--shadows N) that unlearned as well (--unlearner METHOD)",
}

MODELS = {
    "": "classifiers",
    "lm": "language models",
    "any": "classifiers and language models",
}
"""What a probe reads, by its mark in the list."""


@click.command(cls=AuditCommand, short_help="List the probes, or explain one.")
@click.argument("name", required=False)
def probes(name: str | None) -> None:
    """List the probes by family, or explain NAME: what it measures and what it cannot see."""
    from unaudit.evidence import PROBES
    from unaudit.plugins import load_plugins

    load_plugins()
    console = result_console()
    if name is not None and name not in PROBES.broken:
        _explain(console, name, PROBES.get(name))
        return
    if name is None:
        _list(console, [(registered, kind.card) for registered, kind in PROBES.items()])
    for broken, reason in PROBES.broken.items():
        if name in (None, broken):
            paragraph(console, "broken", f"{broken}: the plug-in failed to import ({reason})")


def _list(console: Console, cards: list[tuple[str, ProbeCard]]) -> None:
    from unaudit.evidence import FAMILIES

    column = max((len(name) for name, _ in cards), default=0) + 2
    for family in FAMILIES:
        own = [(name, card) for name, card in cards if card.family == family]
        if own:
            console.print(family, style="bold")
        for name, card in own:
            marks = f"{' *' if card.comparative else ''}{' +' if card.shadows else ''}"
            title = f"{one_line(card.title)}{marks}"
            line = f"  {one_line(name):<{column}}{title:<32}{card.access:<11}{task_of(card)}"
            console.print(line.rstrip())
    console.print("\n* compares with retrained models  + needs shadow models (--shadows N)")
    console.print("lm: reads language models; any: reads them and classifiers; else classifiers")
    console.print(f"{len(cards)} probes; explain one with: unaudit probes NAME")


def _explain(console: Console, name: str, kind: type[Probe]) -> None:
    card = kind.card
    console.print(one_line(f"{name}: {card.title}"), style="bold")
    needs: list[str] = sorted({"forget", *card.needs})
    needs += ["retrained models"] if card.comparative else []
    needs += [SHADOWS[card.shadows]] if card.shadows else []
    direction = (
        "unsigned: a high value says 'different from retrained', not in which direction"
        if card.unsigned
        else "higher = more remembered"
    )
    facts = [
        ("measures", card.measures),
        ("direction", direction),
        ("family", card.family),
        ("access", card.access),
        ("models", MODELS[task_of(card)]),
        ("needs", ", ".join(needs)),
        ("scenarios", ", ".join(sorted(card.scenarios))),
        ("source", card.source),
        ("cost", card.cost),
        *(("cannot see", spot) for spot in card.blind_spots),
        *(("parameter", text) for text in parameters_of(kind)),
    ]
    for label, text in facts:
        paragraph(console, label, text)
    console.print(f"\nSet parameters, or enabled = false, in unaudit.toml under {_section(name)}")


def task_of(card: ProbeCard) -> str:
    """``lm`` of a probe for language models alone, ``any`` of one for classifiers as well."""
    if "language-modeling" not in card.tasks:
        return ""
    return "any" if "classification" in card.tasks else "lm"


def _section(name: str) -> str:
    bare = name.replace("-", "").replace("_", "").isalnum()
    return f"[probes.{name}]" if bare else f'[probes."{name}"]'


def parameters_of(kind: type[Any]) -> list[str]:
    """``name = default`` for each field of a probe or an unlearner."""
    lines = []
    for field in dataclasses.fields(kind):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "required" if default is dataclasses.MISSING else f"{default!r}"
        lines.append(f"{field.name} = {shown}")
    return lines
