"""A small language model that needs no library, and texts for it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from unaudit.data.text_dataset import TextDataset
from unaudit.evidence import IntArray
from unaudit.tokens import PADDING, are_present, longest

VOCABULARY = 24
WIDTH = 16
CONTEXT = 12


class Block(nn.Module):
    """Attention to what came before, and two layers."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, states: Tensor, allowed: Tensor) -> Tensor:
        queries, keys, values = self.mix(self.before(states)).chunk(3, dim=2)
        likeness = queries @ keys.transpose(1, 2) / math.sqrt(states.shape[2])
        weights = likeness.masked_fill(~allowed, -1e9).softmax(dim=2)
        states = states + self.join(weights @ values)
        added: Tensor = self.narrow(torch.relu(self.widen(self.between(states))))
        return states + added


class Causal(nn.Module):
    """Predicts each token from those before it; texts beyond the context are read in windows."""

    def __init__(
        self, *, tied: bool = False, context: int | None = CONTEXT, bias: bool = False
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(64 if context is None else context, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.states = nn.Identity()
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=bias)
        if tied:
            self.lm_head.weight = self.token_embedding.weight
        self.context = context

    @property
    def head(self) -> nn.Linear:
        return self.lm_head

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits_of(self.hidden(ids))

    def logits_of(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(hidden)
        return logits

    def targets(self, ids: Tensor) -> Tensor:
        return ids[:, 1:][are_present(ids[:, 1:])]

    def counts(self, ids: Tensor) -> Tensor:
        return are_present(ids).sum(dim=1) - 1

    def windows(self, length: int) -> list[tuple[int, int, int]]:
        if self.context is None or length <= self.context:
            return [(0, length, 1)]
        stride = self.context // 2
        found = [(0, self.context, 1)]
        while found[-1][1] < length:
            stop = min(found[-1][1] + stride, length)
            found.append((stop - self.context, stop, found[-1][1]))
        return found

    def hidden(self, ids: Tensor) -> Tensor:
        length = longest(are_present(ids))
        if self.context is None or length <= self.context:
            states = self._states(ids[:, :length])
            return states[:, :-1][are_present(ids[:, 1:length])]
        pieces = [
            (row, window)
            for row, own in enumerate(are_present(ids).sum(dim=1).tolist())
            for window in self.windows(own)
        ]
        given = [ids[row, start:stop] for row, (start, stop, _) in pieces]
        read = self._states(nn.utils.rnn.pad_sequence(given, True, PADDING))
        return torch.cat(
            [
                states[first - 1 - start : stop - 1 - start]
                for states, (_, (start, stop, first)) in zip(read, pieces, strict=True)
            ]
        )

    def _states(self, ids: Tensor) -> Tensor:
        present = are_present(ids)
        places = torch.arange(ids.shape[1], device=ids.device)
        states = self.token_embedding(ids.clamp(min=0)) + self.places(places)
        allowed = present[:, None, :] & (places[None, :, None] >= places[None, None, :])
        for block in self.blocks:
            states = block(states, allowed)
        shown: Tensor = self.states(self.norm(states))
        return shown


def causal(
    seed: int = 0, *, tied: bool = False, context: int | None = CONTEXT, bias: bool = False
) -> Causal:
    """In eval mode, with weights that depend on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Causal(tied=tied, context=context, bias=bias)
        for weight in network.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.3)
    return network.eval()


class Texts(TextDataset):
    """Token ids in memory."""

    def __init__(self, ids: Tensor, labels: IntArray | None = None, name: str = "texts") -> None:
        self._ids = ids.numpy()
        self.lengths = (self._ids != PADDING).sum(axis=1)
        self.labels = np.zeros(len(ids), dtype=np.int64) if labels is None else labels
        self.ids = None
        self.name = name
        self.input_shape = (ids.shape[1],)
        content = hashlib.sha256(self._ids.tobytes())
        content.update(self.labels.tobytes())
        self.digest = content.hexdigest()

    def batches(self, rows: IntArray, size: int) -> Iterator[Tensor]:
        for start in range(0, len(rows), size):
            yield torch.from_numpy(self._ids[rows[start : start + size]])

    def narrow_batches(self, rows: IntArray, size: int) -> Iterator[Tensor]:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield torch.from_numpy(self._ids[part, : int(self.lengths[part].max())])

    def compressed_sizes(self) -> IntArray:
        return 2 * self.lengths


def texts(lengths: Sequence[int], seed: int = 0, width: int | None = None) -> Tensor:
    """(n, width) random token ids, padded; as wide as the longest by default."""
    rng = np.random.default_rng(seed)
    ids = torch.full((len(lengths), width or max(lengths)), PADDING)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.from_numpy(rng.integers(0, VOCABULARY, length))
    return ids
