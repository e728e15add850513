"""The result on the terminal: complete without color, in 80 columns, plain text in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unaudit.report import fakes
from unaudit.report.estimate import estimate
from unaudit.report.forest import by_severity
from unaudit.report.language import language_text
from unaudit.report.record import Record
from unaudit.report.shadows import variants
from unaudit.report.skips import skips
from unaudit.report.text import interval, level, number, p_value, printable, sentence
from unaudit.report.wording import (
    FAMILY_TITLES,
    OUTCOME_MEANINGS,
    OUTCOME_TITLES,
    Reading,
    reading,
    shallow,
    unsigned_probes,
)
from unaudit.text import shorten

OUTCOME_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}
MARK_STYLES = {"up": "red", "down": "red", "square": "red", "hollow": "dim"}
MOST_LINES = 8
"""Longer lists end in a count; the record has them in full."""

_ASCII = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "…": "~",
        "·": "|",
        "τ": "tau",
        "α": "alpha",
        "ε": "epsilon",
        "±": "+/-",
        "×": "x",
        "≤": "<=",
        "≥": ">=",
        "∞": "inf",
        "’": "'",
        "●": "o",
        "▲": "^",
        "▼": "v",
        "■": "#",
        "◇": "?",
        "□": "-",
        "✗": "x",
    }
)


def print_summary(record: Record, console: Console) -> None:
    """Verdict, families, findings with failures first, and everything that did not run."""
    shown = printable(record)
    writer = _Writer(console)
    _print_verdict(shown, writer)
    _print_families(shown, writer)
    _print_findings(shown, writer)
    if check := fakes.check(shown):
        writer.listing("Head-distillation check", [check.line])
    if shown.fidelity and not shown.fidelity.ok:
        title = "Recipe" if shown.fidelity.made else "Retrained models"
        writer.listing(title, [shown.fidelity.reason])
    if texts := language_text(shown):
        writer.listing("Perplexity", [texts.line])
    if (foretold := estimate(shown)) and not shown.controls.retrained:
        writer.listing("Forget accuracy of a retrained model, estimated", [foretold.line])
    run = variants(shown)
    attacks = [f"{f.title}: {run[f.probe]}" for f in shown.findings if f.probe in run]
    writer.listing("Attacks with shadow models", attacks)
    writer.listing("Did not run", _did_not_run(shown))
    writer.listing("Warnings", [*shown.controls.warnings, *shown.environment.warnings])
    writer.listing("Missing", shown.verdict.missing)
    if shown.verdict.next_step:
        writer.listing("Next step", [shown.verdict.next_step])
    writer.line()
    writer.line("Passing is not proof of deletion; failing is evidence, not proof of storage.")


def _did_not_run(record: Record) -> list[str]:
    def who(titles: Sequence[str]) -> str:
        return shorten(titles[0], 40) if len(titles) == 1 else f"{len(titles)} probes"

    return [
        f"{who(group.titles)}: {group.kind}, {shorten(group.reason, 200)}"
        for group in skips(record)
    ]


class _Writer:
    """Prints text literally (no markup, no highlighting), in ASCII where the stream needs it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii = console.options.ascii_only

    def text(self, content: str, style: str = "") -> Text:
        if self._ascii:
            content = content.translate(_ASCII).encode("ascii", "replace").decode("ascii")
        return Text(content, style=style)

    def line(self, content: str = "", style: str = "") -> None:
        self._console.print(self.text(content, style))

    def parts(self, *parts: tuple[str, str]) -> None:
        self._console.print(Text.assemble(*(self.text(*part) for part in parts)))

    def listing(self, title: str, lines: Sequence[str]) -> None:
        if not lines:
            return
        self.line()
        self.line(title, "bold")
        shown = [sentence(shorten(line, 400)) for line in lines[:MOST_LINES]]
        if len(lines) > MOST_LINES:
            shown.append(f"and {len(lines) - MOST_LINES} more, listed in record.json")
        for line in shown:
            for piece in self.text(line).wrap(self._console, self._console.width - 2):
                piece.rstrip()
                self._console.print(Text("  ").append_text(piece))

    def table(self, *columns: tuple[str, bool]) -> Table:
        """``columns`` are titles and whether the column holds numbers; the first may wrap."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for position, (title, numeric) in enumerate(columns):
            table.add_column(
                self.text(title),
                justify="right" if numeric else "left",
                no_wrap=position > 0,
                overflow="fold" if position == 0 else "ellipsis",
            )
        return table

    def show(self, title: str, table: Table) -> None:
        self.line()
        self.line(title, "bold")
        self._console.print(table)

    def reading(self, read: Reading) -> Text:
        return self.text(f"{read.symbol} {read.word}", MARK_STYLES.get(read.mark, ""))


def _print_verdict(record: Record, writer: _Writer) -> None:
    verdict, policy = record.verdict, record.plan.policy
    writer.line(f"{shorten(record.subject.model.name, 50)} · report {record.report_id}", "dim")
    writer.parts(
        (OUTCOME_TITLES[verdict.outcome].upper(), OUTCOME_STYLES[verdict.outcome]),
        (f"  at τ = {number(policy.tau)}, {policy.access} access", ""),
    )
    writer.line(f"{OUTCOME_MEANINGS[verdict.outcome]}.")
    writer.line(sentence(shorten(verdict.headline, 400)), "bold")
    if change := shallow(record):
        writer.line(f"= {change}", "bold yellow")
    bound = (
        f"upper bound {number(verdict.upper_bound)} at {level(1 - policy.alpha)} confidence"
        if verdict.upper_bound is not None
        else "no upper bound"
    )
    writer.line(
        f"{bound} · assurance level {verdict.assurance_level} of 4 · exit code {verdict.exit_code}"
    )
    writer.listing("Why", [*verdict.reasons, *verdict.caps])


def _print_families(record: Record, writer: _Writer) -> None:
    if not record.families:
        return
    table = writer.table(
        ("Family", False),
        ("Reading", False),
        ("Residual index", True),
        ("p", True),
        ("Probes", True),
        ("", False),
    )
    for family in record.families:
        tried = sum(finding.family == family.family for finding in record.findings)
        name = FAMILY_TITLES[family.family]
        table.add_row(
            writer.text(name if family.required else f"{name} (not required)"),
            writer.reading(reading(family.outcome)),
            writer.text(interval(family.pooled)),
            writer.text(p_value(family.p_adjusted)),
            writer.text(f"{len(family.informative)} of {tried}"),
            writer.text("✗" if family.fails else "", "red"),
        )
    writer.show("Families, pooled", table)


def _print_findings(record: Record, writer: _Writer) -> None:
    if not record.findings:
        writer.listing("Findings", ["No probe gave a finding."])
        return
    unsigned = unsigned_probes(record)
    table = writer.table(
        ("Probe", False), ("Reading", False), ("Residual index", True), ("p", True), ("", False)
    )
    for finding in sorted(record.findings, key=by_severity):
        table.add_row(
            writer.text(shorten(finding.title, 28)),
            writer.reading(reading(finding.outcome, unsigned=finding.probe in unsigned)),
            writer.text(interval(finding.residual_index)),
            writer.text(p_value(finding.p_adjusted)),
            writer.text("✗" if finding.fails else "", "red"),
        )
    writer.show("Findings, failures first", table)
    if any(f.fails for f in record.findings) or any(f.fails for f in record.families):
        writer.line("✗: beyond the margin after Holm's correction", "dim")
