"""Attacks with shadow models, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from unaudit.report.nouns import Nouns, nouns_of
from unaudit.report.record import Record, ShadowModels, Worst, WorstExample
from unaudit.report.text import count, sentence

COMPARABLE = (
    "Figures of one variant of an attack cannot be compared with those of another, here or in "
    "other tools."
)
FIND_AGAIN = (
    "The names are keyed: only the holder of the auditor’s key (auditor.key in the cache) finds an "
    "example again, as the one among the forget ids for which HMAC-SHA-512 of “DATA ID” begins "
    "with its name, DATA being the data’s SHA-256 and ID the id."
)


@dataclass(frozen=True)
class WorstList:
    """The examples that one attack finds most like training examples."""

    worst: Worst
    variant: str
    blind: bool
    """Whether the attack cannot see on average."""
    examples: tuple[tuple[WorstExample, bool], ...]
    """Each with whether another attack lists it too."""


@dataclass(frozen=True)
class ShadowText:
    """What the report shows of shadow models and the attacks with them."""

    made: str
    notes: tuple[str, ...]
    lists: tuple[WorstList, ...]
    repeated: bool
    """Whether an example is on several lists."""


def variants(record: Record) -> Mapping[str, str]:
    """How each attack with shadow models was run, by probe."""
    if record.shadows is None:
        return {}
    return {attack.probe: attack.variant for attack in record.shadows.attacks}


def texts_shown(record: Record) -> bool:
    """Whether the record holds texts of examples."""
    return any(example.text is not None for worst in record.worst for example in worst.examples)


def shadow_text(record: Record) -> ShadowText | None:
    """None without shadow models."""
    found = record.shadows
    if found is None:
        return None
    lists = _lists(record)
    return ShadowText(
        made=_made(found, nouns_of(record)),
        notes=tuple(sentence(note) for note in found.notes),
        lists=lists,
        repeated=any(again for own in lists for _, again in own.examples),
    )


def _made(found: ShadowModels, nouns: Nouns) -> str:
    sentences = [
        f"{count(found.models)} shadow model{'s were' if found.models != 1 else ' was'} trained by "
        f"the recipe, each on {count(found.train_size)} examples with a random half of those in "
        "question among them. An attack holds what the subject answers for an example against what "
        "shadow models answer that were trained on it, and that were not."
    ]
    if found.unlearner:
        sentences.append(
            f"Each then unlearned a part of its examples by {found.unlearner}, the method that was "
            "stated for the subject."
        )
    if len(found.queries) > 1:
        sentences.append(f"Every example was shown in these ways: {', '.join(found.queries)}.")
    return " ".join(map(nouns.say, sentences))


def _lists(record: Record) -> tuple[WorstList, ...]:
    run = variants(record)
    sees = {control.probe for control in record.calibration.probes if control.informative}
    listed = Counter(example.name for worst in record.worst for example in worst.examples)
    return tuple(
        WorstList(
            worst=worst,
            variant=run.get(worst.probe, ""),
            blind=worst.probe not in sees,
            examples=tuple((example, listed[example.name] > 1) for example in worst.examples),
        )
        for worst in record.worst
        if worst.examples
    )
