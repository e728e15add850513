"""Losses that several unlearners share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bounded(logits: Tensor, targets: Tensor, ceiling: float) -> Tensor:
    """Cross-entropy, averaged over the rows, each of which counts ``ceiling`` at most: there its
    gradient ends.

    Args:
        logits: (rows, C).
        targets: (rows,) int64.
        ceiling: in nats.
    """
    each = nn.functional.cross_entropy(logits, targets, reduction="none")
    return each.clamp(max=ceiling).mean()


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(teacher ‖ student) at temperature T, averaged over the examples, in nats.

    The factor keeps gradients comparable across temperatures (Hinton et al. 2015, §2). The sum
    over classes is not divided by their number, as the mean over all entries would.

    Args:
        student: (b, C) logits, gradients flow through them.
        teacher: (b, C) logits.
        temperature: above 0.
    """
    ours = torch.log_softmax(student / temperature, dim=1)
    theirs = torch.log_softmax(teacher.detach() / temperature, dim=1)
    divergence = torch.nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return divergence * temperature**2
