"""Where probes compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def in_double(device: torch.device) -> torch.device:
    """The device itself if it knows double precision, else the CPU."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device
