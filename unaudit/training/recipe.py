"""The recipe: how a model is trained, frozen, so that others can be trained in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule, batch, augmentation and precision."""

    lr: float = 0.1
    """Initial learning rate."""
    epochs: int = 60
    batch: int = 64
    """Examples per step; the last, smaller batch of an epoch is used as well."""
    momentum: float = 0.9
    """Of SGD; Adam's β₁ and β₂ are PyTorch's."""
    weight_decay: float = 5e-4
    """L2 penalty on every parameter (SGD, Adam) or decoupled decay (AdamW)."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """``cosine`` decays the learning rate to 0 over all steps (Loshchilov & Hutter 2017)."""
    precision: Literal["float32", "bf16"] = "float32"
    """``bf16`` runs forward passes under autocast; weights stay float32."""
    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    """The optimizer."""

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer of these parameters."""
        if self.kind == "sgd":
            return torch.optim.SGD(
                parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
        adam = torch.optim.Adam if self.kind == "adam" else torch.optim.AdamW
        return adam(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def decay(
        self, optimizer: torch.optim.Optimizer, steps: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """What lowers the learning rate after each step; ``steps`` per epoch."""
        if self.schedule == "constant":
            return None
        total = max(self.epochs * steps, 1)
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The precision of forward passes."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
