"""References that are none: made from the original, or copies of each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.test_case import case_in, folder
from unaudit.errors import UsageError
from unaudit.lineage import doubtful_references

__all__ = ["folder"]


def nudged(place: Path, source: str, target: str, scale: float, seed: int) -> None:
    """``target`` becomes ``source`` with independent noise on every weight."""
    generator = torch.Generator().manual_seed(seed)
    state = load_file(place / f"{source}.safetensors")
    for name, value in state.items():
        state[name] = value + scale * torch.randn(value.shape, generator=generator)
    save_file(state, place / f"{target}.safetensors")


def test_models_trained_apart_are_not_doubted(folder: Path) -> None:
    assert doubtful_references(case_in(folder)) == ()


def test_references_made_from_the_original_are_doubted(folder: Path) -> None:
    for seed, name in enumerate(("r1", "r2")):
        nudged(folder, "original", name, 0.05, seed)
    (reason,) = doubtful_references(case_in(folder))
    assert "closer to the original than to each other" in reason


def test_near_copies_are_refused(folder: Path) -> None:
    nudged(folder, "r1", "r2", 1e-6, 0)
    with pytest.raises(UsageError, match="almost the same weights"):
        doubtful_references(case_in(folder))


def test_one_reference_has_nothing_to_be_compared_with(folder: Path) -> None:
    only = {"retrained": [str(folder / "r1.safetensors")]}
    assert doubtful_references(case_in(folder, references=only)) == ()
