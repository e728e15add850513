"""A language model that learned random texts by heart, some of which are to be forgotten."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from tests.training.causal import CAUSAL_RECIPE, TinyCausal, loss_of, some_texts
from unaudit.training import fit, initialize
from unaudit.unlearners import Task

COUNT = 48


def text_task(*, tied: bool = True, **changes: Any) -> Task:
    """Forget every fourth text; 24 validation texts."""
    ids = some_texts(COUNT, 1)
    given = {
        "original": _original(tied=tied),
        "inputs": ids,
        "labels": torch.zeros(COUNT, dtype=torch.int64),
        "forget": torch.arange(COUNT) % 4 == 0,
        "n_classes": 1,
        "scenario": "sample",
        "recipe": CAUSAL_RECIPE,
        "validation": (some_texts(24, 2), torch.zeros(24, dtype=torch.int64)),
    }
    return Task(**{**given, **changes})


@cache
def _original(*, tied: bool) -> TinyCausal:
    generator = torch.Generator().manual_seed(0)
    model = TinyCausal(tied=tied)
    initialize(model, generator)
    fit(model, some_texts(COUNT, 1), torch.zeros(COUNT), CAUSAL_RECIPE, generator)
    return model


def text_loss(model: torch.nn.Module, given: Task, mask: Tensor) -> float:
    """Mean loss per token of the masked texts, nats."""
    return loss_of(model, given.inputs[mask])
