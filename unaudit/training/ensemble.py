"""Many small models of one architecture, trained at once.

Retrained references share their examples, shadow models have subsets of their own. Either way a
member is no copy of the data but a tensor of rows, and every step gathers the batches of all
members of a stack together. On a CPU, stacks are small enough for its caches and each of the
caller's threads trains one at a time; on a GPU, a stack takes as many members as its memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn

from unaudit.engine.threads import threads_for
from unaudit.training._stack import Member, Problem, Stack, descend_together
from unaudit.training._stacking import Footprint, NotStackable, Stacking, examine, footprint, fresh
from unaudit.training.fit import Augment, DivergedError, fit
from unaudit.training.recipe import Recipe

CACHE = 8 << 20
"""Bytes that a stack on a CPU works on, about a core's share of the caches. More members gain
nothing there: what surrounds the products is already shared by enough of them."""
FEWEST = 4
"""Members of a stack that may exceed :data:`CACHE`; fewer share too little."""
MEMORY = 1 << 30
"""Bytes that all stacks on a CPU may work on; networks that are too large for it are trained one by
one."""
GPU_SHARE = 0.5
"""Of a GPU's free memory, for one stack."""


def fit_ensemble(
    build: Callable[[], nn.Module],
    inputs: Tensor,
    targets: Tensor,
    rows: Sequence[Tensor],
    recipe: Recipe,
    generators: Sequence[torch.Generator],
    *,
    augment: Augment | None = None,
    chunk: int | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> list[nn.Module]:
    """Train one network per element of ``rows``, as many at once as possible.

    Apart from rounding, the networks are those of a loop over ``initialize(build(), generator)``
    and :func:`unaudit.training.fit` on cross-entropy: each member's generator makes the same draws
    in the same order. Members are stacked with those of as many steps per epoch, or as many rows
    where batch normalization makes the size of a batch matter: draw shadow models' subsets of one
    size. What cannot be stacked is trained in that very loop, as are networks with dropout: in a
    stack, members would not have the masks that their generators decide. Fully connected networks
    of equally many rows came out the same to the last bit in stacks of any size; the libraries
    below do not promise it.

    Args:
        build: makes one network; its weights do not matter.
        inputs: (n, …) float32, on the device where the networks will be.
        targets: (n,) labels or (n, C) probabilities.
        rows: per member (k,) int64, the examples to train on.
        recipe: optimizer and schedule, of all members.
        generators: one for each member, on the CPU.
        augment: applied to each member's batches.
        chunk: most members in one stack; default: by memory.
        on_epoch: told the number of each epoch once for each member that finished it; called from
            one thread at a time, but not always the caller's.

    Returns:
        The networks, in eval mode and in the order of ``rows``.

    Raises:
        DivergedError: the loss of a member, which is named, became NaN or infinite.
        InputError: no way is known to initialize a layer.
        ValueError: ``rows`` and ``generators`` do not fit together.
    """
    problem = Problem(inputs, targets, recipe, augment)
    members = enroll(build, problem, rows, generators)
    if not members:
        return []
    size, stacking = judge(build, problem, members, chunk)
    listener = Listener(on_epoch)
    for group in groups(members, stacking, recipe):
        team = team_of(group, stacking, size, problem, chunk)
        if team is None:
            fit_in_turn(group, problem, size, listener)
        else:
            fit_stacked(team, problem, listener)
    return [member.module for member in members]


def enroll(
    build: Callable[[], nn.Module],
    problem: Problem,
    rows: Sequence[Tensor],
    generators: Sequence[torch.Generator],
    base: Mapping[str, Tensor] | None = None,
) -> list[Member]:
    """The members, with fresh weights, or those of ``base``.

    Raises:
        ValueError: not one generator and at least one row for each member.
    """
    count = len(rows)
    if len(generators) != count or len({id(generator) for generator in generators}) != count:
        raise ValueError(f"{count} members need as many generators, each its own")
    if any(own.ndim != 1 or len(own) == 0 for own in rows):
        raise ValueError("each member needs a vector of at least one row")
    device = problem.inputs.device
    return [
        Member(number, count, fresh(build, device, generator, base), own, generator)
        for number, (own, generator) in enumerate(zip(rows, generators, strict=True))
    ]


def judge(
    build: Callable[[], nn.Module],
    problem: Problem,
    members: Sequence[Member],
    chunk: int | None,
    *,
    stackable: bool = True,
) -> tuple[Footprint, Stacking | NotStackable]:
    """Find out what a member takes, and how members are stacked.

    Args:
        build, problem, members, chunk: of :func:`fit_ensemble`.
        stackable: whether they may be stacked.
    """
    longest = max(members, key=lambda member: len(member.rows))
    batch = longest.rows[: problem.recipe.batch]
    size = footprint(build, problem, batch)
    if not stackable:
        return size, NotStackable("asked for")
    if room(size, problem, chunk) < 1:
        return size, NotStackable("the network is too large")
    return size, examine(build, problem, batch, size)


def groups(
    members: Sequence[Member], stacking: Stacking | NotStackable, recipe: Recipe
) -> list[list[Member]]:
    """Members that fit into one stack, the largest group first; one group where none do."""

    def kind(member: Member) -> tuple[int, ...]:
        if isinstance(stacking, NotStackable):
            return ()
        return (len(member.rows),) if stacking.mixes else member.rhythm(recipe.batch)

    found = [list(group) for _, group in groupby(sorted(members, key=kind), kind)]
    return sorted(found, key=len, reverse=True)


@dataclass(frozen=True, eq=False)
class Team:
    """How a group of members is trained."""

    stacks: Sequence[Sequence[Member]]
    make: Callable[[Sequence[nn.Module]], Stack]
    workers: int
    """Threads, each with a stack at a time."""
    elements: int
    """Of the largest tensor of a member's step."""


def team_of(
    group: Sequence[Member],
    stacking: Stacking | NotStackable,
    size: Footprint,
    problem: Problem,
    chunk: int | None,
) -> Team | None:
    """Cut a group into stacks of nearly one size; None: it is to be trained one by one."""
    most = room(size, problem, chunk)
    if isinstance(stacking, NotStackable) or min(most, len(group)) < stacking.smallest:
        return None
    workers = _workers(problem.inputs.device)
    needed = -(-len(group) // most)
    # as many for each worker, unless that leaves too few members in a stack
    count = min(-(-needed // workers) * workers, max(needed, len(group) // stacking.smallest))
    ends = [len(group) * number // count for number in range(count + 1)]
    parts = [group[start:end] for start, end in pairwise(ends)]
    return Team(parts, stacking.make, min(workers, count), size.elements)


def room(size: Footprint, problem: Problem, chunk: int | None) -> int:
    """The most members of a stack; ``chunk``: if the caller has decided it."""
    device = problem.inputs.device
    if chunk is not None:
        return chunk
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(GPU_SHARE * free) // size.bytes
    fitting = MEMORY // _workers(device) // size.bytes
    return min(max(CACHE // size.bytes, FEWEST), fitting)


def _workers(device: torch.device) -> int:
    """Threads that can each train a stack."""
    return torch.get_num_threads() if device.type == "cpu" else 1


class Listener:
    """Passes epochs on, one at a time."""

    def __init__(self, on_epoch: Callable[[int], None]) -> None:
        self._on_epoch, self._lock = on_epoch, threading.Lock()

    def __call__(self, epoch: int) -> None:
        with self._lock:
            self._on_epoch(epoch)


def fit_stacked(team: Team, problem: Problem, on_epoch: Callable[[int], None]) -> None:
    """Train the members of a team in place, their networks in eval mode afterwards.

    Raises:
        DivergedError: of the first stack in which a member diverged.
    """
    given_up = threading.Event()

    def train(members: Sequence[Member]) -> None:
        modules = [member.module.train() for member in members]
        stack = team.make(modules)
        try:
            descend_together(stack, members, problem, on_epoch=on_epoch, stopped=given_up.is_set)
        except DivergedError:
            raise  # stacks before this one go on: theirs would be the first to diverge
        except BaseException:
            given_up.set()
            raise
        stack.unstack(modules)
        for module in modules:
            module.eval()

    if team.workers == 1:
        for members in team.stacks:
            with threads_for(team.elements * len(members)):
                train(members)
        return
    # threads that share no tensor do not wait for each other, so a step is worth one of them
    with threads_for(0), ThreadPoolExecutor(team.workers) as pool:
        tasks = [pool.submit(train, members) for members in team.stacks]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            given_up.set()
            raise


def fit_in_turn(
    members: Sequence[Member],
    problem: Problem,
    size: Footprint,
    on_epoch: Callable[[int], None],
) -> None:
    """Train members in place, one after the other.

    Raises:
        DivergedError: the loss of a member became NaN or infinite.
    """
    with threads_for(size.elements):
        for member in members:
            _fit_alone(member, problem, on_epoch)


def _fit_alone(member: Member, problem: Problem, on_epoch: Callable[[int], None]) -> None:
    try:
        fit(
            member.module,
            problem.inputs,
            problem.targets,
            problem.recipe,
            member.generator,
            rows=member.rows,
            augment=problem.augment,
            on_epoch=on_epoch,
        )
    except DivergedError as error:
        raise DivergedError(f"{member}: {error}") from None
