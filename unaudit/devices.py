"""Where networks run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unaudit.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA where there is one.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"device '{name:.40}' is not available here; use --device cpu") from None
    return device


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """The module on ``device`` and in eval mode, put back on the CPU afterwards."""
    module.eval()
    module.to(device)
    try:
        yield module
    finally:
        module.to("cpu")
