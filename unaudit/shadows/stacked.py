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
from unaudit.training._dense import takes
from unaudit.training._stack import Problem
from unaudit.training._stacking import footprint
from unaudit.training.augment import AUGMENTATIONS
from unaudit.training.ensemble import CACHE, FEWEST
from unaudit.training.many import fit_many

TOGETHER = 32
"""Models that are trained before the first of them answers. An interrupted run loses no more; and
a stack that fills the caches of two cores has no more members of the demo's size."""
OWN = ("number", "seed", "masks")
"""Inputs in which jobs of one stack may differ."""


def stackable(jobs: Sequence[Job]) -> bool:
    """Whether these are shadow jobs of one fully connected network on the CPU, small enough for a
    stack to be faster than the loop.

    It is where some of its members fit into a core's caches: 2.4 times as fast for the demo's
    layers of 128 units, while layers of 512 gained a tenth and layers of 2048 lost a fifth.
    """
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
    if recipe.precision != "float32" or not takes(network(first.inputs), examples.train[:1]):
        return False
    batch = torch.arange(min(recipe.batch, len(examples.train)))
    problem = Problem(examples.train, examples.train_labels, recipe)
    size = footprint(lambda: network(first.inputs), problem, batch)
    return FEWEST * size.bytes <= CACHE


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
            )
        except DivergedError as error:
            raise DivergedError(f"shadow models: {error}") from None
        for at, (job, base) in enumerate(zip(some, bases, strict=True)):
            own = inputs[rows[at]], labels[rows[at]]
            with threads_for(elements), naming(job.inputs["number"]):
                result = answers(base, own, examples, job.inputs, job.places, generators[at])
            yield start + at, result
