"""What an audit would do, found out without running any of its models, or training one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unaudit.access import (
    access_level,
    broken_plugins,
    choose_probes,
    splits_to_run,
    within_access,
)
from unaudit.case import build_case
from unaudit.cost import Cost
from unaudit.engine.store import Store
from unaudit.evidence import Access, Family, ProbeCard, SplitName
from unaudit.explain import missing_inputs
from unaudit.measuring import Missed, obstacle
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.references import planned
from unaudit.shadows.power import Power
from unaudit.verdict import assurance_level, required_families


@dataclass(frozen=True)
class Preview:
    """What an audit would do, found out without running a model."""

    subject: str
    splits: dict[SplitName, int]
    scenario: str
    access: Access
    assurance_level: int
    """The highest that this plan can reach."""
    forward_passes: int
    """Models × splits; what the cache holds is not run again."""
    examples: int
    """Examples that all forward passes would process together."""
    cost: Cost | None
    """Of models that are made from the recipe; None: there is none."""
    power: Power | None
    """What LiRA could detect; None: it does not run."""
    given_up: str | None
    """What the limit on time costs, one sentence."""
    will_run: tuple[ProbeCard, ...]
    will_not_run: tuple[Missed, ...]
    required: tuple[Family, ...]
    """Families that must be like retrained for a pass."""
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    tau: float
    alpha: float
    accept_black_box: bool


def preview(plan: AuditPlan, *, progress: Progress = SILENT) -> Preview:
    """Say what :func:`audit` would do; reads the files, runs no model.

    Where models would be made from a recipe, networks of random weights take a few timed steps.

    Raises:
        UsageError, InputError, UnsafeModelError: as :func:`audit`.
    """
    probes, left_out = choose_probes(plan)
    store = Store(None if plan.run.store is None else Path(plan.run.store))
    found = planned(build_case(plan, store, progress), plan, store, progress)
    case, shadows = found.case, found.shadows
    access = access_level(plan, case)
    probes, out_of_reach = within_access(probes, access)
    obstacles = [(probe.card, obstacle(probe.card, case)) for probe in probes]
    skipped = [Missed(card, "skipped", reason) for card, reason in obstacles if reason]
    with_references = case.original is not None and len(case.retrained) > 1
    sizes = {name: len(case.splits[name]) for name in splits_to_run(case)}
    models = len(case.candidates) + len(case.calibrators)
    will_run = tuple(card for card, reason in obstacles if reason is None)
    attacks = any(card.name == "lira" for card in will_run)
    return Preview(
        subject=case.subject.model.provenance.name,
        splits={name: len(split) for name, split in case.splits.items()},
        scenario=case.scenario,
        access=access,
        assurance_level=assurance_level(access, with_references, plan.shadows.count > 0),
        forward_passes=models * len(sizes),
        examples=models * sum(sizes.values()),
        cost=found.cost,
        power=shadows.power if shadows is not None and attacks else None,
        given_up=None if shadows is None else shadows.given_up,
        will_run=will_run,
        will_not_run=(*skipped, *left_out, *out_of_reach, *broken_plugins()),
        required=required_families(access, with_references),
        missing=missing_inputs(case),
        warnings=case.warnings,
        tau=plan.policy.margin,
        alpha=plan.policy.alpha,
        accept_black_box=plan.policy.accept_black_box,
    )
