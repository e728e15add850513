"""IDI: how much the layers tell of the label that was to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attacks.black_box._parameters import require_positive, require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent
from attacks.white_box._chosen import (
    Chosen,
    choose_by_class,
    choose_by_membership,
    has_weights,
    last_blocks,
)
from attacks.white_box._parameters import require_share
from attacks.white_box._rows import unlabeled
from unaudit.errors import UsageError
from unaudit.evidence import (
    ANY_TASK,
    PROBES,
    Evidence,
    ProbeCard,
    Scalar,
    Skipped,
)

if TYPE_CHECKING:
    import torch

    from attacks.white_box._critics import State
    from attacks.white_box._mutual_information import Curve, Design, Layer
    from unaudit.white_box import WhiteBox


@PROBES.register("idi")
@dataclass(frozen=True)
class InformationDifference:
    """Σ I(Z_ℓ; Y) over the last blocks and the features; its residual index is IDI (Eq. 2).

    Y tells forget from retain; where the forget set is spread over the classes, Y is the class and
    only forget examples count (appendix A.1). I(Z; Y) is InfoNCE's lower bound, H(Y) minus the
    cross-entropy of a classifier with the labels' frequencies as offset: the critic.

    IDI prints neither batch, epochs, projection nor evaluation split, and its learning rates (f
    2e-5 … 2e-6, g 5e-4) are for its own recipe: every number below is ours. Departures:

    * Estimates are of examples that the critic did not see, each by the critics of the other folds;
      those on the critics' own examples, which IDI appears to show, stand beside (``mi_train``).
    * The features' critic is convex and solved, with the penalty that suits held-out examples.
    * ``warm_start``: besides from fresh weights, as in IDI, a critic of an earlier layer is trained
      from the network's own weights with the critic of what follows on top, and the better one is
      taken. Either is a lower bound; only the second cannot lie below the later layer's by bad
      training. Examples that the estimate is not of decide, and they end the training as well.
    * A last block behind which no weights come before the head (as in ResNets) has the features'
      critic; it is not counted twice. IDI's two layers of a ResNet-18 are then ours: the features
      and the stage before the last.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="idi",
        title="Information (IDI)",
        family="representation",
        measures=(
            "Mutual information between the last layers' activations and the forget label, summed "
            "over the layers, in nats: how well a fresh network tells the forget examples from "
            "what a layer passes on. The residual index of it is IDI."
        ),
        source="IDI §4 Eq. 1–2, appendices A.1, B, C.7, E.3; InfoNCE after Poole et al. 2019",
        cost="three to six forward passes at 50,000 examples; grows with max_examples only",
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"retain"}),
        blind_spots=(
            "A lower bound found by training: information that no critic of this size and time "
            "extracts does not count.",
            "Every model tells much of a class that it was never trained on, so the original may "
            "hardly stand out from the retrained models; the intervals then say so.",
            "Where part of a class is to be forgotten, what is kept of the class hides what is "
            "remembered of the rest.",
            "Where the forget set is spread over the classes, only memorization beyond the class "
            "is seen, and a few hundred examples show little of it.",
            "What earlier layers than the last blocks keep is not looked at.",
            "Over-unlearning shows as a negative index only if the encoder lost information: "
            "gradient ascent gets every forget example wrong and keeps most of it.",
            "Scrambling the last layers without removing anything from earlier ones lowers it.",
        ),
    )

    blocks: int = 2
    """Last blocks to look at, besides the features."""
    max_examples: int = 3000
    """Examples that the critics see, fit and held out together."""
    forget_share: float = 0.1
    """Share of forget examples where Y tells forget from retain: decides H(Y), the most that can be
    found. Where retain examples are too few the share is larger."""
    folds: int = 3
    repeats: int = 2
    """Sets of critics; their differences are the noise of training."""
    lr: float = 5e-3
    """Adam's learning rate of f and g at first."""
    batch: int = 128
    max_epochs: int = 100
    patience: int = 3
    """Epochs without progress on held-out examples before a critic's learning rate falls, and at
    last its training ends."""
    warm_start: bool = True
    """Whether critics may start from the network's own weights as well."""

    def __post_init__(self) -> None:
        require_whole(self, "blocks", 0)
        require_whole(self, "max_examples", 2 * MIN_EXAMPLES)
        require_share(self, "forget_share")
        if self.forget_share == 1:
            raise UsageError("probes.idi.forget_share must leave room for retain examples (got 1)")
        require_whole(self, "folds", 2)
        require_whole(self, "repeats", 2)
        require_positive(self, "lr")
        require_whole(self, "batch", 2)
        require_whole(self, "max_epochs", 1)
        require_whole(self, "patience", 1)
        if not isinstance(self.warm_start, bool):
            raise UsageError(
                f"probes.idi.warm_start must be true or false (got {str(self.warm_start)[:40]!r})"
            )

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view) or unlabeled(view)) is not None:
            return skip
        chosen = self.choose(view, rng)
        if isinstance(chosen, Skipped):
            return chosen
        from attacks.white_box._mutual_information import curve_of

        design = self.design(chosen, view.device, rng)
        names, layers = _measure(view, chosen, design, self.blocks, rng)
        curve = curve_of(layers, design)
        return Scalar(
            curve.total,
            curve.total_stderr,
            _detail(chosen, names, layers, curve),
            chosen.by_split(curve.influence),
            chosen.rows,
        )

    def design(self, chosen: Chosen, device: torch.device, rng: np.random.Generator) -> Design:
        """Who fits, ends and is evaluated by which critic."""
        from attacks.white_box._critics import Training
        from attacks.white_box._mutual_information import make_design

        return make_design(
            chosen.labels,
            chosen.strata,
            folds=self.folds,
            repeats=self.repeats,
            training=Training(self.lr, self.batch, self.max_epochs, self.patience),
            warm_start=self.warm_start,
            device=device,
            rng=rng,
        )

    def choose(self, view: WhiteBox, rng: np.random.Generator) -> Chosen | Skipped:
        """Which examples, and what Y is."""
        if view.scenario == "sample":
            return choose_by_class(view, self.max_examples, self.folds, rng)
        return choose_by_membership(view, self.max_examples, self.forget_share, rng)


def idi(
    subject: Sequence[float], original: Sequence[float], retrained: Sequence[Sequence[float]]
) -> float:
    """IDI Eq. 2 from curves of I(Z_ℓ; Y), layer by layer (``detail["mi"]``).

    Args:
        subject, original: (L,) nats.
        retrained: (m, L) nats, averaged over the models.

    Raises:
        ValueError: the original's curve sums to that of the retrained models, or a curve has
            another number of layers.
    """
    if not retrained or {len(curve) for curve in (subject, *retrained)} != {len(original)}:
        raise ValueError("every curve must have the same layers, and one must be of a reference")
    reference = float(np.mean([np.sum(curve) for curve in retrained]))
    difference = float(np.sum(original)) - reference
    if difference == 0.0:
        raise ValueError("IDI is undefined: the original tells no more than the reference")
    return (float(np.sum(subject)) - reference) / difference


def idi_against_standard(
    subject: Sequence[float], original: Sequence[float], standard: Sequence[float]
) -> float:
    """IDI(θu, θs), Eq. 9: any trustworthy model in the place of the retrained ones.

    0 then means "like the standard model", no more; the order of models stays (appendix E.3).
    """
    return idi(subject, original, [standard])


def _measure(
    view: WhiteBox, chosen: Chosen, design: Design, blocks: int, rng: np.random.Generator
) -> tuple[list[str], list[Layer]]:
    """Layers from first to last, and what their critics found; the last are the features."""
    from attacks.white_box._critics import Critic, Pool
    from attacks.white_box._mutual_information import (
        of_features,
        of_layer,
        shortfall,
        train_longer,
    )
    from unaudit.white_box import FEATURES

    critics_each = sum(len(row) for row in design.partitions)
    seeds = rng.integers(1 << 62, size=(max(blocks, 1), critics_each))
    for split, rows in chosen.rows.items():
        view.request(split, (*last_blocks(view, blocks), FEATURES), rows)
    features = np.concatenate(
        [view.features(split, rows) for split, rows in chosen.rows.items()]
    ).astype(np.float64)
    layer, convex = of_features(features, design)
    names, layers = [FEATURES], [layer]
    behind: list[State | None] = [None] * critics_each
    for at, name in enumerate(reversed(last_blocks(view, blocks))):
        tail = view.tail(name)
        if not has_weights(tail, view.head.name):
            continue
        pool = Pool(
            [view.activations(split, name, rows) for split, rows in chosen.rows.items()],
            view.device,
        )
        critic = Critic(tail, features.shape[1], len(design.prior))
        found, lineage = of_layer(critic, pool, design, convex, behind, seeds[at])
        if shortfall(found, layers[0], design):
            again = of_layer(critic, pool, train_longer(design), convex, behind, seeds[at])
            if again[0].held_out < found.held_out:
                found, lineage = again
        names.insert(0, name)
        layers.insert(0, found)
        behind = lineage
    return names, layers


def _detail(chosen: Chosen, names: list[str], layers: list[Layer], curve: Curve) -> dict[str, Any]:
    counts = np.bincount(chosen.labels)
    shares = counts / counts.sum()
    return {
        "layers": names,
        "mi": curve.mi.tolist(),
        "mi_train": curve.mi_train.tolist(),
        "mi_stderr": curve.stderr.tolist(),
        "entropy": float(-(shares * np.log(shares)).sum()),
        "repeats": curve.repeats.tolist(),
        "examples": {split: len(rows) for split, rows in chosen.rows.items()},
        "left_out": list(chosen.left_out),
        "converged": [layer.converged for layer in layers],
        "epochs": [layer.epochs for layer in layers],
        "warm_started": [layer.warm for layer in layers],
        "undertrained": [names[at] for at in curve.undertrained],
    }
