"""What language models make of the texts, in tables and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from unaudit.report.record import Language, ModelExtraction, ModelPerplexity, Record, Role
from unaudit.report.text import count, percent, significant

Split = Literal["forget", "retain", "unseen"]
SPLITS: tuple[Split, ...] = ("forget", "retain", "unseen")

Lines: TypeAlias = Sequence[ModelPerplexity] | Sequence[ModelExtraction]
Show: TypeAlias = Callable[[float | None], str]


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    value: str
    span: str
    """From the least to the most, where several models are one row."""


@dataclass(frozen=True)
class Row:
    """One model of a table, or several of them together."""

    name: str
    cells: tuple[Cell, ...]
    """By split."""


@dataclass(frozen=True)
class LanguageText:
    """What the report shows of language models."""

    splits: tuple[Split, ...]
    """Those that there are."""
    sizes: tuple[tuple[str, str, str, str], ...]
    """Split, texts, predicted tokens, texts longer than the context."""
    context: str
    perplexity: tuple[Row, ...]
    extraction: tuple[Row, ...]
    extracted: str
    """How much of the forget set comes out, in one sentence."""
    line: str
    """Perplexities of the subject for a terminal, those of others on forget texts alone."""


def perplexity(value: float | None) -> str:
    """Three digits."""
    return significant(value, 3)


def language_text(record: Record) -> LanguageText | None:
    """None where the models are classifiers."""
    found = record.language
    if found is None:
        return None
    splits = tuple(split for split in SPLITS if values(found.perplexity, "subject", split))
    return LanguageText(
        splits=splits,
        sizes=tuple(
            (size.split, count(size.texts), count(size.tokens), count(size.longer))
            for size in found.texts
        ),
        context=_context(found),
        perplexity=_rows(found.perplexity, splits, perplexity),
        extraction=_rows(found.extraction, splits, percent),
        extracted=_extracted(found),
        line=", ".join(
            side_by_side(found.perplexity, split)
            if split == "forget"
            else f"{split} {perplexity(first(values(found.perplexity, 'subject', split)))}"
            for split in splits
        ),
    )


def accuracy(record: Record) -> str:
    """What the share of right predictions is called."""
    return "accuracy" if record.language is None else "next-token accuracy"


def values(lines: Lines, role: Role, split: Split) -> list[float]:
    """Those of the models that play a part."""
    found = (getattr(line, split) for line in lines if line.role == role)
    return [value for value in found if value is not None]


def side_by_side(lines: Sequence[ModelPerplexity], split: Split) -> str:
    """``forget 14.2 (original 3.1, retrained 15 to 15.6)``."""
    said = f"{split} {perplexity(first(values(lines, 'subject', split)))}"
    others = []
    if original := values(lines, "original", split):
        others.append(f"original {perplexity(original[0])}")
    if retrained := values(lines, "retrained", split):
        others.append(f"retrained {span(retrained, perplexity)}")
    return f"{said} ({', '.join(others)})" if others else said


def first(found: Sequence[float]) -> float | None:
    """The only one, if there is one."""
    return found[0] if found else None


def span(found: Sequence[float], show: Show) -> str:
    """``15.0 to 15.6``, or one number where the two look alike."""
    low, high = show(min(found)), show(max(found))
    return low if low == high else f"{low} to {high}"


def _context(found: Language) -> str:
    if found.context is None:
        return "The subject takes texts of any length."
    longer = sum(size.longer for size in found.texts)
    said = f"The subject takes {count(found.context)} tokens at once"
    if not longer:
        return f"{said}; no text is longer."
    which = "1 text is" if longer == 1 else f"{count(longer)} texts are"
    return (
        f"{said}; {which} longer and read in overlapping windows, so that every token is predicted "
        "once."
    )


def _rows(lines: Lines, splits: Sequence[Split], show: Show) -> tuple[Row, ...]:
    """Subject, original, the retrained models as one, and those that unlearners made."""

    def row(name: str, groups: Sequence[Sequence[float]]) -> Row:
        return Row(name, tuple(_cell(own, show) for own in groups))

    parts: tuple[tuple[Role, str], ...] = (("subject", "Subject"), ("original", "Original"))
    rows = [
        row(name, [values(lines, role, split)[:1] for split in splits])
        for role, name in parts
        if any(line.role == role for line in lines)
    ]
    retrained = [values(lines, "retrained", split) for split in splits]
    if most := max(map(len, retrained), default=0):
        rows.append(row("Retrained" if most == 1 else f"Retrained, mean of {most}", retrained))
    for line in lines:
        if line.role == "calibrator":
            own = [getattr(line, split) for split in splits]
            rows.append(row(line.model, [[] if value is None else [value] for value in own]))
    return tuple(rows)


def _cell(own: Sequence[float], show: Show) -> Cell:
    if not own:
        return Cell(show(None), "")
    low, high = show(min(own)), show(max(own))
    return Cell(show(fmean(own)), "" if low == high else f"{low} to {high}")


def _extracted(found: Language) -> str:
    lines = found.extraction
    subject = first(values(lines, "subject", "forget")) or 0.0
    texts = next((size.texts for size in found.texts if size.split == "forget"), 0)
    said = (
        "Given the first half of a text, the subject goes on with its second half, token for "
        f"token, for {count(round(subject * texts))} of {count(texts)} forget texts"
    )
    others = []
    if original := values(lines, "original", "forget"):
        others.append(f"the original does so for {percent(original[0])}")
    if retrained := values(lines, "retrained", "forget"):
        models = "the retrained models" if len(retrained) > 1 else "the retrained model"
        others.append(f"{models} for {span(retrained, percent)}")
    return f"{'; '.join([f'{said} ({percent(subject)})', ', '.join(others)]) if others else said}."
