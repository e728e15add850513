"""Shadow models: what attacks with them rest on, and the examples that stand out most."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unaudit.report.record.base import Part, Rate


class ShadowAttack(Part):
    """One attack with shadow models."""

    probe: str
    title: str
    variant: str
    """How it was run, in one line: scores and rates of other variants cannot be compared."""
    left_out: Annotated[int, Field(ge=0)]
    """Forget examples that were not scored, for want of shadow models on either side of them."""


class ShadowModels(Part):
    """Models trained by the recipe on random halves of the examples in question."""

    models: Annotated[int, Field(ge=1)]
    train_size: Annotated[int, Field(ge=0)]
    """Examples that each was trained on."""
    queries: tuple[str, ...]
    """How every example was shown to every model: ``plain``, ``flip``, ``shift dx,dy``."""
    unlearner: str | None
    """The method that they went through as well; null if none."""
    notes: tuple[str, ...]
    """What was reached and what was given up, one sentence each."""
    attacks: tuple[ShadowAttack, ...]
    """Those that gave a finding."""


class WorstExample(Part):
    """One forget example of the subject."""

    name: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """First 16 hex digits of HMAC-SHA-512 under the auditor's key of ``request.data_sha256``, a
    space, and the example's id: without the key, nobody can tell which example this is."""
    score: float
    """To three digits: more of them would tell examples apart to whoever has the data."""
    above_unseen: Rate
    """Share of the unseen examples that score lower, ties counted as half."""


class Worst(Part):
    """The forget examples that one attack finds most like training examples."""

    probe: str
    title: str
    unseen: Annotated[int, Field(ge=1)]
    """Unseen examples that they are held against."""
    examples: tuple[WorstExample, ...]
    """Highest score first."""
