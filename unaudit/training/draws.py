"""What draws from PyTorch's global generators, such as dropout, kept from the rest of a program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def unnoticed(device: torch.device) -> AbstractContextManager[None]:
    """The global generators of the CPU and of ``device`` are afterwards as they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def own_draws(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Whatever draws from the global generators follows ``generator`` here, and leaves no trace.

    ``generator`` itself draws nothing for it: what does not draw globally is as it would be without
    this. No two threads of a process may be in here at once, for all share the global generators.

    Args:
        generator: on the CPU; its state decides every draw.
        device: where networks run, besides the CPU.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator.clone_state()))
    with unnoticed(device):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
