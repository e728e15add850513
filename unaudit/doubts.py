"""What speaks against the models and examples that the subject is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unaudit.calibration import MIN_RETRAINED
from unaudit.case import Case
from unaudit.contamination import Leaning, known_forget, known_unseen, leanings
from unaudit.explain import HAND_IN_ORIGINAL, HAND_IN_RETRAINED
from unaudit.fidelity import fidelity, incomparable
from unaudit.lineage import doubtful_references
from unaudit.measuring import Measurement
from unaudit.views import BlackBox


@dataclass(frozen=True)
class Doubts:
    """Lines are of plain words, without a capital and a full stop."""

    lines: tuple[str, ...] = ()
    """All of them; any rules a pass out."""
    faithful: bool = True
    """Whether the retrained models are what their recipe should make, so that they count towards
    the assurance level."""
    incomparable: str | None = None
    """Why the retrained models may differ from the subject by how they were trained, which puts
    their values to either side of where they should be."""
    recipe_alone: bool = False
    """Whether original and retrained models were both made from the recipe, so that nothing but the
    subject itself shows what the operator's training gives."""
    flattering: tuple[str, ...] = ()
    """Those by which the subject can only seem to have forgotten more than it has: retrained models
    that know the forget set, a subject that knows the unseen examples."""
    unlike: str | None = None
    """Why forget and unseen examples may not be compared on the subject alone; None: they may."""
    remedy: str | None = None
    """The next step that would settle them; None without any."""


def doubts_about(
    case: Case, view_of: Mapping[str, BlackBox], measurements: Sequence[Measurement]
) -> Doubts:
    """Everything that speaks against a comparison with the references of a case.

    Args:
        case: with references.
        view_of: outputs of every model, by label.
        measurements: of all probes.

    Raises:
        UsageError: two retrained models are copies of each other.
    """
    overlap = known_unseen(case, view_of)
    leaning = leanings(case, measurements)
    flattering = (*doubtful_references(case), *overlap, *known_forget(case, view_of, leaning))
    reproduced = fidelity(case, view_of)
    unfaithful = () if reproduced is None or reproduced.ok else (reproduced.reason,)
    unlike = next(iter(overlap), None) or _unlike(leaning)
    # nothing else is compared where there are too few references
    alone = case.original is None or len(case.retrained) < MIN_RETRAINED
    lines = (*flattering, *unfaithful, *((unlike,) if alone and unlike is not None else ()))
    original_made = reproduced is not None and "original" in reproduced.made
    remedy = HAND_IN_ORIGINAL if unfaithful and original_made else HAND_IN_RETRAINED
    return Doubts(
        lines=tuple(dict.fromkeys(lines)),
        faithful=not unfaithful,
        incomparable=incomparable(case, view_of, reproduced),
        recipe_alone=reproduced is not None and len(reproduced.made) > 1,
        flattering=flattering,
        unlike=unlike,
        remedy=remedy if lines else None,
    )


def _unlike(leaning: Sequence[Leaning]) -> str | None:
    if not leaning:
        return None
    worst = min(leaning, key=lambda one: one.p)
    who = "the retrained models tell" if worst.who is None else f"{worst.who} tells"
    return (
        f"{who} forget from unseen examples ({worst.title}: AUC {worst.area:.2f}), so that "
        "comparing the two on the subject alone shows no membership"
    )
