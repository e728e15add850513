"""The shadow models that a plan asks for, made in the workshop of its case."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unaudit.case import Case
from unaudit.cost import Effort, Estimator, Lot, duration, held_by, unlearning
from unaudit.engine.jobs import Job
from unaudit.errors import UsageError
from unaudit.evidence import SplitName
from unaudit.plan import ShadowsSection
from unaudit.plan.training import LEAST_SHADOWS
from unaudit.progress import SILENT, Progress
from unaudit.shadows.design import GROUP, POOL, Design, make_design
from unaudit.shadows.power import Power, power_of
from unaudit.shadows.scores import Shadows
from unaudit.shadows.train import shadow_jobs, train_shadows
from unaudit.unlearners import check_kind, load_unlearners
from unaudit.workshop import Workshop

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Shadow models that are to be trained."""

    design: Design
    jobs: Sequence[Job]
    lot: Lot
    """What it takes."""
    power: Power | None
    """What could be detected; None: there are no unseen examples of the forget classes."""
    given_up: str | None = None
    """What fewer models than were asked for mean, one sentence."""


def train_prepared(
    prepared: Prepared, case: Case, workshop: Workshop, progress: Progress = SILENT
) -> Shadows:
    """Train those that the store does not hold.

    Args:
        prepared: what is to be trained, see :func:`prepare`.
        case, workshop: that it was prepared for.
        progress: told of every model.

    Raises:
        DivergedError: training left the finite numbers.
    """
    if prepared.given_up is not None:
        _log.warning(prepared.given_up)

    def places() -> dict[str, str]:
        laid_out = workshop.places()
        return laid_out | workshop.held("unseen") if "unseen" in case.splits else laid_out

    shadows = train_shadows(
        prepared.design,
        prepared.jobs,
        workshop.executor,
        workshop.store,
        progress,
        places=places,
    )
    more = () if prepared.given_up is None else (prepared.given_up,)
    return replace(shadows, notes=(*shadows.notes, *more))


def prepare(
    case: Case,
    section: ShadowsSection,
    workshop: Workshop,
    estimator: Estimator,
    alpha: float,
    progress: Progress = SILENT,
) -> Prepared:
    """What :func:`train_prepared` will train: as many models as the section asks for, or as many
    of the first of them as there is time for.

    What the store holds takes no time, so that another run goes on where this one ends.

    Args:
        case: whose examples are in question.
        section: how many, by which method they unlearn, and how long it may take.
        workshop: knows the recipe, lays out the data.
        estimator: of the same workshop.
        alpha: of the policy; for the note that says what fewer models mean.
        progress: told that steps are timed.

    Raises:
        UsageError: no such unlearner or query, an unlearner for other scenarios or models, or too
            little time.
        InputError: too few examples, or a query that these inputs cannot be put to.
    """
    whole = _prepared(case, section, workshop, section.count, alpha)
    if section.max_minutes is None or not whole.lot.missing:
        return whole
    lacking = np.cumsum(np.logical_not(held_by(workshop.store, whole.jobs))).tolist()
    each = _effort(whole.design, section, workshop)

    def seconds(count: int) -> float:
        missing = lacking[count - 1]
        return estimator.seconds(Lot("shadow model", missing, count - missing, each * missing))

    limit = 60.0 * section.max_minutes
    with progress.stage("timing a few training steps"):
        if seconds(section.count) <= limit:
            return whole
    step = GROUP if section.unlearner is not None else 2
    least = -(-LEAST_SHADOWS // step) * step
    fewer = range((section.count - 1) // step * step, least - 1, -step)
    count = next((number for number in fewer if seconds(number) <= limit), None)
    if count is None:
        raise UsageError(
            f"the {least} shadow models that it takes at least need about "
            f"{duration(seconds(least))} on this machine, --max-minutes is "
            f"{section.max_minutes:g}; allow more, or do without them (--shadows 0)"
        )
    part = _prepared(case, section, workshop, count, alpha)
    return replace(part, given_up=_given_up(whole, part, section.max_minutes))


def _prepared(
    case: Case, section: ShadowsSection, workshop: Workshop, count: int, alpha: float
) -> Prepared:
    if section.unlearner is not None:
        check_kind(load_unlearners().get(section.unlearner).card, case.task)
    splits = {name: case.splits[name] for name in POOL if name in case.splits}
    design = make_design(
        {name: split.labels for name, split in splits.items()},
        count,
        workshop.seed_of("shadow design"),
        scenario=case.scenario,
        unlearning=section.unlearner is not None,
    )
    unseen = len(splits["unseen"].dataset) if "unseen" in splits else 0
    jobs = shadow_jobs(
        design,
        {name: split.rows for name, split in splits.items()},
        workshop.store,
        shape=workshop.train.input_shape,
        sizes=(len(workshop.train), unseen),
        seed=workshop.seed,
        data=_digest(case, section),
        queries=section.queries,
        unlearner=section.unlearner,
        parameters=section.parameters,
        **workshop.world(),
    )
    each = _effort(design, section, workshop)
    stored = sum(held_by(workshop.store, jobs))
    lot = Lot("shadow model", count - stored, stored, each * (count - stored))
    return Prepared(design, jobs, lot, _power(design, case, alpha))


def _effort(design: Design, section: ShadowsSection, workshop: Workshop) -> Effort:
    """Of one model."""
    recipe = workshop.setting.recipe
    asked = design.member.shape[1] * len(section.queries)
    unlearned = 0
    if section.unlearner is not None:
        unlearned = unlearning(section.unlearner, section.parameters, recipe, design.train_size)
        asked *= 2
    return Effort(recipe.epochs * design.train_size, unlearned, asked)


def _power(design: Design, case: Case, alpha: float) -> Power | None:
    rows = design.rows
    classes = case.splits["forget"].labels[rows["forget"]]
    unseen = 0
    if "unseen" in rows:
        unseen = int(np.isin(case.splits["unseen"].labels[rows["unseen"]], classes).sum())
    return power_of(design.models, len(rows["forget"]), unseen, alpha)


def _given_up(whole: Prepared, part: Prepared, minutes: float) -> str:
    lost = ""
    if whole.power is not None and part.power is not None:
        before, after = f"{whole.power.shift:.2f}", f"{part.power.shift:.2f}"
        moves = f"rises from {before} to" if before != after else "stays at"
        lost = f"; the mean shift that LiRA can detect {moves} {after} standard deviations"
    return (
        f"{part.design.models} of {whole.design.models} shadow models fit into {minutes:g} min by "
        f"a timing on this machine, so that elsewhere, or in another run, it may be more or "
        f"fewer{lost}."
    )


def _digest(case: Case, section: ShadowsSection) -> str:
    """Of all data that shadow models are trained on or asked about."""
    read: list[SplitName] = [*POOL]
    if section.unlearner is not None:
        consumes = load_unlearners().get(section.unlearner).card.consumes
        read += ["validation"] if "validation" in consumes else []
    parts = [f"{name}={case.splits[name].digest}" for name in read if name in case.splits]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
