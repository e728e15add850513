"""Penultimate features of some examples in two dimensions, model beside model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from unaudit.case import Candidate, Case
from unaudit.evidence import FloatArray, IntArray, SplitName
from unaudit.report.record import ProjectedModel, Projection
from unaudit.white_box import WhiteBox

POINTS = 300
"""Examples drawn, forget, retain and unseen together."""
NEIGHBORS = 5
DECIMALS = 3
GROUPS: tuple[SplitName, ...] = ("forget", "retain", "unseen")


def project(
    case: Case, inside_of: Mapping[str, WhiteBox], rng: np.random.Generator
) -> Projection | None:
    """The original, the subject and the first retrained model on the same random examples.

    Each model has principal axes of its own: those of another network would say nothing, since the
    units of two networks have no names in common.
    """
    wanted = (case.original, case.subject, *case.retrained[:1])
    shown = [candidate for candidate in wanted if candidate and candidate.label in inside_of]
    rows = _choose({name: len(split) for name, split in case.splits.items()}, rng)
    sizes = {name: len(rows.get(name, ())) for name in GROUPS}
    if sum(sizes.values()) < 3 or sizes["forget"] < 2 or not shown:
        return None
    neighbors = min(NEIGHBORS, sum(sizes.values()) - 1)
    models: list[ProjectedModel] = []
    first: FloatArray | None = None
    for candidate in shown:
        view = inside_of[candidate.label]
        points, explained = plane(
            np.concatenate([view.features(name, chosen) for name, chosen in rows.items()])
        )
        if first is None:
            first = points
        models.append(
            _model(candidate, turned(points, first), explained, sizes["forget"], neighbors)
        )
    return Projection(**_counts(sizes), neighbors=neighbors, models=tuple(models))


def plane(features: npt.NDArray[np.floating[Any]]) -> tuple[FloatArray, tuple[float, float]]:
    """(n, 2) principal components with mean square 1 together, and each one's share of variance.

    Features that are the same for all examples lie in one point.
    """
    centered = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centered, full_matrices=False)
    points = np.zeros((len(features), 2))
    points[:, : min(2, len(spread))] = (left * spread)[:, :2]
    total = float(np.square(spread).sum())
    size = float(np.sqrt(np.square(points).sum(axis=1).mean()))
    if total <= 0.0 or size <= 0.0:
        return np.zeros_like(points), (0.0, 0.0)
    shares = np.square(points).sum(axis=0) / total
    return points / size, (min(1.0, float(shares[0])), min(1.0, float(shares[1])))


def turned(points: FloatArray, onto: FloatArray) -> FloatArray:
    """``points`` rotated and mirrored in the plane to lie as near ``onto`` as they can.

    Orthogonal Procrustes (Schönemann 1966): the direction and sign of principal axes are arbitrary.
    """
    left, _, right = np.linalg.svd(points.T @ onto)
    return np.asarray(points @ left @ right)


def nearness(points: FloatArray, n_forget: int, neighbors: int) -> float:
    """Share of the first ``n_forget`` points among the nearest neighbors of these points."""
    squares = np.square(points[:n_forget, None, :] - points[None, :, :]).sum(axis=2)
    squares[np.arange(n_forget), np.arange(n_forget)] = np.inf
    nearest = np.argsort(squares, axis=1, kind="stable")[:, :neighbors]
    return float((nearest < n_forget).mean())


def _model(
    candidate: Candidate,
    points: FloatArray,
    explained: tuple[float, float],
    n_forget: int,
    neighbors: int,
) -> ProjectedModel:
    rounded = np.round(points, DECIMALS) + 0.0  # no negative zeros
    return ProjectedModel(
        model=candidate.label,
        role=candidate.role,
        explained=(round(explained[0], 6), round(explained[1], 6)),
        x=tuple(rounded[:, 0].tolist()),
        y=tuple(rounded[:, 1].tolist()),
        near=nearness(rounded, n_forget, neighbors),
    )


def _choose(sizes: Mapping[SplitName, int], rng: np.random.Generator) -> dict[SplitName, IntArray]:
    """About as many examples of each group, in random order, so that no place tells an example."""
    present = [name for name in GROUPS if sizes.get(name, 0) > 0]
    each = POINTS // max(1, len(present))
    return {
        name: rng.permutation(sizes[name])[:each].astype(np.int64, copy=False) for name in present
    }


def _counts(sizes: Mapping[SplitName, int]) -> dict[str, int]:
    return {str(name): count for name, count in sizes.items()}
