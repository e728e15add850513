"""Groups of records, such as all of one person, in words."""

from __future__ import annotations

from dataclasses import dataclass

from unaudit.report.nouns import nouns_of
from unaudit.report.record import ExposedGroup, GroupEvidence, Record
from unaudit.report.text import count, interval

DECIDES_NOTHING = (
    "The outcome rests on all forget examples together; nothing in this table is part of it."
)
FIND_AGAIN = (
    "Names are keyed as above, the ID being “group”, a tab and the group’s name in the data."
)


@dataclass(frozen=True)
class GroupList:
    """The groups that stand out most by one attack."""

    evidence: GroupEvidence
    said: str
    rows: tuple[tuple[ExposedGroup, str], ...]
    """Each with its number of records in words."""


def group_lists(record: Record) -> tuple[GroupList, ...]:
    """Empty where the data do not say whose record an example is."""
    return tuple(
        GroupList(
            evidence=evidence,
            said=nouns_of(record).say(_said(evidence)),
            rows=tuple((group, _about(group.records)) for group in evidence.exposed),
        )
        for evidence in record.groups
    )


def _said(evidence: GroupEvidence) -> str:
    many = evidence.groups != 1
    start = (
        f"The evidence of all {count(evidence.records)} scored forget examples, added up by the "
        f"{count(evidence.groups)} group{'s' if many else ''} whose records they are"
    )
    if evidence.no_reference is not None:
        return (
            f"{start}. What such a sum is for a group that was never trained on is not known "
            f"({evidence.no_reference}), so it cannot be said which sums are large."
        )
    against = f"{count(evidence.unseen_groups)} unseen groups"
    if evidence.auc is None:
        return f"{start}, and held against {against}; too few groups for an AUC."
    return f"{start}, and held against {against}: AUC {interval(evidence.auc)}."


def _about(records: int) -> str:
    return "1" if records == 1 else f"{count(records)}–{count(2 * records - 1)}"
