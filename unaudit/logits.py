"""Logits: matched by id where they were recorded, refused where they make no sense."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unaudit.case import Candidate
from unaudit.errors import InputError
from unaudit.evidence import IntArray
from unaudit.loading import RecordedModel
from unaudit.splits import Split


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
    name = candidate.model.provenance.name
    try:
        logits = module(inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        shape = "×".join(str(size) for size in inputs.shape[1:])
        raise InputError(
            f"{name}: the model does not accept inputs of shape {shape} ({reason:.120}); "
            "check --arch and the [preprocess] section (resize, channels, layout)"
        ) from None
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"{name}: the model must return logits of shape (batch, classes), got {found}; "
            "wrap it in a py: factory that does"
        )
    return logits


def refuse_non_finite(
    candidate: Candidate, split: Split, logits: npt.NDArray[np.float32], positions: IntArray
) -> None:
    """
    Args:
        candidate, split: whose logits, and of whose examples.
        logits: (b, n_classes).
        positions: (b,) of these examples in the split.

    Raises:
        InputError: NaN or infinite logits; names the first example.
    """
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise InputError(
            f"{candidate.model.provenance.name}: NaN or infinite logits on the {split.name} "
            f"example '{split.id_of(int(positions[bad[0]])):.60}'; "
            "the model diverged, hand in another"
        )
