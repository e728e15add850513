"""Options that fill the plan: how a command groups them, and what a line with them says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

HEADINGS = MODELS, DATA, POLICY, RUN = "Models", "Data and request", "Policy", "Run"


class PlanOption(click.Option):
    """An option that sets one key of the plan."""

    def __init__(
        self,
        *declarations: str,
        key: str,
        heading: str,
        repeats: bool = True,
        holds_path: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(declarations, **settings)
        self.key = key
        """Dotted, as in ``unaudit.toml``."""
        self.heading = heading
        self.repeats = repeats
        """Whether the command that repeats an audit needs it."""
        self.holds_path = holds_path


class PlainOption(click.Option):
    """An option of the run that is no part of the plan."""

    heading = RUN


class AuditCommand(click.Command):
    """A command whose help groups its options by what they are about."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        grouped: dict[str, list[tuple[str, str]]] = {name: [] for name in HEADINGS}
        for option in self.get_params(ctx):
            # arguments are explained in the text above
            entry = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if entry is not None:
                grouped[getattr(option, "heading", RUN)].append(entry)
        filled = {heading: entries for heading, entries in grouped.items() if entries}
        for heading, entries in filled.items():
            with formatter.section(heading if len(filled) > 1 else "Options"):
                formatter.write_dl(entries, col_max=28)


def given(ctx: click.Context) -> list[tuple[PlanOption, Any]]:
    """The plan's options that stand on the line, with their values."""
    found = []
    for option in ctx.command.params:
        value = ctx.params.get(option.name or "")
        # a 0 on the line is a value; an absent switch is False
        absent = value is None or value is False or value == ()
        if isinstance(option, PlanOption) and not absent:
            found.append((option, value))
    return found


def overrides(ctx: click.Context) -> dict[str, dict[str, Any]]:
    """What the line says, nested as in ``unaudit.toml``."""
    values: dict[str, dict[str, Any]] = {}
    if ctx.params.get("model"):
        values["model"] = {"path": ctx.params["model"]}
    for option, value in given(ctx):
        section, _, key = option.key.partition(".")
        values.setdefault(section, {})[key] = value
    policy: Mapping[str, Any] = values.get("policy", {})
    # one of the two on the line stands above either in the file
    if "tau" in policy and "preset" not in policy:
        values["policy"]["preset"] = None
    elif "preset" in policy and "tau" not in policy:
        values["policy"]["tau"] = None
    return values
