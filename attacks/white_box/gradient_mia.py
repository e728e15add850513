"""White-box membership attacks on the norms of per-example gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attacks.black_box._parameters import require_whole
from attacks.black_box._selection import MIN_EXAMPLES, absent, too_few
from attacks.white_box._rows import of_forget_classes, partial, some
from unaudit.errors import InputError
from unaudit.evidence import (
    ANY_TASK,
    PROBES,
    Evidence,
    FloatArray,
    IntArray,
    ProbeCard,
    Scores,
    Skipped,
    SplitName,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from unaudit.white_box import WhiteBox

    Score = Callable[[SplitName, IntArray], FloatArray]

SOURCE = "Nasr, Shokri & Houmansadr 2019, §III; IDI (2024), table 3, white-box MIA by gradients"
ROWS_AT_ONCE = 1 << 12
SMALLEST = 1e-30
"""Norms below it count as it: float32 holds nothing smaller with full precision."""


@dataclass(frozen=True)
class GradientAttack(ABC):
    """Minus the logarithm of a gradient norm, forget against unseen of the forget classes.

    The loss of a text, for language models, is its mean over the tokens that are predicted.
    Training drives the gradients of its own examples to zero. IDI prints an attack success rate of
    an attacker that it does not describe; the AUC needs none, and for a model that never saw the
    forget set it is 0.5 in every scenario, since both sides then come from the same distribution.
    """

    card: ClassVar[ProbeCard]

    max_examples: int = 5000
    """Examples of each split that are scored, drawn at random."""

    def __post_init__(self) -> None:
        require_whole(self, "max_examples", MIN_EXAMPLES)

    @abstractmethod
    def scorer(self, view: WhiteBox) -> Score:
        """From a split and rows of it to one score per row, higher = more like a member.

        Raises:
            InputError: the model has no such part.
        """

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence:
        if (skip := absent(self.card, view)) is not None:
            return skip
        forget = np.arange(len(view.labels("forget")), dtype=np.int64)
        rows: dict[SplitName, IntArray] = {"forget": some(forget, self.max_examples, rng)}
        beside: tuple[SplitName, ...] = ("unseen", "retain")
        for split in beside:
            if split in view.splits:
                found = some(of_forget_classes(view, split), self.max_examples, rng)
                if len(found) >= MIN_EXAMPLES:
                    rows[split] = found
                elif split == "unseen":
                    return too_few(len(found), "unseen examples of the forget classes")
        try:
            score = self.scorer(view)
        except InputError as error:
            return Skipped(str(error))
        scores = {split: score(split, chosen) for split, chosen in rows.items()}
        return Scores(
            forget=scores["forget"],
            unseen=scores["unseen"],
            retain=scores.get("retain"),
            statistic="auc",
            rows=partial(view, rows),
        )


@PROBES.register("gradient-head")
@dataclass(frozen=True)
class HeadGradientAttack(GradientAttack):
    """Gradient of the loss with respect to the last linear layer: ‖p − y‖ · ‖(features, 1)‖.

    For texts, 1/T ‖Σ_t (p_t − y_t) (h_t, 1)ᵀ‖ with the hidden states h_t, which is exact and needs
    no gradient.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="gradient-head",
        title="Gradient norm, head",
        family="membership",
        measures=(
            "AUC of forget against unseen examples of the same classes by the norm of the loss "
            "gradient at the last layer: 0.5 = cannot be told apart, higher = forget examples have "
            "the smaller gradients of examples trained on."
        ),
        source=SOURCE,
        cost=(
            "no forward pass beyond the shared one, for language models one over at most "
            "max_examples of each split; closed form"
        ),
        blind_spots=(
            "Nearly a function of the loss: refitting the last layer alone fools it (IDI §3.1).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "A model that never trained gives gradients as well (IDI, table 3): only the "
            "comparison with unseen examples means anything.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"unseen"}),
    )

    def scorer(self, view: WhiteBox) -> Score:
        if view.predicts_tokens:
            from attacks.white_box._token_gradients import head_scores

            return head_scores(view)
        from attacks.white_box._gradients import log_head_norms

        has_bias = getattr(view.private_copy().get_submodule(view.head.name), "bias", None)

        def score(split: SplitName, rows: IntArray) -> FloatArray:
            outputs = view.outputs(split)
            norms = [
                log_head_norms(
                    np.asarray(outputs.logits[part], dtype=np.float64),
                    outputs.labels[part],
                    np.asarray(view.features(split, part), dtype=np.float64),
                    bias=has_bias is not None,
                )
                for part in _pieces(rows)
            ]
            return -np.concatenate(norms)

        return score


@PROBES.register("gradient-block")
@dataclass(frozen=True)
class BlockGradientAttack(GradientAttack):
    """Gradient of the loss with respect to the last block before the head.

    The last block is what has weights between the last layer behind which there are matrices or
    kernels and the head: a normalization alone is none. Its inputs come from the cache, so what
    lies before it is not run again; norms come from outer products, and from ``torch.func`` for
    layers where those are not known. Of a text longer than a language model takes at once it sees
    the first window.
    """

    card: ClassVar[ProbeCard] = ProbeCard(
        name="gradient-block",
        title="Gradient norm, last block",
        family="membership",
        measures=(
            "AUC of forget against unseen examples of the same classes by the norm of the loss "
            "gradient at the last block before the head: 0.5 = cannot be told apart, higher = "
            "forget examples have the smaller gradients of examples trained on."
        ),
        source=SOURCE,
        cost=(
            "the last block forward and backward on at most max_examples of each split, and their "
            "activations before it"
        ),
        blind_spots=(
            "The gradient reaches the block through the head, so a refitted last layer hides much "
            "(IDI §3.1).",
            "Blind when the original did not overfit; far weaker than attacks with shadow models.",
            "A model that never trained gives gradients as well (IDI, table 3): only the "
            "comparison with unseen examples means anything.",
        ),
        access="white-box",
        tasks=ANY_TASK,
        needs=frozenset({"unseen"}),
    )

    max_examples: int = 2000
    """Examples of each split that are scored, drawn at random."""
    batch: int = 128
    """Examples at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, "batch", 1)

    def scorer(self, view: WhiteBox) -> Score:
        import torch

        from attacks.white_box._gradients import gradient_norms

        layer, network, parameters = last_block(view)

        def score(split: SplitName, rows: IntArray) -> FloatArray:
            batch = self._texts_at_once(view, split) if view.predicts_tokens else self.batch
            given = _given(view, split, rows, layer, batch)
            truths = _truths(view, network, split, rows, batch)
            norms = [
                gradient_norms(network, parameters, inputs, *truth).double()
                for inputs, truth in zip(given, truths, strict=True)
            ]
            return np.asarray(-torch.cat(norms).clamp(min=SMALLEST).log().cpu().numpy())

        return score

    def _texts_at_once(self, view: WhiteBox, split: SplitName) -> int:
        from attacks.white_box._gradients import ELEMENTS_AT_ONCE

        length = next(view.inputs_inside(split, np.zeros(1, dtype=np.int64))).shape[1]
        return min(self.batch, max(1, ELEMENTS_AT_ONCE // (length * len(view.head.weight))))


def last_block(view: WhiteBox) -> tuple[str | None, nn.Module, list[nn.Parameter]]:
    """The layer that feeds the last block, the network behind it, and the block's parameters.

    The layer is None if the block starts at the input; the network is a private copy.

    Raises:
        InputError: the network has no weights but the head's.
    """
    for layer in reversed(view.layers):
        tail = view.tail(layer)
        parameters = _without_head(tail, tail.module.get_submodule(view.head.name))
        if any(parameter.ndim > 1 for parameter in parameters):
            return layer, tail, parameters
    network = view.private_copy()
    parameters = _without_head(network, network.get_submodule(view.head.name))
    if not parameters:
        raise InputError("the network has no weights before its last linear layer")
    return None, network, parameters


def _without_head(network: nn.Module, head: nn.Module) -> list[nn.Parameter]:
    """Those of the network that are not the head's, not even under another name."""
    left_out = {id(parameter) for parameter in head.parameters()}
    return [own for own in network.parameters() if id(own) not in left_out]


def _given(
    view: WhiteBox, split: SplitName, rows: IntArray, layer: str | None, batch: int
) -> Iterator[torch.Tensor]:
    """What the block is given, a batch at a time."""
    import torch

    if layer is None:
        yield from view.inputs_inside(split, rows, batch)
        return
    activations = view.activations(split, layer, rows)
    for start in range(0, len(rows), batch):
        part = np.array(activations[start : start + batch])
        yield torch.from_numpy(part).to(view.device)


def _truths(
    view: WhiteBox, network: nn.Module, split: SplitName, rows: IntArray, batch: int
) -> Iterator[tuple[torch.Tensor] | tuple[torch.Tensor, list[int]]]:
    """The truth of each row of logits, and how many rows each example has where not one."""
    import torch

    if not view.predicts_tokens:
        labels = torch.from_numpy(view.labels(split)[rows]).to(view.device)
        yield from ((own,) for own in labels.split(batch))
        return
    model: Any = getattr(network, "module", network)
    for ids in view.inputs_inside(split, rows, batch):
        yield model.targets(ids), model.counts(ids).tolist()


def _pieces(rows: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]
