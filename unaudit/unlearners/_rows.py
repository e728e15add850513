"""Rows of logits: one per example of a classifier, one per predicted token of a language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unaudit.tokens import predicts_tokens
from unaudit.training.likelihood import texts_at_once
from unaudit.unlearners.contract import Task, head_of


def of_rows(network: nn.Module, inputs: Tensor, values: Tensor) -> Tensor:
    """(rows,) for each row of ``network(inputs)`` the value of its example, on its device.

    Args:
        network: a classifier or a language model.
        inputs: (b, …).
        values: (b,) on any device.
    """
    values = values.to(inputs.device)
    if not predicts_tokens(network):
        return values
    reads: Any = network
    return values.repeat_interleave(reads.counts(inputs))


def n_outcomes(task: Task) -> int:
    """What a uniform guess chooses among: classes, or words of the vocabulary."""
    if task.kind == "classification":
        return task.n_classes
    beginning = task.inputs[task.forget_rows[:1], :2]
    with torch.no_grad():
        return int(task.original(beginning).shape[1])


def at_once(task: Task, most: int) -> int:
    """Examples of a forward pass: ``most``, or fewer where they are long texts."""
    if task.kind == "classification":
        return most
    return min(most, texts_at_once(task.inputs.shape[1]))


def own_head(student: nn.Module, name: str | None) -> nn.Linear:
    """The head of a network, which shares no weight with the rest from now on.

    In many language models the matrix that embeds words also makes the logits; to train one of the
    two alone, they must be two.

    Raises:
        InputError: see :func:`unaudit.unlearners.contract.head_of`.
    """
    head = head_of(student, name)
    places = [weight for _, weight in student.named_parameters(remove_duplicate=False)]
    if sum(weight is head.weight for weight in places) > 1:
        head.weight = nn.Parameter(head.weight.detach().clone())
    return head
