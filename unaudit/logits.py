"""Logits: matched by id where they were recorded, refused where they make no sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unaudit.asking import Answers, Form, Question, explained
from unaudit.case import Candidate
from unaudit.errors import InputError
from unaudit.evidence import IntArray
from unaudit.loading import RecordedModel
from unaudit.shadows.queries import PLAIN, alter
from unaudit.splits import Split

LOGITS = ""
"""Name of the logits among the parts of a network: the output of the network as a whole."""


def recorded_logits(candidate: Candidate, split: Split) -> npt.NDArray[np.float32]:
    """Recorded outputs, matched to a split by id.

    Raises:
        InputError: ids of the split are missing, or recorded labels contradict the data.
    """
    model = candidate.model
    assert isinstance(model, RecordedModel)
    sources: tuple[str, ...] = (split.name,)
    if split.name in ("forget", "retain"):
        sources = ("train", "forget", "retain")
    where = {
        example: (name, position)
        for name in sources
        if name in model.splits
        for position, example in enumerate(model.splits[name].ids)
    }
    wanted = [split.id_of(position) for position in range(len(split))]
    missing = [example for example in wanted if example not in where]
    if missing:
        raise InputError(
            f"{model.provenance.name}: no recorded outputs for {len(missing)} of {len(wanted)} "
            f"{split.name} examples (first: '{missing[0]:.60}'); record logits for all of them"
        )
    found = [where[example] for example in wanted]
    labels = np.array([model.splits[name].labels[at] for name, at in found])
    differing = np.flatnonzero(labels != split.labels)
    if len(differing):
        raise InputError(
            f"{model.provenance.name}: recorded labels differ from the data for {len(differing)} "
            f"{split.name} examples (first: '{wanted[differing[0]]:.60}'); check ids and order"
        )
    return np.stack([model.splits[name].logits[at] for name, at in found]).astype(np.float32)


def network_logits(module: nn.Module, inputs: torch.Tensor, candidate: Candidate) -> torch.Tensor:
    """(b, n_classes): what a network gives for a batch, on its device.

    Raises:
        InputError: it does not take such inputs, or gives anything but one row per example.
    """
    with explained(candidate, inputs):
        logits = module(inputs)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"{candidate.model.provenance.name}: the model must return logits of shape "
            f"(batch, classes), got {found}; wrap it in a py: factory that does"
        )
    return logits


class AskLogits(Question):
    """Logits of every example, in the order of the split."""

    def __init__(
        self, candidate: Candidate, split: Split, n_classes: int, query: str = PLAIN
    ) -> None:
        """
        Args:
            candidate, split: see :class:`unaudit.asking.Question`.
            n_classes: logits per example.
            query: how inputs are altered, see :mod:`unaudit.shadows.queries`.
        """
        super().__init__(candidate, split)
        self._n_classes, self._query = n_classes, query

    @property
    def forms(self) -> Mapping[str, Form]:
        return {LOGITS: ((len(self.split), self._n_classes), np.float32)}

    def batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        return self.split.dataset.batches(rows, size)

    def put(self, module: nn.Module, inputs: torch.Tensor, positions: IntArray) -> Answers:
        asked = alter(inputs, self._query)
        logits = network_logits(module, asked, self.candidate).float().cpu().numpy()
        self.refuse(np.isfinite(logits).all(axis=1), positions)
        return {LOGITS: logits}

    def run(self, module: nn.Module, inputs: torch.Tensor, positions: IntArray) -> None:
        self.put(module, inputs, positions)
