"""Do all models of a case give answers of one kind, and do they fit the data?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unaudit.asking import explained
from unaudit.case import Candidate, Case
from unaudit.devices import on_device
from unaudit.errors import InputError
from unaudit.loading import LoadedModel, RecordedModel
from unaudit.logits import network_logits
from unaudit.token_scores import vocabulary_of


@dataclass(frozen=True)
class Sizes:
    """Of what all models give."""

    n_classes: int
    """Classes of the examples: of a language model those of the labels of texts."""
    n_logits: int
    """Logits in a row: as many as classes, or as tokens of a vocabulary."""


def agreed_sizes(case: Case, device: torch.device) -> Sizes:
    """Feed one example to every model.

    Raises:
        InputError: inputs do not fit a model, or numbers of classes or tokens differ.
    """
    language = case.task == "language-modeling"
    widths = {candidate: _width(case, candidate, device) for candidate in case.candidates}
    expected = widths[case.subject]
    what, same = ("tokens", "vocabulary") if language else ("logits", "classes")
    for candidate, width in widths.items():
        if width != expected:
            verb = "knows" if language else "gives"
            raise InputError(
                f"{candidate.label} ({candidate.model.provenance.name}) {verb} {width} {what}, "
                f"the subject {expected}; all models must have the same {same}"
            )
    largest = {name: int(split.labels.max()) for name, split in case.splits.items()}
    if language:
        return Sizes(1 + max(largest.values()), expected)
    for name, label in largest.items():
        if label >= expected:
            raise InputError(
                f"{case.splits[name].dataset.name}: label {label} in {name}, but the models give "
                f"{expected} logits (labels 0 to {expected - 1}); check data.label_column or "
                "num_classes"
            )
    return Sizes(expected, expected)


def _width(case: Case, candidate: Candidate, device: torch.device) -> int:
    model = candidate.model
    if isinstance(model, RecordedModel):
        width = next(iter(model.splits.values())).logits.shape[1]
    else:
        width = _logits_of_one(case, candidate, model, device)
    if width < 2:
        raise InputError(
            f"{model.provenance.name}: gives {width} logit per example; "
            "unaudit needs one logit per class (for a sigmoid z, the two logits 0 and z)"
        )
    return int(width)


def _logits_of_one(
    case: Case, candidate: Candidate, model: LoadedModel, device: torch.device
) -> int:
    forget = case.splits["forget"]
    inputs = next(forget.dataset.batches(forget.rows[:1], 1)).to(device)
    with on_device(model.module, device) as module, torch.inference_mode():
        if case.task == "language-modeling":
            with explained(candidate, inputs):
                return vocabulary_of(module, inputs)
        return network_logits(module, inputs, candidate).shape[1]
