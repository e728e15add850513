"""References that are none: made from the original, or copies of each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.test_case import case_in, folder
from unaudit.case import Case
from unaudit.errors import UsageError
from unaudit.fidelity import MADE
from unaudit.lineage import doubtful_references
from unaudit.loading import LoadedModel

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


def with_base(folder: Path, source: str) -> Case:
    case = case_in(folder)
    return replace(case, base=load_file(folder / f"{source}.safetensors"))


def test_a_base_that_came_from_the_original_is_doubted(folder: Path) -> None:
    nudged(folder, "original", "base", 0.01, 0)
    (reason,) = doubtful_references(with_base(folder, "base"))
    assert "recipe.base" in reason
    nudged(folder, "original", "base", 100.0, 0)
    assert doubtful_references(with_base(folder, "base")) == ()


def test_small_steps_from_one_base_are_no_copies(folder: Path) -> None:
    """References that were made here have seeds of their own, however little they moved."""
    nudged(folder, "r1", "r2", 1e-6, 0)
    case = case_in(folder)
    made = tuple(
        replace(
            one,
            model=replace(one.model, provenance=replace(one.model.provenance, notes=(MADE,))),
        )
        for one in case.retrained
        if isinstance(one.model, LoadedModel)
    )
    doubtful_references(replace(case, retrained=made))


def test_other_layers_cannot_be_compared(folder: Path) -> None:
    case = case_in(folder)
    model = case.retrained[0].model
    assert isinstance(model, LoadedModel)
    other = replace(case.retrained[0], model=replace(model, module=torch.nn.Linear(4, 3)))
    (reason,) = doubtful_references(replace(case, retrained=(other, case.retrained[1])))
    assert "other layers" in reason
