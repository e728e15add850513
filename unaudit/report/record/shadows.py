"""Shadow models: what attacks with them rest on, and what stands out most."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unaudit.report.record.base import Interval, Part, Rate


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
    text: str | None = None
    """How the example begins, on one line; null unless ``run.show_examples`` asked for texts."""


class Worst(Part):
    """The forget examples that one attack finds most like training examples."""

    probe: str
    title: str
    unseen: Annotated[int, Field(ge=1)]
    """Unseen examples that they are held against."""
    examples: tuple[WorstExample, ...]
    """Highest score first."""


class ExposedGroup(Part):
    """The forget records of one group, such as a person, on the subject."""

    name: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """As of a worst example, the id being ``group``, a tab, and the group as the data name it."""
    records: Annotated[int, Field(ge=1)]
    """Rounded down to a power of two: exact numbers would tell people apart to whoever has the
    data."""
    score: float
    """Sum of the records' scores in nats, to three digits."""
    above_unseen: Rate | None
    """Share of the unseen groups that lie lower, sums of groups of different size made comparable,
    ties counted as half; null without such a reference."""


class GroupEvidence(Part):
    """What one attack says of all forget records of a group at once. It decides nothing."""

    probe: str
    title: str
    groups: Annotated[int, Field(ge=1)]
    """With at least one forget record that was scored."""
    records: Annotated[int, Field(ge=1)]
    """Forget records that were scored."""
    unseen_groups: Annotated[int, Field(ge=0)]
    """Of which no record is in the training data."""
    no_reference: str | None
    """Why groups are not held against unseen ones; null if they are."""
    auc: Interval | None
    """Of forget groups against unseen groups; null without a reference or with fewer than 20 forget
    groups."""
    exposed: tuple[ExposedGroup, ...]
    """The ten that stand out most, first the one that does most."""
