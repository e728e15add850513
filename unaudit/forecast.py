"""What an audit would do, found out without running any of its models, or training one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unaudit.access import (
    access_level,
    broken_plugins,
    choose_probes,
    splits_to_run,
    within_access,
)
from unaudit.case import Case, build_case
from unaudit.cost import Cost
from unaudit.engine.store import Store
from unaudit.evidence import Access, Family, ProbeCard, SplitName
from unaudit.explain import FAMILY_WORDS, missing_inputs
from unaudit.measuring import Missed
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.references import planned
from unaudit.rehearsal import unscored, will_run
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
    if shadows is not None:
        told = unscored(shadows.design, plan.shadows.queries, plan.shadows.unlearner)
        case = replace(case, shadows=told)
    probes, skipped = will_run(probes, case, plan.run.seed)
    cards = tuple(probe.card for probe in probes)
    with_references = case.original is not None and len(case.retrained) > 1
    with_shadows = any(card.shadows is not None for card in cards)
    sizes = {name: len(case.splits[name]) for name in splits_to_run(case)}
    models = len(case.candidates) + len(case.calibrators)
    attacks = any(card.name == "lira" for card in cards)
    level = assurance_level(access, with_references, with_shadows)
    required = required_families(access, with_references)
    return Preview(
        subject=case.subject.model.provenance.name,
        splits={name: len(split) for name, split in case.splits.items()},
        scenario=case.scenario,
        access=access,
        assurance_level=level,
        forward_passes=models * len(sizes),
        examples=models * sum(sizes.values()),
        cost=found.cost,
        power=shadows.power if shadows is not None and attacks else None,
        given_up=None if shadows is None else shadows.given_up,
        will_run=cards,
        will_not_run=(*skipped, *left_out, *out_of_reach, *broken_plugins()),
        required=required,
        missing=(
            *missing_inputs(case),
            *_blocked(required, cards),
            *_next_level(level, case, plan),
        ),
        warnings=case.warnings,
        tau=plan.policy.margin,
        alpha=plan.policy.alpha,
        accept_black_box=plan.policy.accept_black_box,
    )


def _blocked(required: Sequence[Family], cards: Sequence[ProbeCard]) -> tuple[str, ...]:
    """Families that must be like retrained for a pass, and of which no probe will run."""
    there = {card.family for card in cards}
    return tuple(
        f"a probe of the {FAMILY_WORDS[family]} family: no pass without one (see 'Will not run')"
        for family in required
        if family not in there
    )


def _next_level(level: int, case: Case, plan: AuditPlan) -> tuple[str, ...]:
    """What would lift the assurance level by one; of level 1, the missing inputs say it."""
    recorded = [candidate.label for candidate in case.candidates if candidate.recorded]
    if level == 2 and recorded:
        return (f"the weights of the {', '.join(recorded)}: recorded outputs show nothing inside",)
    if level == 2:
        return ("white-box access (--access white-box): nothing inside the models is looked at",)
    if level == 3 and not plan.shadows.count:
        recipe = "" if plan.recipe is not None else " and a [recipe] to train them by"
        return (f"shadow models (--shadows N{recipe}): with an attack by them, level 4",)
    if level == 3:
        return ("an attack with shadow models that can run here (see 'Will not run'): level 4",)
    return ()
