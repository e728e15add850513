"""Low-rank updates of linear and convolution layers (Hu et al. 2021), merged at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Kinds of layers whose weight can be updated."""


class LowRank:
    """W + B·A for some layers of a network whose own weights stay as they are until the merge.

    A weight of shape (out, …) counts as a matrix with ``out`` rows. B is 0 at first: nothing
    changes before training.
    """

    def __init__(
        self, network: nn.Module, layers: Iterable[str], rank: int, generator: torch.Generator
    ) -> None:
        """
        Args:
            network: frozen; changed by :meth:`merge` alone.
            layers: names of its :data:`ADAPTABLE` layers.
            rank: of the updates, or the layer's own if that is smaller.
            generator: draws A, as PyTorch draws linear layers.
        """
        self.network = network
        self.factors: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        """(B, A) by name of the weight."""
        for layer in layers:
            weight = network.get_parameter(f"{layer}.weight")
            rows, columns = len(weight), weight[0].numel()
            size = min(rank, rows, columns)
            drawn = nn.init.kaiming_uniform_(
                torch.empty(size, columns), a=math.sqrt(5), generator=generator
            )
            self.factors[f"{layer}.weight"] = (
                nn.Parameter(weight.new_zeros(rows, size)),
                nn.Parameter(drawn.to(weight)),
            )

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [factor for pair in self.factors.values() for factor in pair]

    def weights(self) -> dict[str, Tensor]:
        """The updated weights by name; gradients flow to the updates alone."""
        updated = {}
        for name, (up, down) in self.factors.items():
            weight = self.network.get_parameter(name).detach()
            updated[name] = weight + (up @ down).view_as(weight)
        return updated

    def __call__(self, inputs: Tensor) -> Tensor:
        """What the network gives with updated weights; hooks of its layers run as usual."""
        output: Tensor = functional_call(self.network, self.weights(), (inputs,))
        return output

    def hidden(self, inputs: Tensor) -> Tensor:
        """(rows, d) what the head of a language model would be given with updated weights."""
        body = _Body(self.network)
        weights = {f"network.{name}": weight for name, weight in self.weights().items()}
        states: Tensor = functional_call(body, weights, (inputs,))
        return states

    def merge(self) -> None:
        """Put the updates into the network's own weights."""
        with torch.no_grad():
            for name, weight in self.weights().items():
                self.network.get_parameter(name).copy_(weight)


class _Body(nn.Module):
    """A language model without its head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor) -> Tensor:
        reads: Any = self.network
        states: Tensor = reads.hidden(ids)
        return states
