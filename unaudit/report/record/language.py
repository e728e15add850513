"""What language models make of the texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unaudit.report.record.base import Part, Rate, Role

Perplexity = Annotated[float, Field(ge=1.0, le=1e300)]


class TextSplit(Part):
    """How much text a split holds."""

    split: Literal["forget", "retain", "unseen"]
    texts: Annotated[int, Field(ge=0)]
    tokens: Annotated[int, Field(ge=0)]
    """That are predicted: all but the first of each text."""
    longer: Annotated[int, Field(ge=0)]
    """Texts of more tokens than the context, read in overlapping windows."""


class ModelPerplexity(Part):
    """One model: exp of its mean loss per token, over all tokens of a split; null where a split is
    absent or empty."""

    model: str
    role: Role
    forget: Perplexity
    retain: Perplexity | None
    unseen: Perplexity | None


class ModelExtraction(Part):
    """One model: share of the texts of a split whose second half it continues the first with, token
    for token, if always the most probable token is taken; null where a split is absent or empty."""

    model: str
    role: Role
    forget: Rate
    retain: Rate | None
    unseen: Rate | None


class Language(Part):
    """What language models make of the texts."""

    task: Literal["language-modeling"] = "language-modeling"
    context: Annotated[int, Field(ge=1)] | None
    """Tokens that the subject takes at once; null where it sets no bound."""
    texts: tuple[TextSplit, ...]
    perplexity: tuple[ModelPerplexity, ...]
    extraction: tuple[ModelExtraction, ...]
