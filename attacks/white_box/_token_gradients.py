"""Norms of the gradient of a text's mean loss per token for the head of a language model.

The gradient is a sum of outer products over the tokens, G = 1/T Σ_t δ_t h_tᵀ with δ_t = p_t − x_t
and h_t what the head is given. A linear layer that sees several positions has one of this form, so
its rule holds (see ``_outer_products``): ‖G‖² = 1/T² Σ_st (δ_s·δ_t)(h_s·h_t).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.white_box._gradients import ELEMENTS_AT_ONCE, overheard
from attacks.white_box._outer_products import rule_for
from unaudit.evidence import FloatArray, IntArray, SplitName

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox


def head_scores(view: WhiteBox) -> Callable[[SplitName, IntArray], FloatArray]:
    """Minus the log norms of rows of a split; texts are read whole, long ones in windows."""
    network = view.private_copy()
    head = network.get_submodule(view.head.name)
    assert isinstance(head, nn.Linear)

    def score(split: SplitName, rows: IntArray) -> FloatArray:
        norms = [log_text_norms(network, head, ids) for ids in view.inputs(split, rows)]
        return np.asarray(-torch.cat(norms).cpu().numpy())

    return score


def log_text_norms(network: nn.Module, head: nn.Linear, ids: Tensor) -> Tensor:
    """(b,) float64 log norms of the gradient of the mean loss per token for the head's weights.

    Where the head shares them with an embedding, only what they do in the head counts.

    Args:
        network: a language model in eval mode whose parameters are trainable.
        head: of the network.
        ids: (b, t) token ids, padded.
    """
    model: Any = network
    with torch.no_grad():
        hidden = model.hidden(ids)
    sizes = model.counts(ids).tolist()
    texts = zip(hidden.split(sizes), model.targets(ids).split(sizes), strict=True)
    return torch.stack([_log_norm(model, head, *text) for text in texts])


def _log_norm(model: Any, head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Of one text: (T, d) what the head is given and (T,) the tokens that follow."""
    # logits as many as the head has weights are never too many
    most = max(1, head.in_features, ELEMENTS_AT_ONCE // head.out_features)
    if len(hidden) > most:
        found = _formed(model, head, hidden, targets, most)
    else:
        back = _back(model, head, hidden, targets)
        # what comes back of a text that was learned by heart has squares too small to hold
        scale = back.abs().amax().clamp(min=torch.finfo(back.dtype).tiny)
        rule = rule_for(head)
        assert rule is not None
        squared = rule(head, hidden[None], (back / scale)[None])[0]
        found = _log(squared) / 2 + scale.double().log()
    return found - math.log(len(hidden))


def _formed(model: Any, head: nn.Linear, hidden: Tensor, targets: Tensor, most: int) -> Tensor:
    """The same from the gradient itself, ``most`` tokens at a time; not yet divided by T."""
    weight = torch.zeros_like(head.weight)
    shift = hidden.new_zeros(head.out_features)
    for rows, tokens in zip(hidden.split(most), targets.split(most), strict=True):
        back = _back(model, head, rows, tokens)
        weight = weight.detach().addmm_(back.T, rows)
        shift += back.sum(dim=0)
    parts = [weight] if head.bias is None else [weight, shift]
    scale = torch.stack([part.abs().amax() for part in parts]).amax()
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    squared = torch.stack([(part / scale).square().sum() for part in parts]).sum()
    return _log(squared) / 2 + scale.double().log()


def _back(model: Any, head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """(k, V) gradient of the summed loss of some tokens for the head's output."""
    with torch.enable_grad(), overheard([head]) as heard:
        logits = model.logits_of(hidden)
    ((_, output),) = heard[id(head)]
    with torch.no_grad():
        residual = logits.log_softmax(dim=1).exp()
        place = targets[:, None]
        # p − 1 of the true token is what the others have together: 1 − p would round to 0
        residual.scatter_(1, place, 0.0)
        residual.scatter_(1, place, -residual.sum(dim=1, keepdim=True))
    # some families cap or scale what the head puts out
    found: Tensor = torch.autograd.grad(logits, output, residual)[0]
    return found


def _log(squared: Tensor) -> Tensor:
    return squared.double().clamp(min=torch.finfo(torch.float64).tiny).log()
