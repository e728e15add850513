"""What a report calls what was audited: examples and classes, or texts and topics.

Probes, sentences and tables speak of examples and classes; where the models are language models,
this is the one place that has other words for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unaudit.report.record import Record

PHRASES: Sequence[tuple[str, str]] = (
    ("Accuracy on forget (1 − UA)", "Next-token accuracy, forget"),
    (
        "Share of forget examples that the model still classifies correctly, or of their tokens "
        "that it predicts.",
        "Share of a forget text's tokens that the model finds likeliest, as a mean over texts.",
    ),
    (
        "Says nothing about examples that a model without them would classify correctly too.",
        "Says nothing about tokens that a model without the texts would predict too.",
    ),
    ("summed over classes", "summed over the vocabulary"),
    (
        "Share of forget examples for which the model and a retrained one predict different "
        "classes, or of their tokens where other ones are the likeliest",
        "Share of a forget text's tokens where the model and a retrained one find different ones "
        "likeliest, as a mean over texts",
    ),
    (" Of texts, the mean over their tokens.", " Of a text, the mean over its tokens."),
    (
        "Mean probability of the true class (or of a text's tokens) on forget examples",
        "Mean probability of the true tokens of forget texts",
    ),
    ("A last layer that masks the forget class", "A last layer that masks what was forgotten"),
    ("where retrained models know the classes as well", "where retrained models know much as well"),
)
"""What cards of probes for either kind of model say, and what they say of texts."""

_WITHOUT_LABELS = re.compile(r" of the (?:same|forget) class(?:es)?\b")
_START, _END = r"(?<![\w./\\])", r"(?![\w/\\-]|[.:]\w)"
_RULES: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(rf"\b([Aa])n example{_END}"), r"\1 text"),
    (re.compile(rf"{_START}(?<!for )(?<!texts of )example(s?){_END}"), r"text\1"),
    (re.compile(rf"{_START}Example(s?){_END}"), r"Text\1"),
    (re.compile(rf"{_START}(?<!logits of )class{_END}(?! scenario)"), "topic"),
    (re.compile(rf"{_START}(?<!logits of )classes{_END}"), "topics"),
    (re.compile(rf"{_START}Class{_END}"), "Topic"),
    (re.compile(rf"{_START}Classes{_END}"), "Topics"),
    (re.compile(r"\bthe (?:plain )?digits(?: of `unaudit demo`)?"), "images of digits"),
)
"""File names, options and the names of scenarios stay as they are."""

_SPOKEN = frozenset(
    (
        *("title", "measures", "blind_spots", "variant", "y_label", "reason", "no_reference"),
        *("headline", "reasons", "caps", "missing", "next_step", "notes", "warnings"),
    )
)
"""Keys of a record that hold sentences of this package."""
_OTHERS = frozenset({"subject", "request", "config", "detail", "original", "retrained"})
"""Keys below which other people's words are, or none."""


@dataclass(frozen=True)
class Nouns:
    """The words of one report."""

    texts: bool
    """Whether examples are texts and classes are their topics, or what else labels say of them."""
    labeled: bool

    @property
    def one(self) -> str:
        return "text" if self.texts else "example"

    @property
    def many(self) -> str:
        return "texts" if self.texts else "examples"

    @property
    def kind(self) -> str:
        return "topic" if self.texts else "class"

    @property
    def kinds(self) -> str:
        return "topics" if self.texts else "classes"

    def say(self, text: str) -> str:
        """A sentence about examples and classes, in these words."""
        if not self.texts:
            return text
        for phrase, other in PHRASES:
            text = text.replace(phrase, other)
        if not self.labeled:
            text = _WITHOUT_LABELS.sub("", text)
        for pattern, other in _RULES:
            text = pattern.sub(other, text)
        return text

    def key(self, name: str) -> str:
        """The name of a further value."""
        if not self.texts:
            return name
        for word, other in (("classes", "topics"), ("class", "topic"), ("example", "text")):
            name = name.replace(word, other)
        return name


def nouns_of(record: Record) -> Nouns:
    """The words that fit what was audited."""
    return Nouns(texts=record.language is not None, labeled=record.request.n_classes > 1)


def spoken(record: Record) -> Record:
    """The same record with the sentences of this package in its own words."""
    nouns = nouns_of(record)
    if not nouns.texts:
        return record
    return Record.model_validate(_spoken(record.model_dump(), nouns))


def _spoken(value: Any, nouns: Nouns) -> Any:
    if isinstance(value, dict):
        return {
            key: item
            if key in _OTHERS
            else _said(item, nouns)
            if key in _SPOKEN
            else _spoken(item, nouns)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_spoken(item, nouns) for item in value]
    return value


def _said(value: Any, nouns: Nouns) -> Any:
    if isinstance(value, str):
        return nouns.say(value)
    return [_said(item, nouns) for item in value] if isinstance(value, (list, tuple)) else value
