"""Which models are trained, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from unaudit.plan.section import Location, Positive, Section

LEAST_SHADOWS = 4
"""Of these, an example is in two."""


class RecipeSection(Section):
    """How the original was trained, so that references can be trained in the same way. What is left
    open is filled in by what is usual for the kind of network."""

    kind: Literal["sgd", "adam", "adamw"] | None = None
    """The optimizer."""
    lr: Annotated[float, Field(gt=0.0)] | None = None
    """Initial learning rate."""
    epochs: Positive | None = None
    batch: Positive | None = None
    """Examples per step."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] | None = None
    schedule: Literal["constant", "cosine"] | None = None
    precision: Literal["float32", "bf16"] | None = None
    augment: Literal["none", "flip", "crop-flip"] | None = None
    """Of images: mirror, or pad by 4 pixels, crop and mirror."""
    base: Location | None = None
    """A model whose weights training starts from, of the same architecture: originals, retrained
    and shadow models alike. Layers that it does not fit, such as a head of other classes, start
    from random weights. It must never have seen the forget set. Default: random weights."""


class CalibrationSection(Section):
    """Which models of known truth are made from the recipe."""

    profile: Literal["smoke", "standard", "full"] = "standard"
    """How many retrained models (3, 5, 10), and which unlearners (two, five, all)."""
    retrained: Positive | None = None
    """Retrained models to train. Default: the profile's."""
    unlearners: tuple[str, ...] | None = None
    """Which make calibrators. Default: the profile's."""
    workers: Positive | None = None
    """Processes that train side by side. Default: one per core."""


class ShadowsSection(Section):
    """Shadow models: trained by the recipe on random halves of the examples in question, so that
    attacks can tell members from others example by example."""

    count: Annotated[int, Field(ge=0, le=100_000)] = 0
    """How many; 0: none, and no attack that needs them. 64 are usual, 4 the least."""
    unlearner: str | None = None
    """The method by which the subject is said to have unlearned, so that shadow models go through
    it as well. Default: unknown, and no U-LiRA."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Hyperparameters of that method, where they are not its defaults."""
    queries: Annotated[tuple[str, ...], Field(min_length=1)] = ("plain",)
    """How each example is shown to a model: ``plain``, first, and for images ``flip`` and
    ``shift dx,dy``; more queries give sharper attacks."""
    max_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """Time that training shadow models may take on this machine; their number is cut to fit."""

    @field_validator("count")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < LEAST_SHADOWS:
            raise ValueError(f"{value} shadow models tell nothing; 0, or {LEAST_SHADOWS} and more")
        return value

    @field_validator("queries")
    @classmethod
    def _plain_first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value[0] != "plain" or len(set(value)) < len(value):
            raise ValueError("queries start with 'plain' and name each other one once")
        return value
