"""What every section of the plan is, and the types of its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(gt=0)]
ClassLabel = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Location = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
"""A path or ``scheme:…``; an operating system takes no NUL in either."""


class Section(BaseModel):
    """A frozen part of the plan that refuses unknown keys and takes no value for another type."""

    # strict: without it "off" would pass for a number or a switch, whichever the key wants
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _arrays_to_tuples(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
