"""A language model as small as can be, and texts that it learns by heart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unaudit.tokens import PADDING, are_present, longest
from unaudit.training import Recipe

VOCABULARY = 20
CAUSAL_RECIPE = Recipe(kind="adamw", lr=0.03, epochs=40, batch=16, weight_decay=0.0)


class TinyCausal(nn.Module):
    """Predicts a token from the two before it; its head is its embedding, if they are tied."""

    def __init__(self, vocabulary: int = VOCABULARY, width: int = 16, *, tied: bool = True) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(2 * width, 64)
        self.back = nn.Linear(64, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.token_embedding.weight
        self.context: int | None = None

    def draw_weights(self, generator: torch.Generator) -> None:
        for weight in self.parameters():
            scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1
            nn.init.normal_(weight, std=scale, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits_of(self.hidden(ids))

    def hidden(self, ids: Tensor) -> Tensor:
        ids, present = cropped(ids)
        seen = self.token_embedding(ids.masked_fill(~present, 0))
        before = nn.functional.pad(seen[:, :-1], (0, 0, 1, 0))
        states = self.back(torch.tanh(self.mix(torch.cat([before, seen], dim=2))))
        found: Tensor = states[:, :-1][present[:, 1:]]
        return found

    def logits_of(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden)
        return logits

    def targets(self, ids: Tensor) -> Tensor:
        ids, present = cropped(ids)
        return ids[:, 1:][present[:, 1:]]

    def counts(self, ids: Tensor) -> Tensor:
        return are_present(ids)[:, 1:].sum(dim=1)


def cropped(ids: Tensor) -> tuple[Tensor, Tensor]:
    present = are_present(ids)
    length = longest(present)
    return ids[:, :length], present[:, :length]


def build(**options: Any) -> TinyCausal:
    """For jobs, which name their network: ``py:tests.training.causal:build``."""
    return TinyCausal(**options)


def some_texts(count: int, seed: int, *, least: int = 4, most: int = 9) -> Tensor:
    """(count, most) token ids of random texts, padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (count, most), generator=generator)
    lengths = torch.randint(least, most + 1, (count, 1), generator=generator)
    return torch.where(torch.arange(most) < lengths, ids, PADDING)


def loss_of(network: nn.Module, ids: Tensor) -> float:
    """Mean loss per token over all texts, each run on its own without padding; nats."""
    losses = []
    with torch.no_grad():
        for row in ids:
            text = row[row != PADDING]
            logits = network(text[None])
            losses.append(nn.functional.cross_entropy(logits, text[1:], reduction="none"))
    return float(torch.cat(losses).mean())
