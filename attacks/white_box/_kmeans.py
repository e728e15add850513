"""k-means from several starts at once, with the same result every time on the same machine."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unaudit.evidence import IntArray

MAX_ITERATIONS = 100


def cluster(features: Tensor, k: int, starts: int, rng: np.random.Generator) -> IntArray:
    """(starts, n) the cluster of each example, from ``starts`` independent starts.

    Greedy k-means++ (Arthur & Vassilvitskii 2007, §5: of 2 + ln k candidates the best), then
    Lloyd's iterations until no example moves, at most 100. A cluster that loses its last example
    keeps its center. The number of draws from ``rng`` depends on ``k`` and ``starts`` alone.

    Args:
        features: (n, d) float32.
        k: at most n.
    """
    x = features - features.mean(dim=0)
    squares = x.square().sum(dim=1)
    centers = _spread(x, squares, k, rng.random((k, starts, 2 + int(math.log(k)))))
    return np.stack([_settle(x, start).cpu().numpy() for start in centers])


def _settle(x: Tensor, centers: Tensor) -> Tensor:
    """(n,) clusters after Lloyd's iterations from (k, d) centers."""
    member = x.new_zeros((len(x), len(centers)))
    assigned: Tensor | None = None
    for _ in range(MAX_ITERATIONS):
        # |x − c|² without |x|²
        nearest = torch.addmm(centers.square().sum(dim=1), x, centers.T, alpha=-2.0).argmin(
            dim=1, keepdim=True
        )
        if assigned is not None:
            if torch.equal(nearest, assigned):
                break
            member.scatter_(1, assigned, 0.0)
        assigned = nearest
        member.scatter_(1, assigned, 1.0)
        sizes = member.sum(dim=0)[:, None]
        centers = torch.where(sizes > 0, member.T @ x / sizes.clamp(min=1.0), centers)
    assert assigned is not None
    return assigned[:, 0]


def _spread(x: Tensor, squares: Tensor, k: int, uniform: np.ndarray) -> Tensor:
    """(starts, k, d) examples drawn far from each other."""
    _, starts, trials = uniform.shape
    draws = torch.as_tensor(uniform, device=x.device)
    first = (draws[0, :, 0] * len(x)).long().clamp(max=len(x) - 1)
    chosen = [first]
    gaps = _gaps(x, squares, first)
    for number in range(1, k):
        running = gaps.double().cumsum(dim=1)
        # a total of 0 means that every example is a center already; any will do
        target = draws[number] * running[:, -1:]
        candidates = torch.searchsorted(running, target, right=True).clamp(max=len(x) - 1)
        new = _gaps(x, squares, candidates.reshape(-1)).view(starts, trials, -1)
        new = torch.minimum(new, gaps[:, None, :])
        best = new.sum(dim=2, dtype=torch.float64).argmin(dim=1)
        each = torch.arange(starts, device=x.device)
        chosen.append(candidates[each, best])
        gaps = new[each, best]
    return x[torch.stack(chosen, dim=1)]


def _gaps(x: Tensor, squares: Tensor, centers: Tensor) -> Tensor:
    """(c, n) squared distances of every example to some of them."""
    gaps = torch.addmm(squares[None, :], x[centers], x.T, alpha=-2.0) + squares[centers][:, None]
    return gaps.clamp_(min=0.0)
