"""Cases of known truth for tests of calibration and verdict: no files, no networks."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from unaudit.evidence import BlackBoxProbe, Family, FloatArray, ProbeCard, Scores, Statistic
from unaudit.measuring import Measurement, Reading

if TYPE_CHECKING:
    from unaudit.case import Case


class Sized:
    """Stands for a split: only its length is asked for."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


def case_of(
    *, forget: int = 200, unseen: int = 400, retain: int = 800, retrained: int = 5,
    original: bool = True, scenario: str = "sample",
) -> Case:  # fmt: skip
    """A case with as many examples and references as said."""
    splits = {"forget": Sized(forget), "unseen": Sized(unseen), "retain": Sized(retain)}
    return cast(
        "Case",
        SimpleNamespace(
            splits=splits,
            scenario=scenario,
            mix_differs=False,
            original=object() if original else None,
            retrained=(object(),) * retrained,
            shadows=None,
        ),
    )


def probe_of(name: str = "toy", family: Family = "membership", **card: Any) -> BlackBoxProbe:
    """A probe that is never run: its card is what matters."""

    class Toy:
        card: ClassVar[ProbeCard]

        def __call__(self, view: object, rng: np.random.Generator) -> Scores:
            raise AssertionError("never run")

    Toy.card = ProbeCard(
        name=name, title=name, family=family, measures="m", source="s", cost="c",
        blind_spots=(), **card,
    )  # fmt: skip
    return cast(BlackBoxProbe, Toy())


def measurement_of(
    subject: Scores,
    original: Scores | None,
    retrained: Sequence[Scores],
    probe: BlackBoxProbe | None = None,
) -> Measurement:
    """One answer per model."""
    return Measurement(
        probe=probe or probe_of(),
        subject=Reading((subject,)),
        original=None if original is None else Reading((original,)),
        retrained=tuple(Reading((scores,)) for scores in retrained),
    )


class ScoreWorld:
    """Scores of models that remember a share of what the original remembers.

    Examples have their own difficulty, shared by all models; each model adds training noise, common
    to all examples, and noise per example.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        effect: float = 1.0,
        spread: float = 0.1,
        noise: float = 0.3,
        forget: int = 200,
        unseen: int = 400,
        retain: int = 800,
    ) -> None:
        self.rng = rng
        self.effect, self.spread, self.noise = effect, spread, noise
        self.difficulty = {
            "forget": rng.normal(size=forget),
            "unseen": rng.normal(size=unseen),
            "retain": rng.normal(size=retain),
        }

    def model(self, remembered: float, statistic: Statistic = "auc") -> Scores:
        """A model on which the forget examples score ``remembered`` × effect higher."""
        shift = {
            "forget": remembered * self.effect + self.rng.normal() * self.spread,
            "unseen": 0.0,
            "retain": self.effect,
        }
        scores = {name: self._noisy(name) + shift[name] for name in shift}
        return Scores(statistic=statistic, **cast(Any, scores))

    def _noisy(self, name: str) -> FloatArray:
        base = self.difficulty[name]
        return np.asarray(base + self.rng.normal(size=len(base)) * self.noise)
