"""Feature distances: how far apart two models write the same forget examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.black_box._parameters import require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._layers import flat, rows_that_fit, shapes
from attacks.white_box._rows import partial, some
from unaudit.evidence import ANY_TASK, PROBES, Evidence, FloatArray, ProbeCard, Scores, Skipped

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox


@dataclass(frozen=True)
class LayerDistance(ABC):
    """Unit by unit, at every block's output and at the penultimate features.

    RFA-LoRA compares an unlearned model with the original or with a retrained one; here the
    reference is a retrained model, and the original is held against it just as the subject is.
    """

    card: ClassVar[ProbeCard]

    max_examples: int = 500
    """Forget examples to compare."""
    max_elements: int = 1 << 22
    """Largest number of activations of one layer; wider layers are compared on fewer examples."""

    def __post_init__(self) -> None:
        require_whole(self, "max_examples", MIN_EXAMPLES)
        require_whole(self, "max_elements", 1)

    @abstractmethod
    def distance(self, own: FloatArray, other: FloatArray) -> FloatArray:
        """(n,) distances at one layer between two (n, units) arrays."""

    @abstractmethod
    def join(self, distances: FloatArray) -> FloatArray:
        """(n,) from (layers, n)."""

    def __call__(self, view: WhiteBox, reference: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view, reference)) is not None:
            return skip
        from unaudit.white_box import FEATURES

        size = len(view.labels("forget"))
        if size < MIN_EXAMPLES:
            return too_few(size, "forget examples")
        layers = (*view.layers, FEATURES)
        sizes = shapes(view, layers)
        if (*reference.layers, FEATURES) != layers or shapes(reference, layers) != sizes:
            return Skipped("the reference has other layers, so units cannot be compared one by one")
        rows = some(np.arange(size, dtype=np.int64), self.max_examples, rng)
        rows = rows_that_fit(rows, [sizes], self.max_elements, rng)
        for model in (view, reference):
            model.request("forget", layers, rows)
        distances = np.stack(
            [
                self.distance(flat(view, layer, rows), flat(reference, layer, rows))
                for layer in layers
            ]
        )
        by_layer = dict(zip(layers, map(float, distances.mean(axis=1)), strict=True))
        return Scores(
            forget=self.join(distances),
            statistic="mean",
            rows=partial(view, {"forget": rows}),
            detail={"by_layer": by_layer, "examples": len(rows)},
        )


_COST = "one forward pass over at most 500 forget examples"
_BLIND_SPOTS = (
    "Networks trained from different seeds order their units differently (SURE §3.2): unit by unit "
    "any two are far apart, which drowns what the forget set adds. On the digits the original is "
    "not told from retrained models; use cka there.",
    "Unsigned: over-unlearning raises it too, an untrained or silent network lowers it.",
    "A subject that was finetuned from the original lies as far from the references as the "
    "original does, whatever it forgot.",
)


@PROBES.register("feature-distance")
@dataclass(frozen=True)
class FeatureDistance(LayerDistance):
    """Σ_k ‖x_k^a − x_k^b‖₁ over layers k, as the formula of RFA-LoRA has it.

    Layers with many units weigh most.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="feature-distance",
        title="Feature distance (L1)",
        family="representation",
        measures=(
            "Sum over layers of the absolute differences between a model's activations and a "
            "retrained model's on the same forget example, averaged over examples: 0 = the same "
            "activations."
        ),
        source="RFA-LoRA, §V-B, feature distance, definition 2 (the formula)",
        cost=_COST,
        blind_spots=_BLIND_SPOTS,
        access="white-box",
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    def distance(self, own: FloatArray, other: FloatArray) -> FloatArray:
        return np.asarray(np.abs(own - other).sum(axis=1))

    def join(self, distances: FloatArray) -> FloatArray:
        return np.asarray(distances.sum(axis=0))


@PROBES.register("relative-feature-distance")
@dataclass(frozen=True)
class RelativeFeatureDistance(LayerDistance):
    """The same relative to the size of the reference's activations, averaged over layers.

    The text of RFA-LoRA speaks of a "mean absolute relative error", its formula has no denominator.
    Ours is ‖x_k^b‖₁ averaged over the examples: by example or by unit it is 0 where the reference
    is silent.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="relative-feature-distance",
        title="Feature distance (relative)",
        family="representation",
        measures=(
            "Absolute differences between a model's activations and a retrained model's on the "
            "same forget example, over the size of the latter's, averaged over layers and "
            "examples: 0 = the same activations."
        ),
        source="RFA-LoRA, §V-B, feature distance (the text); the denominator is ours",
        cost=_COST,
        blind_spots=_BLIND_SPOTS,
        access="white-box",
        tasks=ANY_TASK,
        comparative=True,
        unsigned=True,
    )

    def distance(self, own: FloatArray, other: FloatArray) -> FloatArray:
        size = float(np.abs(other).sum(axis=1).mean())
        return np.asarray(np.abs(own - other).sum(axis=1) / (size if size > 0.0 else 1.0))

    def join(self, distances: FloatArray) -> FloatArray:
        return np.asarray(distances.mean(axis=0))
