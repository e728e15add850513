"""The fit loop: every network that unaudit trains goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.errors import UnauditError

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(logits (b, C), targets (b, …)) → scalar, averaged over the batch."""
Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs (b, …), generator) → inputs of the same shape."""


class DivergedError(UnauditError):
    """Training left the finite numbers."""


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum."""

    lr: float = 0.1
    """Initial learning rate."""
    epochs: int = 60
    batch: int = 64
    """Examples per step; the last, smaller batch of an epoch is used as well."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """L2 penalty, on every parameter."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """``cosine`` decays the learning rate to 0 over all steps (Loshchilov & Hutter 2017)."""
    precision: Literal["float32", "bf16"] = "float32"
    """``bf16`` runs forward passes under autocast; weights stay float32."""


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for tensors, as before afterwards: small networks only lose by sharing a step."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    parameters: Iterable[nn.Parameter] | None = None,
    loss: Loss = nn.functional.cross_entropy,
    augment: Augment | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> nn.Module:
    """Train ``module`` in place and return it in eval mode.

    Args:
        module: on the device where ``inputs`` are.
        inputs: (n, …) float32.
        targets: (n,) labels, or whatever ``loss`` takes.
        recipe: optimizer and schedule.
        generator: decides the order of the examples and the augmentation; on the CPU.
        parameters: what is trained; default: every parameter.
        loss: default: cross-entropy.
        augment: applied to each batch of inputs.
        on_epoch: told the number of each finished epoch.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    trained = list(module.parameters() if parameters is None else parameters)
    optimizer = torch.optim.SGD(
        trained, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    n = len(inputs)
    steps = recipe.epochs * -(-n // recipe.batch)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    module.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(n, generator=generator)
        for rows in order.split(recipe.batch):
            batch = inputs[rows]
            if augment is not None:
                batch = augment(batch, generator)
            with torch.autocast(
                inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"
            ):
                value = loss(module(batch), targets[rows])
            if not torch.isfinite(value):
                raise DivergedError(
                    f"training diverged in epoch {epoch + 1} (loss {value.item()}); "
                    "lower the learning rate"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if recipe.schedule == "cosine":
                decay.step()
        on_epoch(epoch + 1)
    return module.eval()
