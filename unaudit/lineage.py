"""Are the references what they claim to be? Models trained apart, and not from the original.

A retrained model that was made from the original, by finetuning it, remembers what the original
knew and moves the zero point of every index towards it. Near copies of one model have no spread and
make every interval too narrow. Both show in the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor

from unaudit.case import Candidate, Case
from unaudit.errors import UsageError
from unaudit.fidelity import MADE
from unaudit.loading import LoadedModel

COPY = 1e-3
"""Relative distance of weights below which two retrained models count as copies."""
KINSHIP = 0.85
"""Mean distance of the retrained models to the original, relative to that among themselves, below
which they were trained from it. Models trained apart, also from one pretrained network, are as far
from the original as from each other (1); models finetuned from the original take independent steps
away from it, so that they are √2 as far from each other (0.71)."""
NEAR = 0.5
"""Distance of the original from the weights that the references were trained from, relative to the
references' own, below which these weights hold what the original knew. Trained alike, both are as
far away (1)."""
_UNLIKE = (
    "retrained models and original have other layers than each other, so nobody can say whether "
    "they were trained apart"
)


def doubtful_references(case: Case) -> tuple[str, ...]:
    """Reasons to doubt the retrained models, each one line; any of them rules a pass out.

    Recorded outputs show no weights, so nothing can be said of them here.

    Raises:
        UsageError: two retrained models are copies of each other.
    """
    retrained = [candidate for candidate in case.retrained if not candidate.recorded]
    weights = {candidate.label: _weights(candidate) for candidate in retrained}
    among = []
    for one, other in itertools.combinations(retrained, 2):
        distance = _distance(weights[one.label], weights[other.label])
        if distance is None:
            return (_UNLIKE,)
        among.append(distance)
        # of what was made here the seeds are known to differ, however small the steps
        made = all(MADE in each.model.provenance.notes for each in (one, other))
        if not made and distance < COPY * _norm(weights[one.label]):
            raise UsageError(
                f"{one.label} ({one.model.provenance.name}) and {other.label} "
                f"({other.model.provenance.name}) have almost the same weights; "
                "retrained models need different seeds"
            )
    if case.original is None or case.original.recorded or not among:
        return ()
    original = _weights(case.original)
    away = [_distance(weights[candidate.label], original) for candidate in retrained]
    known = [distance for distance in away if distance is not None]
    if len(known) < len(away):
        return (_UNLIKE,)
    if fmean(known) < KINSHIP * fmean(among):
        return (
            "the retrained models are closer to the original than to each other: they seem to have "
            "been trained from it, so they are no evidence of what forgetting looks like",
        )
    if case.base is not None and _moved(original, case.base) < NEAR * fmean(
        _moved(weights[candidate.label], case.base) for candidate in retrained
    ):
        return (
            "the weights that references were trained from (recipe.base) are much closer to the "
            "original than to what became of them: they seem to come from it, so the references "
            "may remember the forget set",
        )
    return ()


def _weights(candidate: Candidate) -> Mapping[str, Tensor]:
    model = candidate.model
    assert isinstance(model, LoadedModel)
    # a weight that serves twice counts twice: whoever unties it has the same names
    named = model.module.named_parameters(remove_duplicate=False)
    return {name: value.detach().double() for name, value in named}


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float | None:
    """Euclidean distance of all weights; None where names or shapes differ."""
    if {n: t.shape for n, t in one.items()} != {n: t.shape for n, t in other.items()}:
        return None
    squares = [torch.sum((one[name] - other[name]) ** 2) for name in one]
    return float(torch.stack(squares).sum().sqrt()) if squares else None


def _moved(weights: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """Distance from the weights of ``base``, of those layers that it has."""
    shared = [name for name in weights if name in base and base[name].shape == weights[name].shape]
    squares = [torch.sum((weights[name] - base[name].double()) ** 2) for name in shared]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _norm(weights: Mapping[str, Tensor]) -> float:
    return float(torch.stack([torch.sum(value**2) for value in weights.values()]).sum().sqrt())
