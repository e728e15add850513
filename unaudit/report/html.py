"""The report as one HTML file: no script, no request, readable in light, dark and print."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unaudit.evidence import FAMILIES, Family
from unaudit.report import fakes, groups, levels, shadows, text, wording
from unaudit.report.counting import counting
from unaudit.report.estimate import estimate
from unaudit.report.figures import draw
from unaudit.report.filters import FILTERS
from unaudit.report.forest import by_severity
from unaudit.report.language import SPLITS, accuracy, language_text
from unaudit.report.nouns import Nouns, nouns_of
from unaudit.report.record import Finding, PlannedProbe, Record
from unaudit.report.skips import skips

TEMPLATES = "report_templates"
FONTS = (
    ("Unaudit Sans", 400, "Inter-Regular.woff2"),
    ("Unaudit Sans", 600, "Inter-SemiBold.woff2"),
    ("Unaudit Mono", 400, "JetBrainsMono-Regular.woff2"),
)
"""Family names of our own, so that no installed font of another version takes their place."""


@dataclass(frozen=True)
class Section:
    """One numbered part of the report."""

    name: str
    title: str

    @property
    def template(self) -> str:
        return f"sections/{self.name.replace('-', '_')}.html.j2"


SECTIONS = (
    Section("summary", "In plain words"),
    Section("subject", "Subject"),
    Section("request", "Request"),
    Section("threat-model", "Threat model"),
    Section("tests", "Tests and thresholds"),
    Section("controls", "Controls and calibration"),
    Section("results", "Results"),
    Section("calibrators", "Beside reference unlearners"),
    Section("membership", "Membership in detail"),
    Section("language", "Perplexity and extraction"),
    Section("classes", "Results by class"),
    Section("inside", "Inside the model"),
    Section("utility", "Utility"),
    Section("limitations", "Limitations and attacks not run"),
    Section("deviations", "Skips, errors and warnings"),
    Section("mapping", "What this report supports"),
    Section("reproduction", "Reproduction"),
    Section("glossary", "Glossary"),
    Section("signatures", "Responsible persons"),
)


def sections(record: Record) -> tuple[Section, ...]:
    """Those that apply: one is about language models, and texts of these need not have classes."""
    idle = "classes" if record.language and not record.controls.per_class else None
    if record.language is None:
        idle = "language"
    say = nouns_of(record).say
    return tuple(Section(s.name, say(s.title)) for s in SECTIONS if s.name != idle)


def to_html(record: Record) -> str:
    """The whole page; the same record gives the same bytes."""
    shown = text.printable(record)
    return _environment().get_template("audit.html.j2").render(_context(shown)) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(TEMPLATES, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(
        reading=wording.reading,
        readings=wording.READINGS,
        levels=levels.LEVELS,
        tiers=wording.TIERS,
        statistics=wording.STATISTICS,
        detection=wording.DETECTION,
        silence=wording.SILENCE,
        family_titles=wording.FAMILY_TITLES,
        family_questions=wording.FAMILY_QUESTIONS,
        outcome_titles=wording.OUTCOME_TITLES,
        outcome_symbols=wording.OUTCOME_SYMBOLS,
        must_appear=wording.MUST_APPEAR,
        comparable=shadows.COMPARABLE,
        find_again=shadows.FIND_AGAIN,
        decides_nothing=groups.DECIDES_NOTHING,
        find_group=groups.FIND_AGAIN,
        style=_style(),
    )
    return environment


def _style() -> Markup:
    """The style sheet, with the fonts inside."""
    folder = files(TEMPLATES)
    faces = []
    for family, weight, name in FONTS:
        font = base64.b64encode((folder / "fonts" / name).read_bytes()).decode("ascii")
        faces.append(
            f'@font-face{{font-family:"{family}";font-weight:{weight};font-style:normal;'
            f'font-display:block;src:url("data:font/woff2;base64,{font}") format("woff2")}}'
        )
    sheet = (folder / "audit.css").read_text(encoding="utf-8")
    return Markup("\n".join((*faces, sheet)))


def _context(record: Record) -> dict[str, Any]:
    """What the templates need besides the record: counts, sentences and tables drawn from it."""
    policy = record.plan.policy
    controls = record.controls
    original = (controls.original,) if controls.original else ()
    shown, nouns = sections(record), nouns_of(record)
    return {
        "record": record,
        "nouns": nouns,
        "sections": shown,
        "number_of": {section.name: number for number, section in enumerate(shown, 1)},
        "figures": draw(record),
        "created": created(record),
        "scope": wording.scope(record),
        "level_reached": levels.level_reached(record),
        "scenario_meaning": wording.scenario_meaning(record),
        "found": wording.found(record),
        "shallow": wording.shallow(record),
        "check": fakes.check(record),
        "fidelity": fakes.fidelity(record.fidelity, accuracy(record), nouns.kinds)
        if record.fidelity
        else None,
        "estimate": estimate(record),
        "shadows": shadows.shadow_text(record),
        "variants": shadows.variants(record),
        "group_lists": groups.group_lists(record),
        "skips": skips(record),
        "confidence": text.level(1 - policy.alpha),
        "interval_level": text.level(1 - 2 * policy.alpha),
        "informative": sum(control.informative for control in record.calibration.probes),
        "counting": counting(record),
        "stages": _stages(record),
        "no_bound": wording.no_bound(record),
        "threat": wording.threat_model(record),
        "unplanned": wording.families_without_probe(record),
        "unsigned": wording.unsigned_probes(record),
        "planned": _planned(record),
        "titles": {probe.name: probe.title for probe in record.plan.probes},
        "findings": sorted(record.findings, key=by_severity),
        "references": (*original, *controls.retrained),
        "by_class": any(row.unseen_kept is not None for row in controls.accuracy),
        "utility": _utility(record, nouns),
        "accuracy": accuracy(record),
        "language": language_text(record),
        "texts_shown": shadows.texts_shown(record),
        "roc_rates": sorted(
            {point.fpr for roc in record.calibration.rocs for point in roc.points}, reverse=True
        ),
        "extras": [
            (
                finding.title,
                [(nouns.key(key), _brief(value)) for key, value in _details(finding, nouns)],
            )
            for finding in record.findings
            if finding.detail
        ],
        "config": [(key, _json(value)) for key, value in _flat(record.plan.config)],
    }


def created(record: Record) -> str | None:
    """ISO time for the document's metadata: ``SOURCE_DATE_EPOCH``, else the start of the audit."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        when = (
            datetime.fromtimestamp(int(epoch), timezone.utc)
            if epoch
            else datetime.fromisoformat(record.environment.started.replace("Z", "+00:00"))
        )
        if when.tzinfo is not None:
            when = when.astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _planned(record: Record) -> list[tuple[Family, list[PlannedProbe]]]:
    grouped = (
        (family, [probe for probe in record.plan.probes if probe.family == family])
        for family in FAMILIES
    )
    return [(family, probes) for family, probes in grouped if probes]


@dataclass(frozen=True)
class UtilityRow:
    """One accuracy of the subject beside those of its references."""

    name: str
    subject: float | None
    retrained: float | None
    """Mean over the retrained models."""
    original: float | None


def _utility(record: Record, nouns: Nouns) -> list[UtilityRow]:
    def mean(role: str, field: str) -> float | None:
        values = [getattr(row, field) for row in record.controls.accuracy if row.role == role]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    names: Mapping[str, str] = {
        "retain": "retain",
        "unseen": "unseen",
        "unseen_kept": f"unseen, kept {nouns.kinds}",
        "unseen_forgotten": f"unseen, forget {nouns.kinds}",
        "forget": "forget",
    }
    rows = [
        UtilityRow(name, mean("subject", field), mean("retrained", field), mean("original", field))
        for field, name in names.items()
    ]
    return [row for row in rows if row.subject is not None]


def _details(finding: Finding, nouns: Nouns) -> Iterator[tuple[str, Any]]:
    """Further values; where texts have no labels, nothing by class."""
    for key, value in _flat(finding.detail):
        if nouns.labeled or not nouns.texts or "class" not in key:
            yield key, value


def _stages(record: Record) -> list[tuple[str, float]]:
    """Wall times, those of the forward passes of a model as one."""
    found: dict[str, float] = {}
    for stage, seconds in record.environment.seconds.items():
        model, colon, split = stage.rpartition(": ")
        name = f"answers of {model}" if colon and split in SPLITS else stage
        found[name] = found.get(name, 0.0) + seconds
    return list(found.items())


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and what they hold."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _brief(value: Any) -> str:
    """A value as a table shows it; every digit of it is in the record."""
    if isinstance(value, float):
        return text.significant(value, 4)
    if isinstance(value, (list, tuple)) and all(isinstance(item, float) for item in value):
        return f"[{', '.join(text.significant(item, 3) for item in value)}]"
    return _json(value)
