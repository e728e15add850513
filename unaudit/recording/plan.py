"""The plan as the record shows it: what was fixed before the run, and how to repeat it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from unaudit.config import without_folders
from unaudit.measuring import obstacle
from unaudit.plan import AuditPlan
from unaudit.recording.digest import digest_of
from unaudit.report import record as schema

if TYPE_CHECKING:
    from unaudit.recording.run import Run

KEYWORD = "keyword"
"""What the forget set is called that is selected by a word, before a colon and the word."""


def describe_plan(run: Run) -> schema.Plan:
    settings, policy = run.plan, run.plan.policy
    agreed = schema.Policy(
        preset=policy.preset if policy.tau is None else "custom",
        tau=policy.margin,
        alpha=policy.alpha,
        access=run.access,
        accept_black_box=policy.accept_black_box,
        fail_on=policy.fail_on,
    )
    planned = tuple(
        schema.PlannedProbe(
            name=probe.card.name,
            title=probe.card.title,
            label=repr(probe),
            family=probe.card.family,
            access=probe.card.access,
            measures=probe.card.measures,
            source=probe.card.source,
            blind_spots=probe.card.blind_spots,
            unsigned=probe.card.unsigned,
        )
        for probe in run.probes
        # what cannot run on this case is among those that did not, and was never a test
        if obstacle(probe.card, run.case) is None
    )
    config = _without_folders(settings)
    fixed = {
        "policy": agreed,
        "probes": planned,
        "seed": settings.run.seed,
        "bootstrap": settings.run.bootstrap,
        "models": [candidate.model.provenance.sha256 for candidate in run.case.candidates],
        "data": run.case.sources_digest,
        "forget": run.case.ids_hmac,
        "canaries": {name: int(marks.sum()) for name, marks in run.case.marks.canaries.items()},
        "kind": settings.request.kind,
        "swapped": run.case.swapped,
        "scenario": run.case.scenario,
        "recipe": config.get("recipe"),
        "calibration": settings.calibration.model_dump(mode="json", exclude={"workers"}),
        "shadows": settings.shadows.model_dump(mode="json"),
    }
    return schema.Plan(
        sha256=digest_of(fixed),
        policy=agreed,
        probes=planned,
        seed=settings.run.seed,
        bootstrap=settings.run.bootstrap,
        config=config,
    )


def _without_folders(plan: AuditPlan) -> dict[str, Any]:
    """The configuration as data, every path reduced to its last part."""
    config = plan.model_dump(mode="json", exclude_none=True)
    config["run"] = {k: v for k, v in config["run"].items() if k not in ("store", "out", "formats")}
    for section, keys in {
        "model": ("path", "arch"),
        "data": ("train", "unseen", "validation"),
        "preprocess": ("tokenizer",),
        "request": ("forget",),
        "references": ("original",),
        "recipe": ("base",),
    }.items():
        for key in keys:
            if key in config.get(section, {}):
                config[section][key] = without_folders(config[section][key])
    config["references"]["retrained"] = [
        without_folders(s) for s in config["references"]["retrained"]
    ]
    if "forget" in config["request"]:
        config["request"]["forget"] = _without_keyword(config["request"]["forget"], plan)
    return config


def _without_keyword(forget: str, plan: AuditPlan) -> str:
    """How the forget set is named, without the word that stands in all of its texts unless texts
    may be shown: it can be somebody's name."""
    kind, _, _ = forget.partition(":")
    hidden = kind == KEYWORD and not plan.run.show_examples
    return f"{KEYWORD}:…" if hidden else forget


def public_command(command: str, plan: AuditPlan) -> str:
    """A command line, without the word that stands in all forget texts."""
    named = without_folders(plan.request.forget or "")
    shown = _without_keyword(named, plan)
    return command if shown == named else command.replace(shlex.quote(named), shlex.quote(shown))


def repeat_command(plan: AuditPlan) -> str:
    """The command line that repeats an audit, folders removed."""
    words = ["unaudit", "check", without_folders(plan.model.path or "")]
    options: list[tuple[str, str | None]] = [
        ("--forget", plan.request.forget),
        ("--original", plan.references.original),
        *(("--retrained", spec) for spec in plan.references.retrained),
        ("--train", plan.data.train),
        ("--unseen", plan.data.unseen),
        ("--shadows", str(plan.shadows.count) if plan.shadows.count else None),
        ("--unlearner", plan.shadows.unlearner),
    ]
    for flag, value in options:
        if value is not None:
            words += [flag, without_folders(value)]
    if plan.model.arch is not None:
        words += ["--arch", without_folders(plan.model.arch)]
    if plan.run.show_examples:
        words.append("--show-examples")
    words += ["--seed", str(plan.run.seed)]
    return shlex.join(words)
