"""Random halves that are alike: of a group, and at every level above it, to within one element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unaudit.evidence import IntArray

BoolArray = npt.NDArray[np.bool_]


def half(levels: Sequence[IntArray], rng: np.random.Generator) -> BoolArray:
    """(n,) which elements are in a random half.

    Args:
        levels: each (n,), the group of each element, from fine to coarse: every group of one level
            lies within one of the next. A group's half is half of it, or half an element off.
        rng: decides.
    """
    partner = matched(levels, rng)
    coin = rng.random(len(partner)) < 0.5
    own = np.arange(len(partner))
    # of two partners the first one's coin decides for both
    return np.asarray(coin[np.minimum(own, partner)] ^ (own > partner))


def split(
    one: Sequence[IntArray], other: Sequence[IntArray], rng: np.random.Generator
) -> BoolArray:
    """(n,) a random half that is even in two ways of grouping at once.

    Whoever is matched within either way is not on its partner's side. Matches alternate along a
    chain, which is therefore a path or a cycle of even length, and two sides suffice: the argument
    by which an Euler tour halves every degree of a bipartite graph.

    Args:
        one, other: levels, see :func:`half`; at each, a group's half is half of it, or half an
            element off.
        rng: decides.
    """
    ways = [matched(levels, rng) for levels in (one, other)]
    n = len(ways[0])
    own = np.arange(n)
    # every element twice, on either side; a match joins one's left to the other's right
    ends = [
        (own[paired], partner[paired] + n) for partner in ways if (paired := partner != own).any()
    ]
    start, end = (
        (np.concatenate(part) for part in zip(*ends, strict=True)) if ends else (own[:0],) * 2
    )
    joined = coo_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(2 * n, 2 * n))
    _, chain = connected_components(joined, directed=False)
    left, right = chain[:n], chain[n:]
    coin = rng.random(2 * n) < 0.5
    return np.asarray((left < right) ^ coin[np.minimum(left, right)])


def matched(levels: Sequence[IntArray], rng: np.random.Generator) -> IntArray:
    """(n,) int64: the partner of each element, itself where it has none.

    Elements are matched at random within a group; the one who may be left over, with one left over
    in another group of the next level.

    Args:
        levels: at least one, see :func:`half`.
        rng: decides.
    """
    partner = np.arange(len(levels[0]), dtype=np.int64)
    alone = rng.permutation(len(partner))
    for groups in levels:
        alone = alone[np.argsort(groups[alone], kind="stable")]
        _, start, size = np.unique(groups[alone], return_index=True, return_counts=True)
        rank = np.arange(len(alone)) - np.repeat(start, size)
        last = rank == np.repeat(size, size) - 1
        first = np.flatnonzero((rank % 2 == 0) & ~last)
        partner[alone[first]], partner[alone[first + 1]] = alone[first + 1], alone[first]
        alone = alone[last & (rank % 2 == 0)]
    return partner
