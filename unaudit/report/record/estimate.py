"""What a retrained model would still get right, as estimated without one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from unaudit.report.record.base import Part, Rate


class RetrainedEstimate(Part):
    """The share of the forget examples that a model trained without them would classify right,
    estimated from the original and validation examples alone. The verdict does not depend on it."""

    value: Rate | None
    """Null if there is no estimate; so are the next four."""
    stderr: Annotated[float, Field(ge=0.0)] | None
    """Standard error of ``value`` as a guess at one retrained model's share, from the numbers of
    examples alone."""
    error: Rate | None
    """Cross-validated share of validation examples of which the method says wrongly whether a model
    that never saw them gets them right."""
    plain: Rate | None
    """For comparison: the original's accuracy on the validation examples, in the class mix of the
    forget set."""
    examples: Annotated[float, Field(gt=0.0)] | None
    """Number of validation examples of equal weight that the estimate rests on."""
    validation: Annotated[int, Field(ge=0)]
    """Number of validation examples."""
    method: str
    recipe_given: bool
    """False: a recipe was assumed that is usual for this kind of network."""
    reason: str | None
    """Why there is no estimate, in one line."""
    truth: Rate | None
    """Mean forget accuracy of the retrained models; null without any."""
    retrained: Annotated[int, Field(ge=0)]
    """Number of them."""

    @model_validator(mode="after")
    def _numbers_or_a_reason(self) -> RetrainedEstimate:
        numbers = (self.value, self.stderr, self.error, self.plain, self.examples)
        if any((number is None) == (self.reason is None) for number in numbers):
            raise ValueError("either all numbers of an estimate are given, or the reason why not")
        if (self.truth is None) != (self.retrained == 0):
            raise ValueError("the truth is known where there are retrained models, and only there")
        return self
