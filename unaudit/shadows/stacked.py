"""Shadow jobs of one small network, trained as stacks instead of one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from unaudit.engine.jobs import Job
from unaudit.engine.threads import threads_for
from unaudit.shadows.examples import Examples
from unaudit.shadows.job import WORK, answers, naming, network
from unaudit.shadows.queries import check_queries
from unaudit.training import DivergedError, Recipe
from unaudit.training.augment import AUGMENTATIONS
from unaudit.training.many import fit_many
from unaudit.training.model_job import base_of
from unaudit.training.together import worth_stacking

TOGETHER = 32
"""Models that are trained before the first of them answers. An interrupted run loses no more; and
a stack that fills the caches of two cores has no more members of the demo's size."""
OWN = ("number", "seed", "masks")
"""Inputs in which jobs of one stack may differ."""


def stackable(jobs: Sequence[Job]) -> bool:
    """Whether these are shadow jobs of one network on the CPU for which stacks are faster."""
    shared = [{k: v for k, v in job.inputs.items() if k not in OWN} for job in jobs]
    first = jobs[0]
    alike = (
        all(job.work == WORK and job.places == first.places for job in jobs)
        and all(inputs == shared[0] for inputs in shared)
        and first.inputs["device"] == "cpu"
    )
    if not alike:
        return False
    examples, recipe = Examples.opened(first.places), Recipe(**first.inputs["recipe"])
    return worth_stacking(
        lambda: network(first.inputs), examples.train, examples.train_labels, recipe
    )


def run_stacked(jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
    """(position, result) of every job.

    Members are trained together, and asked and made to unlearn one after the other. Results are
    those of the jobs run one by one, apart from rounding, which many epochs can amplify.

    Args:
        jobs: :func:`stackable`.

    Raises:
        DivergedError, InputError: see :func:`unaudit.shadows.job.make_shadow`.
    """
    first = jobs[0]
    examples = Examples.opened(first.places)
    check_queries(first.inputs["queries"], examples.train.shape[1:])
    recipe = Recipe(**first.inputs["recipe"])
    elements = recipe.batch * examples.train[0].numel()
    for start in range(0, len(jobs), TOGETHER):
        some = jobs[start : start + TOGETHER]
        members = [examples.members(job.inputs["number"]) for job in some]
        # one copy for all, of what any of them is trained on
        everything = torch.cat(members).unique()
        inputs, labels = examples.take(everything, torch.device("cpu"))
        rows = [torch.searchsorted(everything, own) for own in members]
        generators = [torch.Generator().manual_seed(job.inputs["seed"]) for job in some]
        try:
            bases, _ = fit_many(
                lambda: network(first.inputs),
                inputs,
                labels,
                rows,
                recipe,
                generators,
                augment=AUGMENTATIONS[first.inputs["augment"]],
                way="stacked",  # measured on such networks once and for all: no clock decides here
                base=base_of(first.inputs, first.places),
            )
        except DivergedError as error:
            raise DivergedError(f"shadow models: {error}") from None
        for at, (job, base) in enumerate(zip(some, bases, strict=True)):
            own = inputs[rows[at]], labels[rows[at]]
            with threads_for(elements), naming(job.inputs["number"]):
                result = answers(base, own, examples, job.inputs, job.places, generators[at])
            yield start + at, result
