"""The head-distillation check and the fidelity of the recipe, in words."""

from __future__ import annotations

from dataclasses import dataclass

from unaudit.report.record import Fidelity, Record, Sanity
from unaudit.report.text import number, percent

FAKE = "a fake: the original with nothing but its last layer refitted"


@dataclass(frozen=True)
class Check:
    """What the check says of evidence from outputs alone."""

    evadable: bool
    """Whether some black-box probe took the fake for a retrained model and none caught it."""
    headline: str
    sentence: str
    """What follows the headline."""
    short: str
    """The same for the front page."""
    line: str
    """For a terminal: at most 78 columns."""


def check(record: Record) -> Check | None:
    """None where there was no fake."""
    found = record.sanity
    if found is None or found.fake is None:
        return None
    fooled, caught = len(found.fooled), len(found.caught)
    total = fooled + caught + len(found.undecided)
    if not total:
        headline = "Whether outputs alone can be faked here cannot be told."
        sentence = f"No black-box probe can see on these data, so none says anything of {FAKE}."
        line = "Fake (last layer refitted): no black-box probe can see on these data"
        return Check(False, headline, sentence, sentence, line)
    evadable = fooled > 0 and not caught
    sentences = [f"The audit made {FAKE}.", _counts(found, total)]
    if evadable:
        sentences.append(
            "The encoder of the fake still holds what the original's holds, so a good result of "
            "the black-box probes is no sign of forgetting."
        )
    sentences.append(_inside(record, found.fake))
    return Check(
        evadable,
        _headline(found),
        " ".join(filter(None, sentences)),
        f"A fake whose last layer alone was refitted is taken for a retrained model by {fooled} of "
        f"{total} black-box probes and caught by {_count(caught)}.",
        f"Fake (last layer refitted): {fooled} of {total} black-box probes fooled, {caught} caught "
        "it",
    )


def _headline(found: Sanity) -> str:
    if found.fooled and not found.caught:
        return "Outputs alone can be faked here."
    if found.fooled:
        return "Outputs alone can be faked for some of these tests, not for all."
    if found.caught:
        return "Refitting the last layer does not fool these tests."
    return "Whether outputs alone can be faked here stays open."


def _counts(found: Sanity, total: int) -> str:
    said = (
        (len(found.fooled), "took it for a retrained model"),
        (len(found.caught), "caught it"),
        (len(found.undecided), "said neither"),
    )
    if total == 1:
        did = next(words for count, words in said if count)
        return f"The one black-box probe that can see on these data {did}."
    parts = [f"{_count(count, total)} {words}" for count, words in said[:2]]
    if found.undecided:
        parts.append(f"{_count(len(found.undecided), total)} {said[2][1]}")
    return f"Of the {total} black-box probes that can see on these data, {_and(parts)}."


def _and(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _count(count: int, total: int = 0) -> str:
    if not count:
        return "none"
    return "all" if count == total else str(count)


def _inside(record: Record, fake: str) -> str:
    """What the white-box probes say of the same fake."""
    matrix = record.matrix
    row = next((row for row in matrix.rows if row.model == fake), None) if matrix else None
    if matrix is None or row is None:
        return ""
    outcomes = [
        cell.outcome
        for column, cell in zip(matrix.columns, row.cells, strict=True)
        if column.informative and column.access == "white-box" and cell is not None
    ]
    if not outcomes:
        return ""
    caught = outcomes.count("residual")
    if len(outcomes) == 1:
        return f"The one white-box probe that can see {'caught' if caught else 'missed'} it."
    count = _count(caught, len(outcomes))
    return f"Of {len(outcomes)} white-box probes that can see, {count} caught it."


def fidelity(found: Fidelity, accuracy: str = "accuracy", kinds: str = "classes") -> str:
    """Accuracies side by side, in one sentence.

    Args:
        found: from the record.
        accuracy: what they are called.
        kinds: what classes are called.
    """
    where = f" among the {kinds} that the request does not touch" if found.kept_classes_only else ""
    compared = "; ".join(
        f"{split.split} {percent(split.original)} and {percent(split.retrained)}, "
        f"{number(100 * split.gap, 1)} points apart"
        for split in found.splits
    )
    name = accuracy.capitalize()
    return f"{name}{where}, original and mean of the retrained models: {compared}."
