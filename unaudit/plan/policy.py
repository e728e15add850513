"""What counts as a pass, and how an audit is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from unaudit.evidence import Access
from unaudit.plan.section import Fraction, Location, Positive, Section

TAU_PRESETS: Mapping[str, float] = {"strict": 0.2, "standard": 0.5, "screening": 0.75}


class PolicySection(Section):
    """What counts as a pass; fixed before the run and hashed into the record."""

    preset: Literal["strict", "standard", "screening"] = "standard"
    tau: Fraction | None = None
    """Equivalence margin on the residual index. Default: the preset's (0.2, 0.5, 0.75)."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Family-wise error rate; intervals are drawn at level 1 − 2α, so that their upper end holds at
    1 − α."""
    access: Access | None = None
    """What the probes may see: outputs alone, or activations and weights as well. Default: the
    latter where weights and references are at hand."""
    accept_black_box: bool = False
    """Let a black-box audit pass although refitting the last layer can fake its evidence."""
    fail_on: Literal["fail", "inconclusive"] = "inconclusive"
    """From which outcome on ``check`` ends with an exit code other than 0."""

    @model_validator(mode="after")
    def _one_margin(self) -> PolicySection:
        named = "preset" in self.model_fields_set and self.tau is not None
        if named and self.tau != TAU_PRESETS[self.preset]:
            raise ValueError(f"tau = {self.tau:g} contradicts preset = '{self.preset}'; give one")
        return self

    @property
    def margin(self) -> float:
        """τ: the explicit value, else the preset's."""
        return TAU_PRESETS[self.preset] if self.tau is None else self.tau


class RunSection(Section):
    """How to run; nothing here may change a number."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    bootstrap: Annotated[int, Field(ge=200, le=100_000)] = 2000
    """Joint bootstrap replicates."""
    batch_size: Positive = 256
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``; scoring is float32 on each."""
    engine: str = "local"
    """Where models are trained: ``local``, ``ray`` or ``ray:ADDRESS``; the same jobs and results
    on each."""
    store: Location | None = None
    """Folder of the cache. Default: ``UNAUDIT_STORE`` or the platform's cache folder."""
    out: Location = "unaudit-audit"
    """Folder for the record and the reports."""
    formats: tuple[str, ...] = ("html", "pdf")
    """What to render besides ``record.json``, each ``format`` or ``format:path``."""
    show_examples: bool = False
    """Whether texts of single examples are written into the record and the reports."""
