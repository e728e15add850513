"""Exact nearest neighbors in blocks: memory grows with the block, never with n²."""

from __future__ import annotations

import torch
from torch import Tensor

QUERIES_AT_ONCE = 1024
BANK_AT_ONCE = 1 << 15
"""Bank rows per block of distances: 128 MiB of float32."""
SPARE = 16
"""Neighbors screened beyond the k asked for, so that rounding cannot push one out."""
DOUBLES_AT_ONCE = 1 << 24
"""Distances held at once in double precision: 128 MiB."""
DIFFERENCES_AT_ONCE = 1 << 23
"""Differences held at once while candidates are put in order: 32 MiB of float32."""


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of ``bank`` for each query by Euclidean distance.

    Single precision finds candidates through |b|² − 2qb, which is one matrix product; their order
    is then settled by differences, which lose no digits. A query whose k-th neighbor lies too near
    the last candidate for single precision to be sure is searched again in double precision.

    Args:
        queries: (n, d) float32.
        bank: (m, d) float32, on the same device.
        k: at most m.

    Returns:
        (n, k) float64 distances, ascending, good to single precision, and (n, k) int64 positions in
        the bank. Which of several equally distant rows are among the k is left open.

    Raises:
        ValueError: k is not within 1 … m.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"cannot find {k} neighbors among {len(bank)}")
    # differences do not change, and what is far from the origin no longer cancels
    center = bank.mean(dim=0)
    own = bank - center
    norms = own.square().sum(dim=1)
    parts = [
        _nearest(block, bank, own, norms, center, k) for block in queries.split(QUERIES_AT_ONCE)
    ]
    if not parts:
        empty = queries.new_empty((0, k))
        return empty.double(), empty.long()
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _nearest(
    queries: Tensor, bank: Tensor, centered: Tensor, norms: Tensor, center: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    own = queries - center
    count = min(k + SPARE, len(bank))
    screened, candidates = _screen(own, centered, norms, count)
    distances, found = _settle(queries, bank, candidates, k)
    if count < len(bank):
        # |fl(x·y) − x·y| grows like √d u |x||y| for rounding errors of random sign
        # (Higham & Mary, SISC 41, 2019); 8 leaves room for three sums and a large deviation
        reach = own.norm(dim=1) + norms.max().sqrt()
        slack = 8 * torch.finfo(torch.float32).eps * own.shape[1] ** 0.5 * reach.square()
        beyond = screened.amax(dim=1) + own.square().sum(dim=1) - slack
        unsure = torch.nonzero(distances[:, -1].square() > beyond)[:, 0]
        if len(unsure):
            distances[unsure], found[unsure] = _in_double(queries[unsure], bank, center, k)
    return distances, found


def _screen(queries: Tensor, bank: Tensor, norms: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest values of |b|² − 2qb per query, in no order, and where they are."""
    best: Tensor | None = None
    where: Tensor | None = None
    for start in range(0, len(bank), BANK_AT_ONCE):
        stop = min(start + BANK_AT_ONCE, len(bank))
        values = torch.addmm(norms[start:stop], queries, bank[start:stop].T, alpha=-2.0)
        least, at = values.topk(min(count, stop - start), dim=1, largest=False, sorted=False)
        at += start
        if best is not None and where is not None:
            least, at = torch.cat([best, least], dim=1), torch.cat([where, at], dim=1)
            least, kept = least.topk(min(count, least.shape[1]), dim=1, largest=False, sorted=False)
            at = at.gather(1, kept)
        best, where = least, at
    assert best is not None
    assert where is not None
    return best, where


def _settle(queries: Tensor, bank: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of the candidates by differences."""
    candidates = candidates.sort(dim=1).values
    step = max(1, DIFFERENCES_AT_ONCE // (candidates.shape[1] * bank.shape[1]))
    distances = torch.cat(
        [
            torch.linalg.vector_norm(bank[at].sub_(block[:, None, :]), dim=2)
            for block, at in zip(queries.split(step), candidates.split(step), strict=True)
        ]
    ).double()
    # stable, so that candidates in order of position stay so among equals
    ordered, order = distances.sort(dim=1, stable=True)
    return ordered[:, :k], candidates.gather(1, order[:, :k])


def _in_double(queries: Tensor, bank: Tensor, center: Tensor, k: int) -> tuple[Tensor, Tensor]:
    step = max(1, DOUBLES_AT_ONCE // len(bank))
    count = min(k + SPARE, len(bank))
    found = []
    for block in queries.split(step):
        parts = []
        own = block.double() - center
        for start in range(0, len(bank), BANK_AT_ONCE):
            rows = bank[start : start + BANK_AT_ONCE].double() - center
            parts.append(torch.addmm(rows.square().sum(dim=1), own, rows.T, alpha=-2.0))
        found.append(torch.cat(parts, dim=1).topk(count, dim=1, largest=False).indices)
    return _settle(queries, bank, torch.cat(found), k)
