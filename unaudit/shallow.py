"""Is the subject merely the original with another last layer?

Many unlearners leave the encoder where it is and change what the head makes of it (IDI §3.2). That
needs no statistics to see: weights or activations are compared with the original's directly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from unaudit.white_box import WhiteBox

Depth: TypeAlias = Literal[
    "identical weights", "encoder weights identical", "encoder activations identical", "none"
]

TOLERANCE = 1e-2
"""Largest relative difference of features that still counts as identical: weights stored in half
precision differ by less, models trained apart by more than ten times that."""
EXAMPLES = 2048
"""Forget examples compared; more would change nothing."""

Tensors: TypeAlias = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class LayerDistance:
    """How far the weights of one layer are from the original's."""

    layer: str
    """Module name."""
    distance: float
    """Euclidean, over the layer's own parameters."""
    relative: float | None
    """The same over the norm of the original's; None if that is 0."""


@dataclass(frozen=True)
class ShallowChange:
    """What of the original is left as it was."""

    kind: Depth
    """The strongest statement that holds; ``none`` is no proof of depth: an encoder whose units
    were renamed or rescaled is another encoder to this comparison."""
    identical_share: float | None
    """Part of the weights (single numbers) that equal the original's bit for bit; None if the two
    have weights of different names or shapes."""
    activation_difference: float | None
    """Largest difference of features over forget examples, relative to the typical spread of the
    original's features; None if they have different sizes."""
    head_differs: bool
    layers: tuple[LayerDistance, ...]
    """In the order of the network; empty if the two cannot be compared layer by layer."""


def shallow_change(
    subject: WhiteBox, original: WhiteBox, *, tolerance: float = TOLERANCE
) -> ShallowChange:
    """Compare the subject with the original.

    Weights are all parameters and buffers, running statistics included. Approximate unlearners
    start from the original and so share its basis: no alignment is needed.

    Args:
        subject, original: views of the same case.
        tolerance: largest ``activation_difference`` of identical activations.

    Raises:
        InputError: no head can be found in one of them.
    """
    own, other = _tensors(subject), _tensors(original)
    head_differs = not _same_head(subject, original)
    difference = _activation_difference(subject, original)
    near = difference is not None and difference <= tolerance
    kind: Depth = "encoder activations identical" if near else "none"
    share: float | None = None
    layers: tuple[LayerDistance, ...] = ()
    if _comparable(own, other):
        equal = {name: own[name] == other[name] for name in own}
        share = sum(int(same.sum()) for same in equal.values()) / max(
            1, sum(same.size for same in equal.values())
        )
        head = f"{subject.head.name}."
        encoder_equal = subject.head.name == original.head.name and all(
            same.all() for name, same in equal.items() if not name.startswith(head)
        )
        if encoder_equal:
            all_equal = all(same.all() for same in equal.values())
            kind = "identical weights" if all_equal else "encoder weights identical"
        layers = weight_distances(subject, original)
    return ShallowChange(kind, share, difference, head_differs, layers)


def weight_distances(subject: WhiteBox, original: WhiteBox) -> tuple[LayerDistance, ...]:
    """Euclidean distance to the original, layer by layer in the order of the network.

    Only parameters count, not running statistics. Empty if names or shapes differ.
    """
    own, other = ({**_tensors(view, buffers=False)} for view in (subject, original))
    if not _comparable(own, other):
        return ()
    squares: dict[str, tuple[float, float]] = {}
    for name in own:
        one, two = own[name].astype(np.float64), other[name].astype(np.float64)
        layer = name.rpartition(".")[0]
        apart, norm = squares.get(layer, (0.0, 0.0))
        squares[layer] = (
            apart + float(np.square(one - two).sum()),
            norm + float(np.square(two).sum()),
        )
    return tuple(
        LayerDistance(layer, math.sqrt(apart), math.sqrt(apart / norm) if norm > 0 else None)
        for layer, (apart, norm) in squares.items()
    )


def _tensors(view: WhiteBox, *, buffers: bool = True) -> Tensors:
    network = view.private_copy()
    named = (
        network.state_dict() if buffers else dict(network.named_parameters(remove_duplicate=False))
    )
    return {name: tensor.detach().cpu().float().numpy() for name, tensor in named.items()}


def _comparable(own: Tensors, other: Tensors) -> bool:
    shapes = [{name: value.shape for name, value in each.items()} for each in (own, other)]
    return shapes[0] == shapes[1]


def _same_head(subject: WhiteBox, original: WhiteBox) -> bool:
    own, other = subject.head, original.head
    return np.array_equal(own.weight, other.weight) and np.array_equal(own.bias, other.bias)


def _activation_difference(subject: WhiteBox, original: WhiteBox) -> float | None:
    rows = np.arange(min(EXAMPLES, len(subject.labels("forget"))), dtype=np.int64)
    own, other = (
        np.asarray(view.features("forget", rows), dtype=np.float64) for view in (subject, original)
    )
    if own.shape != other.shape:
        return None
    apart = float(np.linalg.norm(own - other, axis=1).max())
    if apart == 0.0:
        return 0.0
    # relative to how features lie around the origin: within one class they may hardly spread
    scale = float(np.sqrt(np.square(other).sum(axis=1).mean()))
    return apart / scale if scale > 0.0 else None
