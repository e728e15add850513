"""What every part of the record is made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from unaudit.evidence import Outcome, ProbeOutcome

__all__ = ["Interval", "Outcome", "Part", "ProbeOutcome", "Rate", "Role"]

Role = Literal["subject", "original", "retrained", "calibrator"]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class Part(BaseModel):
    """A frozen part of the record; unknown keys are refused, NaN and infinity too."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_lone_surrogates(cls, value: Any) -> Any:
        # a file name that is not UTF-8 reaches Python with surrogates, which JSON cannot carry
        return _encodable(value)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (
            tuple(map(_encodable, value))
            if isinstance(value, tuple)
            else list(map(_encodable, value))
        )
    return value


class Interval(Part):
    """An estimate with a two-sided interval; an end is null where the data do not bound it."""

    estimate: float
    low: float | None
    high: float | None
    level: Rate
    """Two-sided level, 1 − 2α: either end alone holds with confidence 1 − α."""
