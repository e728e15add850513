"""The loop that lets a private copy relearn and watches it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.white_box._rows import some
from attacks.white_box._scales import Scales, find_scales
from unaudit.evidence import FloatArray, IntArray, SplitName
from unaudit.tokens import predicts_tokens, truth
from unaudit.training.in_parts import batch_loss
from unaudit.training.likelihood import by_slices, per_text, texts_at_once

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox


SAMPLE = 64
"""Examples on which the scales of features are measured."""


class RelearningDivergedError(Exception):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Schedule:
    """SGD with momentum at a constant rate, without weight decay."""

    marks: tuple[int, ...]
    """Steps after which the copy is examined, ascending; it is trained up to the last."""
    lr: float
    momentum: float
    clip: float
    """Largest norm of the gradient, in the coordinates of the scales."""
    spread: float
    """Total variance of the features in the coordinates of the head."""
    n_forget: int
    """Forget examples per batch."""
    n_retain: int


@dataclass(frozen=True, eq=False)
class Watched:
    """How one copy relearned."""

    confidence: FloatArray
    """(marks, n) probability of the true class for each watched forget example; of a text, the
    geometric mean over its tokens."""
    loss: FloatArray
    """(marks, n) nats; of a text per token."""
    correct: FloatArray
    """(marks, n) 0 or 1; of a text, the share of tokens that come first."""


def scales_of(
    view: WhiteBox, schedule: Schedule, forget: IntArray, seed: int, *, fresh_head: bool
) -> Scales:
    """Coordinates to train copies of the model in.

    Args:
        view: the model.
        schedule: says how forget and retain examples are mixed.
        forget: rows of the forget set that may be trained on.
        seed: of the jitter and the choice of examples; the same for all models.
        fresh_head: as in :func:`relearn`.
    """
    rng = np.random.default_rng(seed)
    share = round(SAMPLE * schedule.n_forget / (schedule.n_forget + schedule.n_retain))
    kept = np.arange(len(view.labels("retain")), dtype=np.int64)
    inputs = [
        *view.inputs("forget", some(forget, max(share, 1), rng)),
        *view.inputs("retain", some(kept, SAMPLE - share, rng)),
    ]
    generator = torch.Generator().manual_seed(seed)
    network = _copy(view, fresh_head)
    return find_scales(network, view.head.name, schedule.spread, inputs, generator)


def relearn(
    view: WhiteBox,
    schedule: Schedule,
    scales: Scales,
    learned: IntArray,
    watched: IntArray,
    rng: np.random.Generator,
    *,
    fresh_head: bool,
) -> Watched:
    """Train a private copy on forget examples among retain examples.

    The copy stays in eval mode: batch normalization uses its stored statistics and keeps them,
    dropout is off. Otherwise the mere mixture of the batches would change the model and pass for
    learning.

    Args:
        view: the model; it is not changed.
        schedule: how to train and when to look.
        scales: of the model; parameters that have none are not trained.
        learned: rows of the forget set that are trained on.
        watched: rows of the forget set that are examined.
        rng: decides the batches; draws the same for every model.
        fresh_head: set the head to zero first, so that every model starts with a uniform guess.

    Raises:
        RelearningDivergedError: the loss became NaN or infinite.
    """
    steps = schedule.marks[-1]
    kept = np.arange(len(view.labels("retain")), dtype=np.int64)
    forget = _passes(learned, steps * schedule.n_forget, rng)
    retain = _passes(kept, steps * schedule.n_retain, rng)
    network = _copy(view, fresh_head)
    optimizer = _Descent(network, scales, schedule)
    batches = zip(
        _batches(view, "forget", forget, schedule.n_forget),
        _batches(view, "retain", retain, schedule.n_retain),
        strict=True,
    )
    seen: list[Tensor] = []
    if 0 in schedule.marks:
        seen.append(_examine(network, view, watched))
    for step, (wanted, other) in enumerate(batches, start=1):
        inputs = torch.cat([wanted[0], other[0]])
        labels = torch.cat([wanted[1], other[1]])
        told = truth(network, inputs, labels)
        loss = batch_loss(network, inputs, nn.functional.cross_entropy, told)
        if not torch.isfinite(loss):
            raise RelearningDivergedError
        optimizer.step(loss)
        if step in schedule.marks:
            seen.append(_examine(network, view, watched))
    joined = torch.stack(seen).double().cpu().numpy()
    if not np.isfinite(joined).all():
        raise RelearningDivergedError
    log_p, correct = joined[:, 0], joined[:, 1]
    return Watched(confidence=np.exp(log_p), loss=-log_p, correct=correct)


def _copy(view: WhiteBox, fresh_head: bool) -> nn.Module:
    """A copy to train, its head zero if it is to be fresh."""
    network = view.private_copy()
    if fresh_head:
        head = network.get_submodule(view.head.name)
        for name, parameter in list(head.named_parameters(recurse=False)):
            # weights of its own: they may be those of an embedding, which stays as it is
            setattr(head, name, nn.Parameter(torch.zeros_like(parameter)))
    return network


class _Descent:
    """SGD on ŵ = w / scale, which is how far w has come in units of its scale."""

    def __init__(self, network: nn.Module, scales: Scales, schedule: Schedule) -> None:
        self.schedule = schedule
        self.weights: list[nn.Parameter] = []
        self.scales: list[Tensor] = []
        for name, weight in network.named_parameters():
            weight.requires_grad_(name in scales)
            if name in scales:
                self.weights.append(weight)
                self.scales.append(scales[name])
        self.velocities = [torch.zeros_like(weight) for weight in self.weights]

    def step(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.weights, materialize_grads=True)
        with torch.no_grad():
            own = [gradient * scale for gradient, scale in zip(gradients, self.scales, strict=True)]
            norm = torch.stack([gradient.norm() for gradient in own]).norm()
            part = torch.clamp(self.schedule.clip / norm, max=1.0)
            for weight, scale, velocity, gradient in zip(
                self.weights, self.scales, self.velocities, own, strict=True
            ):
                velocity.mul_(self.schedule.momentum).addcmul_(gradient, part)
                weight.addcmul_(scale, velocity, value=-self.schedule.lr)


def _passes(rows: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """``count`` of ``rows``: shuffled passes over all of them, one after another."""
    passes = -(-count // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(passes)])[:count]


def _batches(
    view: WhiteBox, split: SplitName, rows: IntArray, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    labels = torch.from_numpy(view.labels(split)[rows]).to(view.device)
    yield from zip(view.inputs(split, rows, size), labels.split(size), strict=True)


@torch.no_grad()
def _examine(network: nn.Module, view: WhiteBox, rows: IntArray) -> Tensor:
    """(2, n): log p of the truth, and whether it is the prediction; of a text, per token."""
    if predicts_tokens(network):
        parts = [
            _examine_texts(network, ids)
            for batch in view.inputs("forget", rows)
            for ids in batch.split(texts_at_once(batch.shape[1]))
        ]
        return torch.cat(parts, dim=1)
    labels = torch.from_numpy(view.labels("forget")[rows]).to(view.device)
    logits = torch.cat([network(inputs) for inputs in view.inputs("forget", rows)])
    return _judged(logits, labels)


def _examine_texts(network: nn.Module, ids: Tensor) -> Tensor:
    """(2, b), some rows of logits at a time."""
    reads: Any = network
    counts = reads.counts(ids)
    return torch.stack([per_text(row, counts) for row in by_slices(network, ids, _judged)])


def _judged(logits: Tensor, truths: Tensor) -> Tensor:
    """(2, rows) log p of the truth, and whether it is the prediction."""
    log_p = logits.double().log_softmax(dim=1).gather(1, truths[:, None])[:, 0]
    return torch.stack([log_p, (logits.argmax(dim=1) == truths).double()])
