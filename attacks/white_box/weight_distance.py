"""Weight distance to a retrained model after their units were balanced and matched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.black_box._parameters import require_whole
from attacks.black_box._selection import absent
from unaudit.evidence import ANY_TASK, PROBES, Evidence, FloatArray, ProbeCard, Scalar, Skipped

if TYPE_CHECKING:
    from torch import nn

    from attacks.white_box._canonical import Weights
    from unaudit.white_box import WhiteBox

CHECKED = 32
"""Real examples on which the renamed network must give the same logits."""
TOLERANCE = 1e-3
"""How far these may be off, relative to what distinguishes logits."""


@PROBES.register("weight-distance")
@dataclass(frozen=True)
class WeightDistance:
    """Euclidean distance between all weights of a model and of a retrained one, units matched.

    Hidden units have neither a scale nor a name. So both models are first written in the one way in
    which batch normalization is part of the layer before it and what leads into a unit has the norm
    of what leads out of it. Then the reference's units are matched to the model's by Git Re-Basin's
    weight matching, from several starts, and the nearest is taken. That neither changes an output
    is checked on real examples. The standard error is that of the minimum over the starts (its
    exact bootstrap).
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="weight-distance",
        title="Weight distance, aligned",
        family="representation",
        measures=(
            "Euclidean distance of all weights to a retrained model's after balancing and matching "
            "hidden units: about the distance between two retrained models = like retrained."
        ),
        source=(
            "Golatkar et al. 2020 and Wu et al. 2020 (distance to Retrain); Ainsworth et al. 2023 "
            "(Git Re-Basin, §3.2); Stock et al. 2019 (balanced units); IDI (2024), §2, on its "
            "unreliability"
        ),
        cost="128 examples passed forward; linear assignments, about 0.1 s for small networks",
        blind_spots=(
            "Two trainings from different seeds differ more than forgetting changes: it rarely "
            "tells anything (IDI §5) and is then reported as not informative.",
            "Unsigned: over-unlearning, another recipe and a larger head raise it too; an outlier "
            "is different, which is not to say that it remembers.",
            "Approximate unlearners share the original's basis, retrained models do not; the "
            "distance to the original tells how little was changed (shallow-change detector).",
            "Weight matching finds a local optimum. Renaming and rescaling of units are undone, "
            "other ways to write the same function (signs of tanh units, units that cancel each "
            "other, weights that no input reaches) count as distance.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    restarts: int = 5
    """Starts of the matching."""

    def __post_init__(self) -> None:
        require_whole(self, "restarts", 1)

    def __call__(self, view: WhiteBox, reference: WhiteBox, rng: np.random.Generator) -> Evidence:
        from attacks.white_box._canonical import canonical, compared
        from attacks.white_box._rebasin import align, apply
        from attacks.white_box._symmetries import UnsupportedError, find_symmetries

        if (skip := absent(self.card, view, reference)) is not None:
            return skip
        own, other = view.private_copy(), reference.private_copy()
        if _shapes(own) != _shapes(other):
            return Skipped("the model and the reference have weights of different names or shapes")
        try:
            symmetries = find_symmetries(other)
            if find_symmetries(own) != symmetries:
                raise UnsupportedError("the model and the reference have different layers")
        except UnsupportedError as reason:
            return Skipped(f"units cannot be matched in this architecture: {reason}")
        balanced, moved = (canonical(symmetries, state_of(network)) for network in (own, other))
        fixed, free = (compared(symmetries, state) for state in (balanced, moved))
        found = align(symmetries, fixed, free, self.restarts, rng)
        squared, permutations = min(found, key=lambda start: start[0])
        renamed = apply(symmetries, moved, permutations)
        for network, state, seen, whose in (
            (own, balanced, view, "model"), (other, renamed, reference, "reference"),
        ):  # fmt: skip
            if not keeps_outputs(network, state, seen):
                return Skipped(f"rewriting the {whose} with balanced units changed its outputs")
        aligned = compared(symmetries, renamed)
        by_start = np.sqrt([start[0] for start in found])
        return Scalar(
            value=math.sqrt(squared),
            stderr=stderr_of_minimum(by_start),
            detail={
                "by_tensor": distances(fixed, aligned),
                "unaligned": math.sqrt(sum(d**2 for d in distances(fixed, free).values())),
                "by_start": by_start.tolist(),
                "norm": math.sqrt(sum(float(np.square(v).sum()) for v in fixed.values())),
            },
        )


def state_of(network: nn.Module) -> dict[str, FloatArray]:
    """Copies of parameters and buffers in double precision."""
    return {
        name: value.detach().cpu().double().numpy().copy()
        for name, value in network.state_dict().items()
    }


def distances(one: Weights, other: Weights) -> dict[str, float]:
    """Euclidean distance of each tensor."""
    return {name: float(np.linalg.norm(one[name] - other[name])) for name in one}


def keeps_outputs(network: nn.Module, state: Weights, view: WhiteBox) -> bool:
    """Write ``network``, a private copy of the view's model, anew and compare logits."""
    import torch

    rows = np.arange(min(CHECKED, len(view.labels("forget"))), dtype=np.int64)
    with torch.no_grad():
        expected = torch.cat([network(inputs) for inputs in view.inputs("forget", rows)])
        network.load_state_dict(
            {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
        )
        logits = torch.cat([network(inputs) for inputs in view.inputs("forget", rows)])
    span = expected.max() - expected.min()
    return bool((logits - expected).abs().max() <= TOLERANCE * span)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def stderr_of_minimum(values: FloatArray) -> float:
    """Bootstrap standard error of the minimum of n values, exactly.

    The k-th smallest is the minimum of a resample with probability ((n−k+1)ⁿ − (n−k)ⁿ)/nⁿ.
    """
    n = len(values)
    left = (np.arange(n, -1, -1) / n) ** n
    chances = left[:-1] - left[1:]
    ordered = np.sort(values)
    mean = float(chances @ ordered)
    return float(np.sqrt(max(float(chances @ np.square(ordered - mean)), 0.0)))
