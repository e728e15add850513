"""Reports of language models speak of texts and topics; others of examples and classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import pytest

from unaudit.evidence import LANGUAGE_MODELING, PROBES, ProbeCard
from unaudit.plugins import load_plugins
from unaudit.report.html import to_html
from unaudit.report.nouns import PHRASES, Nouns, nouns_of, spoken
from unaudit.report.record import Finding, Record
from unaudit.report.text import printable
from unaudit.report.wording import found, scenario_meaning

from .samples import deep, failing, passing, quoting, shadowed, speaking

TEXTS, LABELED = Nouns(texts=True, labeled=False), Nouns(texts=True, labeled=True)
EXAMPLES = Nouns(texts=False, labeled=True)
FOREIGN = re.compile(r"\b(?:examples?|class(?:es)?|the digits)\b", re.IGNORECASE)
MEANT = re.compile(r"class scenario|texts of examples|scenario class|logits of classes", re.I)


def cards() -> list[ProbeCard]:
    """Of the probes that language models have."""
    load_plugins()
    return [kind.card for _, kind in PROBES.items() if kind.card.tasks >= LANGUAGE_MODELING]


def words(record: Record) -> str:
    """Everything that the page says, to screen readers too."""
    body = to_html(record).split("<body>")[1]
    labels = " ".join(re.findall(r'aria-label="([^"]*)"', body))
    return " ".join(unescape(labels + re.sub(r"<[^>]+>", " ", body)).split())


@pytest.mark.parametrize("nouns", [TEXTS, LABELED])
def test_cards_of_probes_speak_of_texts(nouns: Nouns) -> None:
    for card in cards():
        for said in (card.title, card.measures, *card.blind_spots):
            told = MEANT.sub("", nouns.say(said))
            assert not FOREIGN.search(told), (card.name, told)
            assert EXAMPLES.say(said) == said
    said = " ".join(nouns.say(card.measures) for card in cards())
    assert ("texts of the same topics" in said) == nouns.labeled


def test_every_phrase_that_is_put_otherwise_is_said_by_a_card() -> None:
    said = " ".join(" ".join((card.title, card.measures, *card.blind_spots)) for card in cards())
    for phrase, _ in PHRASES:
        assert phrase in f" {said}", phrase


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("An example is not scored.", "A text is not scored."),
        ("12 forget examples, for example of class 3", "12 forget texts, for example of topic 3"),
        ("AUC against unseen examples of the same classes", "AUC against unseen texts"),
        ("reads logits of classes, which", "reads logits of classes, which"),
        ("does not apply to the class scenario", "does not apply to the class scenario"),
        ("Contains texts of examples", "Contains texts of examples"),
        ("no id of example.jsonl, my-class.py or data/example", None),
        ("request.forget = class:4 of classifiers", None),
        ("per_class.0, by_class", None),
    ],
)
def test_words_are_changed_and_names_are_not(said: str, told: str | None) -> None:
    assert TEXTS.say(said) == (said if told is None else told)
    assert EXAMPLES.say(said) == said


def test_keys_of_further_values() -> None:
    assert LABELED.key("by_class.3") == "by_topic.3"
    assert LABELED.key("classes_left_out") == "topics_left_out"
    assert LABELED.key("forget_examples") == "forget_texts"
    assert EXAMPLES.key("by_class.3") == "by_class.3"


@pytest.mark.parametrize("make", [speaking, quoting])
def test_pages_about_language_models_speak_of_texts(make: Callable[[], Record]) -> None:
    told = words(make())
    assert not FOREIGN.search(MEANT.sub("", told))
    assert "Forget texts against texts that no audited model" in told
    assert ("Results by topic" in told) == nouns_of(make()).labeled


def test_pages_about_classifiers_do_not() -> None:
    for record in (passing(), deep(), shadowed()):
        told = words(record)
        assert "Forget examples against examples that no audited model" in told
        assert not re.search(r"\b(?:topics?|texts)\b", told)
        assert spoken(record) is record


def test_words_of_other_people_stay() -> None:
    record = speaking()
    model = record.subject.model.model_copy(
        update={"name": "an example class", "notes": ("an example of a class",)}
    )
    finding = record.findings[0]
    changes = {"title": "Accuracy on forget (1 − UA)", "detail": {"reason": "a class"}}
    told = Finding.model_validate(finding.model_dump() | changes)
    shown = printable(
        record.model_copy(
            update={
                "subject": record.subject.model_copy(update={"model": model}),
                "findings": (told,),
            }
        )
    )
    assert shown.subject.model.name == "an example class"
    assert shown.subject.model.notes == ("an example of a class",)
    assert shown.findings[0].detail == {"reason": "a class"}
    assert shown.findings[0].title == "Next-token accuracy, forget"
    assert shown.plan.config == record.plan.config


def test_further_values_by_class_need_labels() -> None:
    detail = {"by_class": {"0": 0.25}, "examples": 41}

    def values(record: Record) -> str:
        finding = record.findings[0].model_copy(update={"detail": detail})
        altered = record.model_copy(update={"findings": (finding, *record.findings[1:])})
        return words(altered)

    assert "by_topic" not in values(speaking())
    assert "texts = 41" in values(speaking())
    assert "by_topic.0 = 0.2500" in values(quoting())
    assert "by_class.0 = 0.2500" in values(failing())


def test_sentences_of_the_whole_audit() -> None:
    record = quoting()
    request = record.request.model_copy(update={"scenario": "class"})
    record = record.model_copy(update={"request": request})
    assert scenario_meaning(record).startswith("The forget set is all training data of its topic")
    over = tuple(
        item.model_copy(update={"fails": True, "outcome": "over-unlearned"})
        for item in record.findings
    )
    verdict = record.verdict.model_copy(update={"outcome": "fail"})
    far = record.model_copy(update={"findings": over, "families": (), "verdict": verdict})
    assert "treats the forget texts as less" in found(far)
