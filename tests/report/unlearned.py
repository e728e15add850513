"""What a recipe adds to a sample record: calibrators, a fake, the fidelity of the recipe, an
estimate of what a retrained model would get right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np

from unaudit.evidence import FAMILIES, Access, Family
from unaudit.report.record import (
    Accuracy,
    Fidelity,
    Interval,
    Matrix,
    MatrixCell,
    MatrixColumn,
    MatrixRow,
    ProbeOutcome,
    Record,
    RetrainedEstimate,
    Role,
    Sanity,
    SplitFidelity,
)

FAKE = "head-distillation"
NO_FAKE = Sanity(
    fake=None,
    reason="no recipe was given; an empty [recipe] section has one filled in",
    fooled=(),
    caught=(),
    undecided=(),
)
UNLEARNERS = ("finetune", "neggrad-plus", "bad-teacher", "salun", FAKE)
INSIDE: tuple[tuple[str, str, Family], ...] = (
    ("linear-probe", "Linear probe, LP(D_f)", "representation"),
    ("idi", "Information (IDI)", "representation"),
    ("cluster-nmi", "Clustering, NMI", "representation"),
    ("relearn", "Relearning speed", "recoverability"),
)
Group = Literal["fooled", "caught", "undecided"]
BY_GROUP: dict[Group, tuple[float, ProbeOutcome]] = {
    "fooled": (0.04, "like-retrained"),
    "caught": (0.93, "residual"),
    "undecided": (0.45, "inconclusive"),
}


def columns(record: Record, inside: bool) -> tuple[MatrixColumn, ...]:
    """One for each finding, and some of white-box probes."""

    def column(
        probe: str, title: str, family: Family, access: Access, informative: bool
    ) -> MatrixColumn:
        return MatrixColumn(
            probe=probe,
            title=title,
            family=family,
            access=access,
            informative=informative,
            reason=None if informative else "cannot tell the original from the retrained models",
            retrained_spread=0.12 if informative else 0.9,
        )

    found = [column(f.probe, f.title, f.family, "black-box", f.counted) for f in record.findings]
    if inside:
        found += [column(*named, "white-box", True) for named in INSIDE]
        found.append(column("blind-one", "A blind probe", "representation", "white-box", False))
    return tuple(sorted(found, key=lambda c: (not c.informative, FAMILIES.index(c.family))))


def with_unlearners(
    record: Record,
    *,
    fake: Group | Sequence[Group] = "fooled",
    unlearners: Sequence[str] = UNLEARNERS,
    inside: bool = True,
    gap: float = 0.011,
    made: tuple[Role, ...] = ("retrained",),
) -> Record:
    """The same audit with a recipe.

    Args:
        record: with findings.
        fake: what black-box probes say of the fake, all of them or one by one.
        unlearners: rows of the matrix besides subject and original.
        inside: whether there are white-box probes.
        gap: between original and retrained models on unseen examples.
        made: from the recipe.
    """
    rng = np.random.default_rng(11)
    heads = columns(record, inside)
    seen = [c.probe for c in heads if c.informative and c.access == "black-box"]
    given = (fake,) * len(seen) if isinstance(fake, str) else fake
    groups = cast("dict[str, Group]", dict(zip(seen, given, strict=False)))
    findings = {finding.probe: finding for finding in record.findings}

    def cell(index: float, outcome: ProbeOutcome, column: MatrixColumn) -> MatrixCell:
        ends = (index - 0.3, index + 0.3) if column.informative else (None, None)
        return MatrixCell(
            index=Interval(estimate=index, low=ends[0], high=ends[1], level=0.9),
            outcome=outcome if column.informative else "not-informative",
        )

    def cell_of(model: str, column: MatrixColumn) -> MatrixCell | None:
        if model == "subject":
            finding = findings.get(column.probe)
            if finding is None:
                return cell(0.97, "residual", column)
            return MatrixCell(index=finding.residual_index, outcome=finding.outcome)
        if model == "original":
            return cell(1.0, "residual", column)
        if model == FAKE:
            if column.access == "white-box":
                return cell(1.0, "residual", column)
            return cell(*BY_GROUP[groups.get(column.probe, "undecided")], column)
        if model == unlearners[0] and column.probe == heads[-1].probe:
            return None
        estimate = float(rng.normal(0.4, 1.2))
        far: ProbeOutcome = "residual" if estimate > 0.8 else "inconclusive"
        return cell(estimate, "over-unlearned" if estimate < -0.8 else far, column)

    roles: list[tuple[str, Role]] = [("subject", "subject"), ("original", "original")]
    roles += [(name, "calibrator") for name in unlearners]
    rows = tuple(
        MatrixRow(model=name, role=role, cells=tuple(cell_of(name, column) for column in heads))
        for name, role in roles
    )
    said: dict[Group, list[str]] = {"fooled": [], "caught": [], "undecided": []}
    for probe, group in groups.items():
        said[group].append(probe)
    accuracy = tuple(
        Accuracy(
            model=name,
            role="calibrator",
            forget=0.4,
            retain=0.99,
            unseen=0.93,
            unseen_kept=None,
            unseen_forgotten=None,
        )
        for name in unlearners
    )
    controls = record.controls
    reproduced = fidelity(gap, made)
    level = record.verdict.assurance_level if reproduced.ok else 1
    return record.model_copy(
        update={
            "verdict": record.verdict.model_copy(update={"assurance_level": level}),
            "controls": controls.model_copy(update={"accuracy": (*controls.accuracy, *accuracy)}),
            "matrix": Matrix(columns=heads, rows=rows),
            "sanity": Sanity(
                fake=FAKE,
                reason=None,
                fooled=tuple(said["fooled"]),
                caught=tuple(said["caught"]),
                undecided=tuple(said["undecided"]),
            )
            if FAKE in unlearners
            else NO_FAKE,
            "fidelity": reproduced,
            "retrained_estimate": foretold(retrained=len(record.controls.retrained)),
        }
    )


def fidelity(gap: float, made: tuple[Role, ...] = ("retrained",)) -> Fidelity:
    ok = gap <= 0.05 and made == ("retrained",)
    return Fidelity(
        made=made,
        kept_classes_only=False,
        splits=(
            SplitFidelity(split="retain", original=1.0, retrained=0.998, gap=0.002),
            SplitFidelity(split="unseen", original=0.947, retrained=0.947 - gap, gap=gap),
        ),
        limit=0.05,
        ok=ok,
        reason="the recipe reproduces the original: accuracies differ by 1.1 points at most"
        if ok
        else "the recipe does not reproduce the original: unseen accuracy is too far off",
    )


def foretold(*, retrained: int = 5, **changes: object) -> RetrainedEstimate:
    """An estimate of 94.2% and a truth of 93.4%."""
    values: dict[str, object] = {
        "value": 0.9421,
        "stderr": 0.0153,
        "error": 0.061,
        "plain": 0.948,
        "examples": 291.3,
        "validation": 300,
        "method": "twin problem (TMU §3), corrected on held-out validation examples",
        "recipe_given": True,
        "reason": None,
        "truth": 0.934 if retrained else None,
        "retrained": retrained,
    }
    return RetrainedEstimate.model_validate({**values, **changes})


def not_foretold(reason: str, *, retrained: int = 5) -> RetrainedEstimate:
    """A reason in place of the numbers."""
    gone = dict.fromkeys(("value", "stderr", "error", "plain", "examples"))
    return foretold(retrained=retrained, reason=reason, **gone)
