"""Are the references what they claim to be? Models trained apart, and not from the original.

A retrained model that was made from the original, by finetuning it, remembers what the original
knew and moves the zero point of every index towards it. Near copies of one model have no spread and
make every interval too narrow. Both show in the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from unaudit.case import Candidate, Case
from unaudit.errors import UsageError
from unaudit.loading import LoadedModel

COPY = 1e-3
"""Relative distance of weights below which two retrained models count as copies."""
KINSHIP = 0.85
"""Mean distance of the retrained models to the original, relative to that among themselves, below
which they were trained from it. Models trained apart, also from one pretrained network, are as far
from the original as from each other (1); models finetuned from the original take independent steps
away from it, so that they are √2 as far from each other (0.71)."""


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
            continue
        among.append(distance)
        if distance < COPY * _norm(weights[one.label]):
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
    if known and sum(known) / len(known) < KINSHIP * sum(among) / len(among):
        return (
            "the retrained models are closer to the original than to each other: they seem to have "
            "been trained from it, so they are no evidence of what forgetting looks like",
        )
    return ()


def _weights(candidate: Candidate) -> Mapping[str, Tensor]:
    model = candidate.model
    assert isinstance(model, LoadedModel)
    return {name: value.detach().double() for name, value in model.module.named_parameters()}


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float | None:
    """Euclidean distance of all weights; None where names or shapes differ."""
    if {n: t.shape for n, t in one.items()} != {n: t.shape for n, t in other.items()}:
        return None
    squares = [torch.sum((one[name] - other[name]) ** 2) for name in one]
    return float(torch.stack(squares).sum().sqrt()) if squares else None


def _norm(weights: Mapping[str, Tensor]) -> float:
    return float(torch.stack([torch.sum(value**2) for value in weights.values()]).sum().sqrt())
