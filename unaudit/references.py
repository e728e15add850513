"""Models of known truth, made from the user's recipe: originals, retrained models, calibrators,
and shadow models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from unaudit.case import Candidate, Case
from unaudit.engine.store import Store
from unaudit.errors import UsageError
from unaudit.loading import LoadedModel
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.shadows.make import make_shadows
from unaudit.training.model_job import TRAIN
from unaudit.training.together import RETRAIN
from unaudit.unlearners import load_unlearners
from unaudit.workshop import Workshop, can_work

FAKE = "head-distillation"
PROFILES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "smoke": (3, ("finetune", FAKE)),
    "standard": (5, ("finetune", "neggrad-plus", "bad-teacher", "salun", FAKE)),
    "full": (10, ()),
}
"""Retrained models and calibrators; none named: every registered unlearner."""


@dataclass(frozen=True)
class Wanted:
    """Which models of known truth a plan asks for."""

    retrained: tuple[str, ...]
    """Labels."""
    calibrators: tuple[str, ...]
    """Names of unlearners that can work on this case."""


def complete(case: Case, plan: AuditPlan, store: Store, progress: Progress = SILENT) -> Case:
    """The case with the references that it lacks, calibrators and shadow models, made or recalled.

    Without a recipe nothing is trained and the case stays as it is.

    Raises:
        UsageError: an unlearner is not known, or shadow models are asked for without a recipe.
        InputError: there is no data to train on, or a method cannot work on this model.
        DivergedError: training left the finite numbers.
    """
    if plan.recipe is None:
        if plan.shadows.count:
            raise UsageError(
                "shadow models are trained by a recipe; add a [recipe] section to unaudit.toml (an "
                "empty one is filled in) or give --recipe FILE"
            )
        return case
    workshop, wanted = Workshop(case, plan, store), wanted_by(plan, case)
    original = case.original
    if original is None:
        jobs = {"original": workshop.job(TRAIN, "original")}
        made = workshop.make(jobs, progress, "training an original")
        original = workshop.candidate("original", "original", made["original"])
    retrained = case.retrained
    if not retrained:
        jobs = {label: workshop.job(RETRAIN, label) for label in wanted.retrained}
        made = workshop.make(jobs, progress, "training references")
        retrained = tuple(workshop.candidate("retrained", x, w) for x, w in made.items())
    calibrators: tuple[Candidate, ...] = ()
    if isinstance(original.model, LoadedModel):
        jobs = {name: workshop.job(name, name, original.model) for name in wanted.calibrators}
        made = workshop.make(jobs, progress, "making calibrators", original.model.module)
        calibrators = tuple(workshop.candidate("calibrator", x, w) for x, w in made.items())
    shadows = None
    if plan.shadows.count:
        shadows = make_shadows(case, plan.shadows, workshop, progress)
    return replace(
        case, original=original, retrained=retrained, calibrators=calibrators, shadows=shadows
    )


def planned(case: Case, plan: AuditPlan) -> tuple[Case, int]:
    """The case as it will be once everything is made, with the subject standing in for what is not
    there yet, and how many models that takes; nothing is trained."""
    if plan.recipe is None or not isinstance(case.subject.model, LoadedModel):
        return case, 0
    model, wanted = case.subject.model, wanted_by(plan, case)
    original = case.original or Candidate("original", "original", model)
    retrained = case.retrained or tuple(Candidate("retrained", x, model) for x in wanted.retrained)
    unlearned = isinstance(original.model, LoadedModel)
    calibrators = tuple(Candidate("calibrator", x, model) for x in wanted.calibrators if unlearned)
    whole = replace(case, original=original, retrained=retrained, calibrators=calibrators)
    new = (case.original is None) + len(calibrators) + (0 if case.retrained else len(retrained))
    return whole, new


def wanted_by(plan: AuditPlan, case: Case) -> Wanted:
    """Which models a plan asks for, its profile filled in.

    Raises:
        UsageError: an unlearner is not known.
    """
    known, section = load_unlearners(), plan.calibration
    count, names = PROFILES[section.profile]
    named = section.unlearners
    if named is None:
        named = names or tuple(known)
    return Wanted(
        tuple(f"retrained {number}" for number in range(1, (section.retrained or count) + 1)),
        tuple(name for name in named if can_work(known.get(name).card, case)),
    )
