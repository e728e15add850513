"""Relearn time and Anamnesis Index: pure functions of learning curves.

Relearn time RT is the number of training steps until the accuracy (or loss) on the forget set is
back at a target (Golatkar et al. 2020; Tarun et al. 2023). The Anamnesis Index AIN is the relearn
time of the subject over that of a retrained model (Chundawat et al. 2023): 1 is ideal, below 1 the
subject relearns faster than a model that never knew, far above 1 it was damaged (Streisand effect).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RelearnTime:
    """Steps until a target is reached."""

    steps: float
    """0 if the model starts at the target; the last step watched if it was never reached."""
    censored: bool
    """Whether the target was never reached: the true time is longer than ``steps``."""


@dataclass(frozen=True)
class AnamnesisIndex:
    """RT(subject) / RT(retrained), or the reason why there is none."""

    value: float | None
    relation: Literal["=", ">", "<"] | None
    """``>``: the subject never regained the target, so the index is above ``value``; ``<``: the
    retrained model never did."""
    reason: str | None = None


def relearn_time(
    steps: Sequence[int], curve: Sequence[float], target: float, *, rising: bool = True
) -> RelearnTime:
    """When a learning curve first reaches ``target``, interpolated linearly between its points.

    Args:
        steps: at which the curve was taken, ascending; at least one.
        curve: one value per step.
        target: value to be regained.
        rising: True for accuracy (at least the target), False for a loss (at most).

    Raises:
        ValueError: the curve is empty or has another length than ``steps``.
    """
    if not steps or len(steps) != len(curve):
        raise ValueError(f"a curve of {len(curve)} values at {len(steps)} steps")
    sign = 1.0 if rising else -1.0
    gap = [sign * (value - target) for value in curve]
    for at, over in enumerate(gap):
        if over < 0:
            continue
        if at == 0:
            return RelearnTime(float(steps[0]), censored=False)
        part = -gap[at - 1] / (over - gap[at - 1])
        begin, end = steps[at - 1], steps[at]
        return RelearnTime(begin + part * (end - begin), censored=False)
    return RelearnTime(float(steps[-1]), censored=True)


def anamnesis_index(subject: RelearnTime, retrained: RelearnTime) -> AnamnesisIndex:
    """AIN, with its guards: 0/0 and targets never regained have no value or bound one."""
    if subject.censored and retrained.censored:
        return AnamnesisIndex(None, None, "neither model regained the target within the steps run")
    if retrained.steps == 0:
        if subject.steps == 0 and not subject.censored:
            reason = "both models are at the target before any step: 0/0"
        else:
            reason = "the retrained model is at the target before any step"
        return AnamnesisIndex(None, None, reason)
    value = subject.steps / retrained.steps
    if subject.censored:
        return AnamnesisIndex(value, ">", "the subject never regained the target")
    if retrained.censored:
        return AnamnesisIndex(value, "<", "the retrained model never regained the target")
    return AnamnesisIndex(value, "=")
