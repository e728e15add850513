"""Which versions of which libraries decide what a network computes."""

from __future__ import annotations

from importlib.metadata import version

import torch


def libraries(arch: str | None) -> str:
    """torch, and transformers where a network is of its making.

    Args:
        arch: spec of the network.
    """
    own = str(torch.__version__)
    if arch is not None and arch.startswith(("hf:", "hf-config:")):
        return f"{own}, transformers {version('transformers')}"
    return own
