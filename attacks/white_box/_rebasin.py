"""Permutation alignment of two networks by weight matching (Git Re-Basin).

Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin: merging models modulo permutation symmetries",
§3.2: choose, for every group of hidden units that may be renamed together, the permutation that
brings the weights nearest, one group at a time by linear assignment, until nothing moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from torch import nn

from unaudit.evidence import FloatArray, IntArray
from unaudit.loading.networks import BasicBlock

_UNITWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Identity,
    nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
"""Layers that treat every channel alike and keep channels apart."""
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

MAX_SWEEPS = 100
"""Sweeps of coordinate descent; the objective never falls, so it ends long before."""
FIXED = -1
"""The group of inputs and classes, which have names of their own."""

Weights = Mapping[str, FloatArray]
Permutations = tuple[IntArray, ...]
"""For each group, position in the reference that each unit is matched with."""


class UnsupportedError(Exception):
    """An architecture whose symmetries are not known; says which layer."""


@dataclass(frozen=True)
class Axis:
    """An axis of a tensor whose entries are units of a group."""

    tensor: str
    axis: int
    group: int
    repeat: int = 1
    """Consecutive entries per unit: positions of a channel that were flattened."""


@dataclass
class Symmetries:
    """Which axes of which tensors are renamed together."""

    axes: list[Axis] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Units of each group."""

    def new_group(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def of(self, tensor: str) -> list[Axis]:
        return [axis for axis in self.axes if axis.tensor == tensor]


def find_symmetries(network: nn.Module) -> Symmetries:
    """Groups of hidden units of a plain sequence of layers and of the residual blocks of unaudit.

    Raises:
        UnsupportedError: another layer, or a sequence whose sizes do not fit together.
    """
    found = Symmetries()
    if type(network) is not nn.Sequential:
        raise UnsupportedError(f"a {type(network).__name__} is no plain sequence of layers")
    last = _walk(network, "", FIXED, found)
    # the output of the last layer are the classes: what was a group of its own is none
    if last == FIXED:
        raise UnsupportedError("it has no layers with weights")
    kept = [axis for axis in found.axes if axis.group != last]
    if last != len(found.sizes) - 1:
        raise UnsupportedError("its last layer is not linear")
    return Symmetries(kept, found.sizes[:-1])


def _walk(module: nn.Module, name: str, group: int, found: Symmetries) -> int:
    """Note the axes of ``module``, which is given units of ``group``; returns the group put out."""
    if type(module) is nn.Sequential:
        for key, child in module.named_children():
            group = _walk(child, f"{name}.{key}" if name else key, group, found)
        return group
    if type(module) is BasicBlock:
        return _residual(module, name, group, found)
    if type(module) in (nn.Linear, nn.Conv2d):
        return _weighted(module, name, group, found.new_group(len(_tensor(module))), found)
    if type(module) in _NORMS:
        return _normalized(module, name, group, found)
    if type(module) is nn.Flatten and module.start_dim == 1:
        return group
    if type(module) in _UNITWISE:
        return group
    raise UnsupportedError(f"nothing is known of a {type(module).__name__} layer")


def _residual(block: BasicBlock, name: str, group: int, found: Symmetries) -> int:
    hidden = found.new_group(len(block.conv1.weight))
    _weighted(block.conv1, f"{name}.conv1", group, hidden, found)
    _normalized(block.bn1, f"{name}.bn1", hidden, found)
    out = group
    if isinstance(block.shortcut, nn.Sequential):
        out = _walk(block.shortcut, f"{name}.shortcut", group, found)
    _weighted(block.conv2, f"{name}.conv2", hidden, out, found)
    _normalized(block.bn2, f"{name}.bn2", out, found)
    return out


def _weighted(module: nn.Module, name: str, given: int, out: int, found: Symmetries) -> int:
    weight = _tensor(module)
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        raise UnsupportedError("nothing is known of a grouped convolution")
    if given != FIXED:
        repeat, rest = divmod(weight.shape[1], found.sizes[given])
        if rest or (repeat > 1 and not isinstance(module, nn.Linear)):
            raise UnsupportedError(f"'{name}' does not fit the layer before it")
        found.axes.append(Axis(f"{name}.weight", 1, given, repeat))
    found.axes.append(Axis(f"{name}.weight", 0, out))
    if module.bias is not None:
        found.axes.append(Axis(f"{name}.bias", 0, out))
    return out


def _normalized(module: nn.Module, name: str, group: int, found: Symmetries) -> int:
    tensors = dict(module.state_dict())
    if group != FIXED:
        for key in ("weight", "bias", "running_mean", "running_var"):
            if key in tensors:
                if len(tensors[key]) != found.sizes[group]:
                    raise UnsupportedError(f"'{name}' does not fit the layer before it")
                found.axes.append(Axis(f"{name}.{key}", 0, group))
    return group


def _tensor(module: nn.Module) -> npt.NDArray[np.float32]:
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    return np.asarray(weight.detach().cpu().numpy())


def apply(symmetries: Symmetries, weights: Weights, permutations: Permutations) -> Weights:
    """The same network with its units renamed: unit i of a group becomes permutation[i]."""
    return {name: _apply(symmetries, name, value, permutations) for name, value in weights.items()}


def _apply(
    symmetries: Symmetries,
    name: str,
    value: FloatArray,
    permutations: Permutations,
    but: int | None = None,
) -> FloatArray:
    for axis in symmetries.of(name):
        if axis.group != but:
            value = value.take(_places(permutations[axis.group], axis.repeat), axis=axis.axis)
    return value


def _places(permutation: IntArray, repeat: int) -> IntArray:
    if repeat == 1:
        return permutation
    return (permutation[:, None] * repeat + np.arange(repeat)).ravel()


def align(
    symmetries: Symmetries,
    fixed: Weights,
    moved: Weights,
    restarts: int,
    rng: np.random.Generator,
) -> list[tuple[float, Permutations]]:
    """Squared distance and permutations of ``moved`` after each restart, in order.

    The first start goes from the input to the output and matches each group by those weights alone
    whose other ends are already matched; it finds a planted permutation. The others start at random
    permutations, and all take the groups in random order from then on.

    Args:
        symmetries: of both networks.
        fixed: parameters of the network that stays as it is.
        moved: parameters of the other.
        restarts: at least 1.
        rng: for starts and orders; draws the same number whatever the weights.
    """
    found = []
    for number in range(restarts):
        own = np.random.default_rng(rng.integers(1 << 63))
        start = (
            _forward(symmetries, fixed, moved)
            if number == 0
            else tuple(own.permutation(size) for size in symmetries.sizes)
        )
        permutations = _descend(symmetries, fixed, moved, start, own)
        found.append((_distance(symmetries, fixed, moved, permutations), permutations))
    return found


def _forward(symmetries: Symmetries, fixed: Weights, moved: Weights) -> Permutations:
    permutations = [np.arange(size) for size in symmetries.sizes]
    known: set[int] = set()
    for group in range(len(symmetries.sizes)):
        anchored = [
            axis
            for axis in symmetries.axes
            if axis.group == group
            and all(other.group in known | {group} for other in symmetries.of(axis.tensor))
            # what leads on to the next layers joins once they are matched
            and axis.tensor in fixed
        ]
        permutations[group] = _match(symmetries, fixed, moved, tuple(permutations), group, anchored)
        known.add(group)
    return tuple(permutations)


def _descend(
    symmetries: Symmetries,
    fixed: Weights,
    moved: Weights,
    start: Permutations,
    rng: np.random.Generator,
) -> Permutations:
    permutations = list(start)
    axes = [
        [axis for axis in symmetries.axes if axis.group == group and axis.tensor in fixed]
        for group in range(len(symmetries.sizes))
    ]
    for _ in range(MAX_SWEEPS):
        before = [permutation.copy() for permutation in permutations]
        for group in rng.permutation(len(permutations)):
            permutations[group] = _match(
                symmetries, fixed, moved, tuple(permutations), int(group), axes[group]
            )
        if all(map(np.array_equal, before, permutations)):
            break
    return tuple(permutations)


def _match(
    symmetries: Symmetries,
    fixed: Weights,
    moved: Weights,
    permutations: Permutations,
    group: int,
    axes: Sequence[Axis],
) -> IntArray:
    """The best permutation of one group, the others being as they are."""
    size = symmetries.sizes[group]
    likeness = np.zeros((size, size))
    for axis in axes:
        one = fixed[axis.tensor]
        other = _apply(symmetries, axis.tensor, moved[axis.tensor], permutations, but=group)
        rows = [np.moveaxis(value, axis.axis, 0).reshape(size, -1) for value in (one, other)]
        likeness += rows[0] @ rows[1].T
    current = permutations[group]
    _, best = linear_sum_assignment(likeness, maximize=True)
    each = np.arange(size)
    # a tie must not move anything, or the descent would not end
    gain = likeness[each, best].sum() - likeness[each, current].sum()
    improves = gain > 1e-12 * np.abs(likeness).sum()
    return np.asarray(best if improves else current, dtype=np.int64)


def _distance(
    symmetries: Symmetries, fixed: Weights, moved: Weights, permutations: Permutations
) -> float:
    renamed = apply(symmetries, moved, permutations)
    return float(sum(np.square(fixed[name] - renamed[name]).sum() for name in fixed))
