"""The shadow models that a plan asks for, made in the workshop of its case."""

from __future__ import annotations

import hashlib

from unaudit.case import Case
from unaudit.evidence import SplitName
from unaudit.plan import ShadowsSection
from unaudit.progress import SILENT, Progress
from unaudit.shadows.design import POOL, make_design
from unaudit.shadows.scores import Shadows
from unaudit.shadows.train import shadow_jobs, train_shadows
from unaudit.unlearners import load_unlearners
from unaudit.workshop import Workshop


def make_shadows(
    case: Case, section: ShadowsSection, workshop: Workshop, progress: Progress = SILENT
) -> Shadows:
    """Train what the store does not hold.

    Args:
        case: whose examples are in question.
        section: how many, and by which method they unlearn.
        workshop: knows the recipe, lays out the data.
        progress: told of every model.

    Raises:
        UsageError: no such unlearner or query, or an unlearner for other scenarios.
        InputError: too few examples, or a query that these inputs cannot be put to.
        DivergedError: training left the finite numbers.
    """
    splits = {name: case.splits[name] for name in POOL if name in case.splits}
    design = make_design(
        {name: split.labels for name, split in splits.items()},
        section.count,
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

    def places() -> dict[str, str]:
        laid_out = workshop.places()
        return laid_out | workshop.held("unseen") if unseen else laid_out

    return train_shadows(design, jobs, workshop.executor, workshop.store, progress, places=places)


def _digest(case: Case, section: ShadowsSection) -> str:
    """Of all data that shadow models are trained on or asked about."""
    read: list[SplitName] = [*POOL]
    if section.unlearner is not None:
        consumes = load_unlearners().get(section.unlearner).card.consumes
        read += ["validation"] if "validation" in consumes else []
    parts = [f"{name}={case.splits[name].digest}" for name in read if name in case.splits]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
