"""Many models of one architecture, trained in whichever way is faster on this machine.

Stacks pay for small networks; larger ones, convolutions above all, gain little on a CPU or lose,
and where the border runs depends on the machine. So a few steps of both ways are timed before
anything is trained, unless that were a noticeable part of the work. For small fully connected
networks the ratio is only told: there the way does not depend on a clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.training._stack import Member, Problem
from unaudit.training._stacking import Footprint, NotStackable, Stacking, fresh
from unaudit.training.ensemble import (
    Listener,
    Team,
    enroll,
    fit_in_turn,
    fit_stacked,
    groups,
    judge,
    team_of,
)
from unaudit.training.fit import Augment
from unaudit.training.recipe import Recipe

Way: TypeAlias = Literal["stacked", "loop"]

GAIN = 1.1
"""Times that a stack must be as fast as the loop to be preferred; less may be noise."""
SHARE = 0.05
"""Of the loop's work that finding out may cost."""
ROUNDS = 7
"""Comparisons at most; their median counts."""
CLEAR = 1.5
"""Factor beyond which two comparisons that agree are enough."""
MOMENT = 0.02
"""Seconds of the loop that are enough to be timed."""

_ratios: dict[Hashable, float] = {}
"""What was measured in this process."""


@dataclass(frozen=True)
class Choice:
    """How models were trained: the largest group of them that could be stacked together."""

    way: Way
    ratio: float | None
    """Measured time of a step in the loop / in a stack, per member; None: not measured."""
    reason: str


def fit_many(
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
    way: Way | None = None,
    base: Mapping[str, Tensor] | None = None,
) -> tuple[list[nn.Module], Choice]:
    """Train one network per element of ``rows``.

    The ways give the same networks apart from rounding, which many epochs can amplify: where a
    record must be repeated bit for bit, pass the ``way`` that was taken.

    Args:
        build, inputs, targets, rows, recipe, generators, augment, chunk, on_epoch: see
            :func:`unaudit.training.ensemble.fit_ensemble`.
        way: ``loop``: one by one; ``stacked``: whatever can be; None: what is faster.
        base: weights that all of them start from, see :func:`unaudit.training.initialize`.

    Returns:
        The networks, in eval mode and in the order of ``rows``; how they were trained.

    Raises:
        DivergedError: the loss of a member, which is named, became NaN or infinite.
        InputError: no way is known to initialize a layer.
        ValueError: ``rows`` and ``generators`` do not fit together.
    """
    problem = Problem(inputs, targets, recipe, augment)
    members = enroll(build, problem, rows, generators, base)
    if not members:
        return [], Choice(way or "loop", None, "there is nothing to train")
    size, stacking = judge(build, problem, members, chunk, stackable=way != "loop")
    listener = Listener(on_epoch)
    choices = []
    for group in groups(members, stacking, recipe):
        team = team_of(group, stacking, size, problem, chunk)
        if team is None:
            few = "too few members have as many rows, or too few fit into one stack"
            reason = stacking.reason if isinstance(stacking, NotStackable) else few
            choice = Choice("loop", None, reason)
        elif way == "stacked":
            choice = Choice("stacked", None, "asked for")
        else:
            sure = isinstance(stacking, Stacking) and stacking.sure
            choice = _choose(_Trial(build, team, problem, size), sure=sure)
        if team is None or choice.way == "loop":
            fit_in_turn(group, problem, size, listener)
        else:
            fit_stacked(team, problem, listener)
        choices.append(choice)
    return [member.module for member in members], choices[0]


def forget_measurements() -> None:
    """Measure anew from now on."""
    _ratios.clear()


def _choose(trial: _Trial, *, sure: bool) -> Choice:
    """``sure``: the stack cannot be slower, and no noise may decide otherwise."""
    ratio = _ratios.get(trial.key)
    if ratio is None and (ratio := trial.ratio()) is not None:
        _ratios[trial.key] = ratio
    if sure:
        return Choice("stacked", ratio, "a network for which stacks are written out")
    if ratio is None:
        return Choice("loop", None, "too little work to find out what is faster")
    return Choice("stacked" if ratio > GAIN else "loop", ratio, "measured")


class _Trial:
    """Short runs of both ways, on networks and generators of their own."""

    def __init__(
        self, build: Callable[[], nn.Module], team: Team, problem: Problem, size: Footprint
    ) -> None:
        self._build, self._size = build, size
        # nothing is learned, so nothing diverges; an epoch has as many steps as are timed
        self._problem = replace(problem, recipe=replace(problem.recipe, epochs=1, lr=0.0))
        self._team = replace(team, stacks=team.stacks[: team.workers])
        self._first = team.stacks[0][0]
        self._per_epoch = len(self._first.sizes(problem.recipe.batch))
        self._all_steps = (
            sum(map(len, team.stacks)) * self._per_epoch * max(problem.recipe.epochs, 1)
        )
        """Of the loop, over all members."""

    @property
    def key(self) -> Hashable:
        """What the ratio depends on."""
        problem, module = self._problem, self._first.module
        recipe = problem.recipe
        weights = tuple((name, value.shape) for name, value in module.state_dict().items())
        return (
            *(type(module), repr(module), weights),
            *(problem.inputs.shape[1:], problem.inputs.dtype, problem.inputs.device),
            *(recipe.batch, recipe.kind, recipe.precision, problem.augment),
            *(self._per_epoch == 1, tuple(map(len, self._team.stacks)), self._team.workers),
            torch.get_num_threads(),
        )

    def ratio(self) -> float | None:
        """Time of a step in the loop / in a stack, per member; None: too costly to find out."""
        members = sum(map(len, self._team.stacks))
        self._loop(1)
        step = self._loop(1)
        steps = min(max(int(MOMENT / step), 1), self._per_epoch)
        while steps > 1 and not self._affordable(members * steps):
            steps //= 2
        if not self._affordable(members * steps):
            return None
        self._stacked(1)
        ratios: list[float] = []
        begin = time.perf_counter()
        while len(ratios) < ROUNDS:
            ratios.append(self._loop(steps) * members / self._stacked(steps))
            spent = time.perf_counter() - begin
            if _is_clear(ratios) or spent > SHARE * self._all_steps * step:
                break
        return statistics.median(ratios)

    def _affordable(self, steps: int) -> bool:
        """Whether a first comparison, warming up included, is a small part of the work."""
        return 2 * steps <= SHARE * self._all_steps

    def _loop(self, steps: int) -> float:
        """Seconds of one member's steps."""
        member = self._copy(self._first, steps)
        begin = time.perf_counter()
        fit_in_turn([member], self._problem, self._size, lambda epoch: None)
        return (time.perf_counter() - begin) / steps

    def _stacked(self, steps: int) -> float:
        stacks = [[self._copy(member, steps) for member in one] for one in self._team.stacks]
        begin = time.perf_counter()
        fit_stacked(replace(self._team, stacks=stacks), self._problem, lambda epoch: None)
        return (time.perf_counter() - begin) / steps

    def _copy(self, member: Member, steps: int) -> Member:
        """With weights and draws of its own, and rows for so many steps."""
        generator = torch.Generator().manual_seed(0)
        module = fresh(self._build, self._problem.inputs.device, generator)
        rows = member.rows[: steps * self._problem.recipe.batch]
        return replace(member, module=module, rows=rows, generator=generator)


def _is_clear(ratios: Sequence[float]) -> bool:
    return len(ratios) > 1 and (min(ratios) > CLEAR or max(ratios) < 1 / CLEAR)
