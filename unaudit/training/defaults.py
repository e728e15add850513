"""What a recipe leaves open is filled in by the kind of network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from unaudit.errors import UsageError
from unaudit.tokens import predicts_tokens
from unaudit.training.augment import Augmentation
from unaudit.training.recipe import Recipe

LARGE_INPUT = 64
"""Pixels of height from which an image network counts as large."""


@dataclass(frozen=True)
class Setting:
    """A recipe and the augmentation that goes with it."""

    recipe: Recipe
    augment: Augmentation = "none"


def setting_of(
    stated: Mapping[str, Any],
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    pretrained: bool = False,
) -> Setting:
    """The recipe that somebody stated, completed by what is usual for such a network.

    Attention and texts: AdamW at 1e-4, 30 epochs (DeiT's family, shortened). Convolutions: SGD at
    0.1 with cosine decay, crop and flip, 30 epochs (He et al. 2016, §4.2, shortened). Anything
    else: SGD at 0.1, 60 epochs of small batches. Language models: 32 texts at a time, for each of
    their tokens has as many logits as there are words. What starts from pretrained weights and has
    attention, or reads texts: 10 epochs at 5e-5 (RFA-LoRA §V-A). These are starting points of ours,
    not anybody's optimum; the recipe that made the original is better than all of them.

    Args:
        stated: values by the fields of :class:`Recipe`, and ``augment``.
        module: the network.
        input_shape: of one example.
        pretrained: whether training starts from given weights.

    Raises:
        UsageError: an augmentation of images is stated, and the inputs are none.
    """
    usual = _usual(module, input_shape, pretrained)
    fields = {**usual, **{key: value for key, value in stated.items() if value is not None}}
    augment = fields.pop("augment", "none")
    if augment != "none" and len(input_shape) != 3:
        texts = any(isinstance(layer, nn.Embedding) for layer in module.modules())
        kind = "texts" if texts else f"inputs of shape {input_shape}"
        raise UsageError(
            f"recipe.augment = '{augment}' is for images, and {kind} are not augmented; take it "
            "out, or set it to 'none'"
        )
    return Setting(Recipe(**fields), augment)


def _usual(module: nn.Module, input_shape: tuple[int, ...], pretrained: bool) -> dict[str, Any]:
    kinds = {type(layer) for layer in module.modules()}
    image = len(input_shape) == 3
    if kinds & {nn.MultiheadAttention, nn.Embedding}:
        pace = {"lr": 5e-5, "epochs": 10} if pretrained else {"lr": 1e-4, "epochs": 30}
        batch = 32 if predicts_tokens(module) else 128
        return {"kind": "adamw", "weight_decay": 0.05, "batch": batch, **pace}
    if any(issubclass(kind, nn.Conv2d) for kind in kinds):
        large = image and input_shape[1] >= LARGE_INPUT
        natural = image and input_shape[0] == 3
        return {
            "lr": 0.1,
            "epochs": 30,
            "batch": 256 if large else 128,
            "augment": "crop-flip" if natural else "none",
        }
    return {"lr": 0.1, "epochs": 60, "batch": 64}
