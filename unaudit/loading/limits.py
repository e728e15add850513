"""How much a model file may ask for before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds that honest files stay far below; crossing one is exit code 4."""

    file_bytes: int = 16 << 30
    """Size of the whole file, bytes."""
    parameters: int = 4_000_000_000
    """Numbers in all tensors together, shared ones counted once per name."""
    tensors: int = 100_000
    """Named tensors."""
    dimensions: int = 16
    """Axes of one tensor."""
    members: int = 200_000
    """Entries of a zip archive."""
    index_bytes: int = 64 << 20
    """A pickle, a safetensors header or a zip directory, bytes: what is parsed in Python."""
    opcodes: int = 1_000_000
    """Instructions of a pickle; also bounds its memo."""
    nesting: int = 256
    """Containers within containers."""
    names: int = 4_096
    """Different classes and functions that a pickle mentions."""
    recorded_bytes: int = 8 << 30
    """All arrays of recorded outputs together, uncompressed, bytes."""
