"""Inputs that a network is run on for the sake of what it does, not of what it says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unaudit.tokens import are_present, are_tokens


def unlike(inputs: Tensor, network: nn.Module) -> Tensor:
    """(1, …) an input unlike the real ones, so that what leaks around a cut shows.

    Args:
        inputs: (n, …) real examples; of texts, the tokens are taken, in an order of chance.
        network: that will be given it.
    """
    generator = torch.Generator().manual_seed(0)
    if are_tokens(inputs):
        known = torch.unique(inputs[are_present(inputs)].cpu())
        # what a network itself takes for padding would end the text
        free = known[known != getattr(network, "filler", None)]
        known = free if len(free) else known
        chosen = torch.randint(len(known), (1, inputs.shape[1]), generator=generator)
        return torch.take(known, chosen).to(inputs)
    noise = torch.randn(inputs.shape[1:], generator=generator).to(inputs)
    spread = inputs.std() if inputs.numel() > 1 else inputs.abs().max()
    return (inputs.mean() + noise * spread.clamp(min=1e-3)).unsqueeze(0)
