"""The fit loop: every network that unaudit trains goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from unaudit.errors import UnauditError
from unaudit.tokens import truth
from unaudit.training.draws import own_draws
from unaudit.training.in_parts import Loss, batch_loss
from unaudit.training.recipe import Recipe

B = TypeVar("B")

Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs (b, …), generator) → inputs of the same shape."""


class DivergedError(UnauditError):
    """Training left the finite numbers."""


def fit(
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    rows: Tensor | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    loss: Loss = nn.functional.cross_entropy,
    augment: Augment | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> nn.Module:
    """Train ``module`` in place and return it in eval mode.

    Args:
        module: on the device where ``inputs`` are.
        inputs: (n, …) float32, or (n, t) token ids.
        targets: (n,) labels, or whatever ``loss`` takes; a network that predicts tokens finds its
            own in the inputs.
        recipe: optimizer and schedule.
        generator: decides the order of the examples, the augmentation and what the network draws,
            as in dropout; on the CPU.
        rows: (k,) int64, the examples to train on; default: all.
        parameters: what is trained; default: every parameter.
        loss: of logits (rows, C) and targets (rows, …), averaged over the rows: the examples of a
            batch, or the predicted tokens of its texts; default: cross-entropy.
        augment: applied to each batch of inputs.
        on_epoch: told the number of each finished epoch.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    rows = torch.arange(len(inputs)) if rows is None else rows
    trained = list(module.parameters() if parameters is None else parameters)

    def objective(chosen: Tensor) -> Tensor:
        batch = inputs[chosen]
        if augment is not None:
            batch = augment(batch, generator)
        with recipe.autocast(inputs.device):
            return batch_loss(module, batch, loss, truth(module, batch, targets[chosen]))

    module.train()
    with own_draws(generator, inputs.device):
        descend(
            objective,
            lambda _: shuffled(rows, recipe.batch, generator),
            recipe,
            trained,
            steps=n_batches(len(rows), recipe.batch),
            on_epoch=on_epoch,
        )
    return module.eval()


def descend(
    objective: Callable[[B], Tensor],
    batches: Callable[[int], Iterable[B]],
    recipe: Recipe,
    parameters: Sequence[nn.Parameter],
    *,
    steps: int,
    after_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Minimize an objective over ``parameters`` in place: the loop below :func:`fit`.

    Args:
        objective: the loss of one batch, whatever a batch is.
        batches: those of an epoch, counted from 0.
        recipe: optimizer, schedule and number of epochs.
        parameters: what is trained; modes (train, eval) are the caller's.
        steps: per epoch, for the schedule.
        after_step: called after each step, for whatever must be put back.
        on_epoch: told the number of each finished epoch, from 1.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    optimizer = recipe.optimizer(parameters)
    decay = recipe.decay(optimizer, steps)
    for epoch in range(recipe.epochs):
        for batch in batches(epoch):
            value = objective(batch)
            if not torch.isfinite(value):
                raise DivergedError(
                    f"training diverged in epoch {epoch + 1} (loss {value.item()}); "
                    "lower the learning rate"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            after_step()
            if decay is not None:
                decay.step()
        on_epoch(epoch + 1)


def shuffled(rows: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """``rows`` in random order, ``batch`` at a time; the last batch may be smaller.

    A last batch of one joins the one before it: batch normalization has no variance of one example.
    """
    parts = list(rows[torch.randperm(len(rows), generator=generator)].split(batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


def n_batches(n: int, batch: int) -> int:
    """How many :func:`shuffled` gives for ``n`` rows."""
    parts, last = -(-n // batch), n % batch or batch
    return parts - (parts > 1 and last == 1)
