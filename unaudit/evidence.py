"""What probes return, and what a probe is.

A probe never decides anything: it maps a view of one model to :class:`Scores` or :class:`Scalar`.
Everything it returns has one sign, **higher = more remembered**.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from unaudit.registry import Registry

if TYPE_CHECKING:
    from unaudit.views import BlackBox
    from unaudit.white_box import WhiteBox

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

SplitName: TypeAlias = Literal["forget", "retain", "unseen", "validation"]
Scenario: TypeAlias = Literal["class", "partial-class", "sample"]
Access: TypeAlias = Literal["black-box", "white-box"]
Task: TypeAlias = Literal["classification", "language-modeling"]
"""What the models of a case do: give logits of classes, or predict the next token of texts."""
Family: TypeAlias = Literal[
    "membership", "output-distance", "representation", "recoverability", "utility"
]
Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
"""What an audit ends with."""
ProbeOutcome: TypeAlias = Literal[
    "like-retrained",
    "not-residual",
    "residual",
    "over-unlearned",
    "inconclusive",
    "not-informative",
]
"""What one probe, or a family of them, amounts to."""
Statistic: TypeAlias = Literal["mean", "auc", "mean-difference"]
"""How per-example scores become the measure m: mean over forget · AUC of forget against unseen ·
mean over forget minus mean over unseen."""

SCENARIOS: frozenset[Scenario] = frozenset({"class", "partial-class", "sample"})
CLASSIFICATION: frozenset[Task] = frozenset({"classification"})
LANGUAGE_MODELING: frozenset[Task] = frozenset({"language-modeling"})
ANY_TASK = CLASSIFICATION | LANGUAGE_MODELING
FAMILIES: tuple[Family, ...] = (
    "membership",
    "output-distance",
    "representation",
    "recoverability",
    "utility",
)


@dataclass(frozen=True, eq=False)
class Scores:
    """One score per example, higher = more remembered."""

    forget: FloatArray
    """(n_forget,) float64."""
    unseen: FloatArray | None = None
    """(n_unseen,) float64: never-trained examples, scored out of sample."""
    retain: FloatArray | None = None
    """(n_retain,) float64: kept training examples, scored out of sample; the in-model positive
    control."""
    statistic: Statistic = "mean"
    rows: Mapping[SplitName, IntArray] = field(default_factory=dict)
    """Which examples of a split were scored, as positions in it; a split that is not named here was
    scored whole and in order. Scores of different models pair up through these rows."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON-compatible extras for the report. ``unit: nats`` says that scores are log-likelihood
    ratios, which add up over the records of a group."""


@dataclass(frozen=True, eq=False)
class Scalar:
    """One number for the whole forget set, higher = more remembered."""

    value: float
    stderr: float | None = None
    """Standard error of ``value`` from all that ``influences`` do not carry: the probe's own
    training, and the examples where there are none."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON-compatible extras for the report."""
    influences: Mapping[SplitName, FloatArray] = field(default_factory=dict)
    """Influence of examples on ``value``, (k,) per split: drawn again, it would move by the mean
    influence of the examples drawn. Models that saw the same examples then pair up."""
    rows: Mapping[SplitName, IntArray] = field(default_factory=dict)
    """Which examples of a split these are, as positions in it; default: all, in order."""


@dataclass(frozen=True)
class Skipped:
    """The probe cannot run here; ``reason`` is printed in the report."""

    reason: str


@dataclass(frozen=True)
class Errored:
    """The probe broke; ``reason`` is printed in the report. It can never make a pass."""

    reason: str


Evidence: TypeAlias = Scores | Scalar | Skipped


@dataclass(frozen=True)
class ProbeCard:
    """What a reader must know of a probe before trusting its number."""

    name: str
    """Registered name, as in ``unaudit probes NAME``."""
    title: str
    """Short name for tables, at most 28 characters."""
    family: Family
    measures: str
    """One or two sentences: what the number is, and what high and low mean."""
    source: str
    """Paper, section, equation."""
    cost: str
    """In units of a forward pass, or in seconds per thousand examples."""
    blind_spots: tuple[str, ...]
    """What this probe cannot see, one sentence each."""
    access: Access = "black-box"
    needs: frozenset[SplitName] = frozenset()
    """Splits besides ``forget`` without which the probe is skipped."""
    scenarios: frozenset[Scenario] = SCENARIOS
    tasks: frozenset[Task] = CLASSIFICATION
    """Models of which tasks the probe reads."""
    comparative: bool = False
    """Whether the probe is called with a retrained reference as second view."""
    unsigned: bool = False
    """A distance: a high value says 'different from retrained', not in which direction."""
    asks: Literal["canaries", "relabeling"] | None = None
    """What the request must hold for the probe to run. Such a probe speaks of a part or of a side
    effect of what was asked, so it counts on its own and stays out of its family's pool: it can add
    evidence of retention, and cannot dilute that of others."""
    shadows: Literal["trained", "unlearned"] | None = None
    """Shadow models without which the probe is skipped: as trained, or unlearned as well."""


@runtime_checkable
class BlackBoxProbe(Protocol):
    """Sees the outputs of one model."""

    card: ClassVar[ProbeCard]

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence: ...


@runtime_checkable
class ComparativeProbe(Protocol):
    """Sees the outputs of one model and of one retrained reference."""

    card: ClassVar[ProbeCard]

    def __call__(
        self, view: BlackBox, reference: BlackBox, rng: np.random.Generator
    ) -> Evidence: ...


@runtime_checkable
class WhiteBoxProbe(Protocol):
    """Sees activations and weights of one model, and may train copies of it."""

    card: ClassVar[ProbeCard]

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Evidence: ...


@runtime_checkable
class ComparativeWhiteBoxProbe(Protocol):
    """Sees the inside of one model and of one retrained reference."""

    card: ClassVar[ProbeCard]

    def __call__(
        self, view: WhiteBox, reference: WhiteBox, rng: np.random.Generator
    ) -> Evidence: ...


Probe: TypeAlias = BlackBoxProbe | ComparativeProbe | WhiteBoxProbe | ComparativeWhiteBoxProbe

PROBES: Registry[type[Probe]] = Registry("probe", "unaudit.probes")
