"""Finetuning (FT): keep training the original on the retain examples alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from unaudit.training import Recipe, fit


def finetune(
    original: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    lr: float = 0.01,
    epochs: int = 10,
) -> nn.Module:
    """A finetuned copy of ``original``; ``inputs`` (n, …) and ``labels`` (n,) are retain examples.

    Learning rate and epochs are those of the baseline of Jia et al. 2023 (l1-sparse); the rest is
    the original's own recipe, at a constant learning rate.
    """
    student = copy.deepcopy(original)
    schedule = replace(recipe, lr=lr, epochs=epochs, schedule="constant")
    return fit(student, inputs, labels, schedule, generator)
