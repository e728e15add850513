"""Whether an unlearned model is still a model: what unbounded ascent can end in."""

from __future__ import annotations

from torch import Tensor, nn

from unaudit.training import DivergedError
from unaudit.training.likelihood import by_rows
from unaudit.unlearners._rows import at_once
from unaudit.unlearners.contract import Task

BATCH = 1024
"""Examples per forward pass."""


def check_alive(student: nn.Module, task: Task, name: str, least: float = 0.5) -> None:
    """Refuse a model that lost what it was to keep.

    For those who hand the model on; a method itself returns what it made, collapsed or not, so
    that it can be looked at.

    Args:
        student: on the device of the task; its mode is put back.
        task: whose retain examples are classified, by the original as well.
        name: of the method, for the message.
        least: share of the original's accuracy that must be left, in (0, 1].

    Raises:
        DivergedError: less is left.
    """
    before, now = retain_accuracy(task.original, task), retain_accuracy(student, task)
    if now < least * before:
        raise DivergedError(
            f"{name} collapsed: retain accuracy {now:.2f} (original {before:.2f}); lower lr"
        )


def retain_accuracy(module: nn.Module, task: Task) -> float:
    """Share of the retain examples that are classified right, or of their tokens that are the most
    probable ones, in eval mode; NaN is never right."""
    training = module.training
    module.eval()
    right = total = 0
    try:
        for rows in task.retain_rows.split(at_once(task, BATCH)):
            hits = by_rows(module, task.inputs[rows], task.labels[rows], _hits)
            right += int(hits.sum())
            total += len(hits)
    finally:
        module.train(training)
    return right / total


def _hits(logits: Tensor, truths: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == truths) & logits.isfinite().all(dim=1)
