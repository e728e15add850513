"""Polls among nearest neighbors, with as many members as others entitled to vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from attacks.white_box._devices import in_double
from attacks.white_box._neighbors import nearest
from unaudit.evidence import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Poll:
    """Share of members among the nearest voters, one column per number of voters asked."""

    members: FloatArray
    """(n_members, len(counts))"""
    others: FloatArray
    """(n_others, len(counts))"""
    bystanders: FloatArray
    """(n_bystanders, len(counts)): of examples that never vote."""
    baseline: FloatArray
    """(len(counts),) mean of both sides' means: in a small class it may lie off 0.5."""
    pairs: int
    """Voters of each side."""


def poll(
    members: npt.NDArray[np.float32],
    others: npt.NDArray[np.float32],
    bystanders: npt.NDArray[np.float32],
    counts: Sequence[int],
    max_pairs: int,
    rng: np.random.Generator,
    device: torch.device,
) -> Poll:
    """Ask the nearest voters of every example whether they are members.

    Voters are as many members as others, drawn at random and paired. An example is asked about
    without its own pair, one that does not vote without a random pair. Leaving out the example
    alone would leave it one voter short of its own side: where nothing tells the sides apart,
    members would score below others.

    What is drawn depends on ``rng`` and on the three lengths alone.

    Args:
        members: (≥ 2, d).
        others: (≥ 2, d).
        bystanders: (n, d).
        counts: ascending numbers of voters to ask; where there are fewer, all are asked.
        max_pairs: largest number of voters of each side.
    """
    pairs = min(len(members), len(others), max_pairs)
    order = [rng.permutation(len(side))[:pairs] for side in (members, others)]
    absent = [rng.integers(pairs, size=len(side)) for side in (members, others, bystanders)]
    for chosen, of_side in zip(order, absent, strict=False):
        of_side[chosen] = np.arange(pairs)
    # mixed, so that a tie between voters cannot be decided by their side
    mixed = rng.permutation(2 * pairs)
    voters = np.concatenate([members[order[0]], others[order[1]]])[mixed]
    pair = np.tile(np.arange(pairs), 2)[mixed]
    is_member = np.repeat([1.0, 0.0], pairs)[mixed]
    shares = _shares(
        np.concatenate([members, others, bystanders]),
        np.concatenate(absent),
        (voters, pair, is_member),
        [min(count, 2 * (pairs - 1)) for count in counts],
        in_double(device),
    )
    first, second = len(members), len(members) + len(others)
    sides = shares[:first], shares[first:second]
    baseline = (sides[0].mean(axis=0) + sides[1].mean(axis=0)) / 2
    return Poll(*sides, shares[second:], baseline=baseline, pairs=pairs)


def _shares(
    queries: npt.NDArray[np.float32],
    absent: IntArray,
    voters: tuple[npt.NDArray[np.float32], IntArray, FloatArray],
    counts: Sequence[int],
    device: torch.device,
) -> FloatArray:
    """(n, len(counts)) mean vote of the nearest voters outside each query's absent pair."""
    where, pair, is_member = (torch.as_tensor(part, device=device) for part in voters)
    most = max(counts)
    # both of the absent pair may be among the nearest
    _, found = nearest(torch.as_tensor(queries, device=device), where, most + 2)
    left_out = pair[found] == torch.as_tensor(absent, device=device)[:, None]
    kept = found.gather(1, left_out.to(torch.int8).argsort(dim=1, stable=True)[:, :most])
    running = is_member[kept].cumsum(dim=1)
    shares = [running[:, count - 1] / count for count in counts]
    return torch.stack(shares, dim=1).cpu().numpy()
