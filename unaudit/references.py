"""Models of known truth, made from the user's recipe: originals, retrained models, calibrators,
and shadow models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from safetensors.torch import load

from unaudit.case import Candidate, Case
from unaudit.cost import Cost, Effort, Estimator, Lot, held_by, lot_of, unlearning
from unaudit.engine.store import Store
from unaudit.errors import UsageError
from unaudit.loading import LoadedModel
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.shadows import Shadows
from unaudit.shadows.make import Prepared, prepare, train_prepared
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


@dataclass(frozen=True, eq=False)
class Planned:
    """What a plan would make."""

    case: Case
    """As it will be once everything is made, with the subject and empty shadow models standing in
    for what is not there yet."""
    cost: Cost | None = None
    """None: nothing is made without a recipe."""
    shadows: Prepared | None = None
    """None: no shadow models."""


def complete(case: Case, plan: AuditPlan, store: Store, progress: Progress = SILENT) -> Case:
    """The case with the references that it lacks, calibrators and shadow models, made or recalled.

    Without a recipe nothing is trained and the case stays as it is.

    Raises:
        UsageError: an unlearner is not known, or shadow models are asked for without a recipe.
        InputError: there is no data to train on, or a method cannot work on this model.
        DivergedError: training left the finite numbers.
    """
    if not _with_recipe(plan):
        return case
    workshop, wanted = Workshop(case, plan, store), wanted_by(plan, case)
    prepared = None
    if plan.shadows.count:  # first, so that what cannot be is said before anything is trained
        estimator, alpha = Estimator(workshop), plan.policy.alpha
        prepared = prepare(case, plan.shadows, workshop, estimator, alpha, progress)
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
    shadows = None if prepared is None else train_prepared(prepared, case, workshop, progress)
    return replace(
        case,
        original=original,
        retrained=retrained,
        calibrators=calibrators,
        shadows=shadows,
        base=None if workshop.base is None else load(workshop.base.weights),
    )


def planned(case: Case, plan: AuditPlan, store: Store, progress: Progress = SILENT) -> Planned:
    """What :func:`complete` would do; nothing is trained.

    Raises:
        UsageError, InputError: as :func:`complete`.
    """
    if not _with_recipe(plan):
        return Planned(case)
    workshop, wanted = Workshop(case, plan, store), wanted_by(plan, case)
    estimator = Estimator(workshop)
    assert isinstance(case.subject.model, LoadedModel)  # else there is no workshop
    model = case.subject.model
    original = case.original or Candidate("original", "original", model)
    retrained = case.retrained or tuple(Candidate("retrained", x, model) for x in wanted.retrained)
    unlearned = isinstance(original.model, LoadedModel)
    calibrators = tuple(Candidate("calibrator", x, model) for x in wanted.calibrators if unlearned)
    lots = _lots(case, wanted, workshop)
    shadows, prepared = None, None
    if plan.shadows.count:
        section = plan.shadows
        prepared = prepare(case, section, workshop, estimator, plan.policy.alpha, progress)
        shadows = Shadows({}, section.queries, section.unlearner, prepared.design.train_size)
        lots.append(prepared.lot)
    whole = replace(
        case, original=original, retrained=retrained, calibrators=calibrators, shadows=shadows
    )
    with progress.stage("timing a few training steps"):
        return Planned(whole, estimator.cost(lots), prepared)


def _with_recipe(plan: AuditPlan) -> bool:
    """Whether models are made.

    Raises:
        UsageError: shadow models are asked for, without a recipe.
    """
    if plan.recipe is None and plan.shadows.count:
        raise UsageError(
            "shadow models are trained by a recipe; add a [recipe] section to unaudit.toml (an "
            "empty one is filled in) or give --recipe FILE"
        )
    return plan.recipe is not None


def _lots(case: Case, wanted: Wanted, workshop: Workshop) -> list[Lot]:
    """Originals, retrained models and calibrators."""
    store, recipe, trained = workshop.store, workshop.setting.recipe, len(workshop.train)
    lots: list[Lot] = []
    original = case.original
    if original is None:
        job = workshop.job(TRAIN, "original")
        lots.append(
            lot_of("original", held_by(store, [job]), [Effort(trained=recipe.epochs * trained)])
        )
        weights = store.find(job.key)
        if weights is not None:
            original = workshop.candidate("original", "original", weights)
    if not case.retrained:
        jobs = [workshop.job(RETRAIN, label) for label in wanted.retrained]
        each = Effort(trained=recipe.epochs * (trained - len(case.splits["forget"])))
        lots.append(lot_of("retrained model", held_by(store, jobs), [each] * len(jobs)))
    if original is None or isinstance(original.model, LoadedModel):
        # what is made of an original that is still to come cannot be there
        held = [False] * len(wanted.calibrators)
        if original is not None and isinstance(original.model, LoadedModel):
            named = [workshop.job(name, name, original.model) for name in wanted.calibrators]
            held = held_by(store, named)
        efforts = [
            Effort(unlearned=unlearning(name, {}, recipe, trained)) for name in wanted.calibrators
        ]
        lots.append(lot_of("calibrator", held, efforts))
    return lots


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
