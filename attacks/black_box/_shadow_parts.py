"""The examples that an attack with shadow models scores, and how the models stand to them.

What is compared is the logit-scaled confidence in the truth. Of a text it is that in its tokens on
average: log c − log(1 − c) with c the geometric mean of their probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from attacks.black_box._likelihood import Examples, Mask, Scored
from attacks.black_box._selection import (
    MIN_EXAMPLES,
    absent,
    partial_rows,
    rows_of_forget_classes,
)
from unaudit.errors import UsageError
from unaudit.evidence import (
    FloatArray,
    IntArray,
    Probe,
    ProbeCard,
    Scores,
    Skipped,
    SplitName,
    Statistic,
)
from unaudit.shadows import Shadows, ShadowScores
from unaudit.views import BlackBox

Choose: TypeAlias = Callable[[ShadowScores], "tuple[Scored, tuple[Mask, ...]] | None"]
"""From a split's shadow scores to (m, q, n) scores and (m, n) arms; None: not there."""


@dataclass(frozen=True, eq=False)
class Part:
    """The scored examples of one split."""

    rows: IntArray
    """(k,) positions in the split, ascending."""
    examples: Examples


@dataclass(frozen=True, eq=False)
class Parts:
    """Forget, unseen and, where shadow models left some of it out, retain."""

    shadows: Shadows
    splits: Mapping[SplitName, Part]
    left_out: int
    """Forget examples without enough shadow models in every arm."""

    @property
    def examples(self) -> list[Examples]:
        return [part.examples for part in self.splits.values()]

    def models_per_arm(self) -> list[float]:
        """Mean number of shadow models per scored example, by arm."""
        sizes = []
        for arms in zip(*(part.examples.arms for part in self.splits.values()), strict=True):
            of_splits = [
                _sizes(arm, part.examples.columns)
                for arm, part in zip(arms, self.splits.values(), strict=True)
            ]
            sizes.append(round(float(np.concatenate(of_splits).mean()), 2))
        return sizes

    def scores(
        self,
        view: BlackBox,
        by_split: Mapping[SplitName, FloatArray],
        statistic: Statistic,
        detail: Mapping[str, Any],
    ) -> Scores:
        """The answer of an attack: (k,) scores of every part, in order."""
        rows = {split: part.rows for split, part in self.splits.items()}
        some = {"forget_left_out": self.left_out} if self.left_out else {}
        return Scores(
            forget=by_split["forget"],
            unseen=by_split["unseen"],
            retain=by_split.get("retain"),
            statistic=statistic,
            rows=partial_rows(view, rows),
            detail={**detail, **some},
        )


def compared_parts(card: ProbeCard, view: BlackBox, choose: Choose, least: int) -> Parts | Skipped:
    """Forget examples, and unseen and retain examples of their classes, that can be scored.

    Args:
        choose: what of the shadow models is compared.
        least: shadow models that every arm of a scored example has.

    Returns:
        The reason to skip where a split or the shadow models are missing, or where too few examples
        have enough shadow models.
    """
    if (skip := absent(card, view)) is not None:
        return skip
    if view.shadows is None:
        return Skipped("needs shadow models; add --shadows N")
    splits: dict[SplitName, Part] = {}
    candidates: tuple[SplitName, ...] = ("forget", "unseen", "retain")
    for split in candidates:
        part = _part(view, view.shadows, split, choose, least) if split in view.splits else None
        needed = {"forget": 1, "unseen": MIN_EXAMPLES, "retain": MIN_EXAMPLES}[split]
        if part is not None and len(part.rows) >= needed:
            splits[split] = part
        elif split != "retain":
            return too_few_models(0 if part is None else len(part.rows), split, needed, least)
    left_out = len(view.predictions("forget")) - len(splits["forget"].rows)
    return Parts(view.shadows, splits, left_out)


def too_few_models(found: int, split: SplitName, needed: int, least: int) -> Skipped:
    """The reason to skip where too few examples have enough shadow models in every arm."""
    of_classes = "" if split == "forget" else " of the forget classes"
    plural = "s" if least > 1 else ""
    return Skipped(
        f"needs at least {needed} {split} example{'s' if needed > 1 else ''}{of_classes} with at "
        f"least {least} shadow model{plural} in each arm, found {found}; train more shadow models "
        "(--shadows N)"
    )


def require_choice(probe: Probe, field: str, choices: tuple[str, ...]) -> None:
    """Refuse a parameter that is none of the words in ``choices``.

    Raises:
        UsageError: names the key in the configuration.
    """
    value = getattr(probe, field)
    if value not in choices:
        words = ", ".join(f"'{word}'" for word in choices[:-1]) + f" or '{choices[-1]}'"
        raise UsageError(f"probes.{probe.card.name}.{field} must be {words} (got {value!r:.40})")


def counted(number: int, thing: str) -> str:
    """``1 query``, ``2 queries``; ``64 shadows``."""
    if number == 1:
        return f"1 {thing}"
    return f"{number} {thing[:-1]}ies" if thing.endswith("y") else f"{number} {thing}s"


def _part(
    view: BlackBox, shadows: Shadows, split: SplitName, choose: Choose, least: int
) -> Part | None:
    known = shadows.splits.get(split)
    chosen = None if known is None else choose(known)
    if known is None or chosen is None:
        return None
    scores, arms = chosen
    enough = np.isin(known.rows, rows_of_forget_classes(view, split))
    for arm in arms:
        enough &= _sizes(arm, None) >= least
    columns = None if enough.all() else np.flatnonzero(enough)
    rows = known.rows if columns is None else known.rows[columns]
    own = view.queries(split)[:, rows]
    return Part(rows, Examples(own, scores, arms, columns))


def _sizes(arm: Mask, columns: IntArray | None) -> IntArray:
    """(k,) shadow models of one arm."""
    sizes = np.count_nonzero(arm, axis=0)
    return np.asarray(sizes if columns is None else sizes[columns], dtype=np.int64)
