"""Shadow models in reports: the variant beside every attack, who stands out, what the level is."""

from __future__ import annotations

import io
from collections.abc import Callable
from html import unescape

import pytest
from rich.console import Console

from unaudit.report.filters import heading
from unaudit.report.html import to_html
from unaudit.report.levels import LEVELS, level_reached
from unaudit.report.record import Record
from unaudit.report.shadows import COMPARABLE, FIND_AGAIN, shadow_text, variants
from unaudit.report.skips import skips
from unaudit.report.table import markdown
from unaudit.report.terminal import print_summary
from unaudit.report.wording import threat_model

from .samples import bare, compared, failing, faked, inconclusive, passing, shadowed
from .shadowed import SHADOW_CARDS, VARIANTS


def page(record: Record) -> str:
    """The words of the page, of whatever is between two tags."""
    return " ".join(unescape(to_html(record)).split())


def printed(record: Record) -> str:
    stream = io.StringIO()
    print_summary(record, Console(file=stream, width=80, no_color=True))
    return " ".join(stream.getvalue().split())


def test_every_output_names_the_variant_of_every_attack() -> None:
    record = shadowed()
    assert variants(record) == VARIANTS
    html, terminal, table = page(record), printed(record), markdown(record)
    for card in SHADOW_CARDS:
        variant = VARIANTS[card.name]
        assert f"{card.title}: {variant}" in html, "beside the matrix"
        row = html.split(f'<th scope="row">{heading(card.title)} ')[1].split("</tr>")[0]
        assert variant in row
        assert f"{card.title}: {variant}" in terminal
        assert f"‡ {card.title}: {variant}." in table
        assert f" {card.title} ‡ |" in table or f" {card.title} † ‡ |" in table


# that of u-lira is the end of that of lira
@pytest.mark.parametrize("probe", ["lira", "rmia"])
def test_rates_and_curves_name_the_variant(probe: str) -> None:
    html = page(shadowed())
    section = html.split('id="membership"')[1].split('id="classes"')[0]
    variant = VARIANTS[probe]
    # the table of attacks, that of rates, the list of examples; captions begin with a capital
    assert section.count(variant) == 3
    assert section.count(f"{variant[0].upper()}{variant[1:]}.") == 2


def test_without_shadow_models_nothing_is_said_of_variants() -> None:
    record = failing()
    assert variants(record) == {}
    assert shadow_text(record) is None
    for text in (page(record), printed(record), markdown(faked())):
        assert "Attacks with shadow models" not in text
        assert "‡" not in text
    assert "stand out most" not in page(record)
    assert "Shadow-model attacks on single examples" in page(record)
    assert "shadow models" not in threat_model(record).auxiliary


def test_shadow_models_are_described() -> None:
    html = page(shadowed())
    assert "60 shadow models were trained by the recipe, each on 1,000 examples" in html
    assert "unlearned a part of its examples by finetune" in html
    assert "shown in these ways: plain, flip" in html
    assert "the request is for 200" in html
    assert COMPARABLE in html
    assert "Shadow-model attacks on single examples" not in html
    assert "60 shadow models" in threat_model(shadowed()).auxiliary


def test_what_was_not_done_is_not_claimed() -> None:
    record = shadowed()
    assert record.shadows is not None
    plain = record.shadows.model_copy(
        update={"unlearner": None, "queries": ("plain",), "attacks": (), "notes": ()}
    )
    text = shadow_text(record.model_copy(update={"shadows": plain}))
    assert text is not None
    assert "unlearned" not in text.made
    assert "shown in these ways" not in text.made
    html = page(record.model_copy(update={"shadows": plain, "worst": ()}))
    assert "No attack with them gave a finding" in html
    assert "stand out most" not in html


def test_examples_that_stand_out_are_listed_with_how_to_find_them() -> None:
    record = shadowed()
    html = page(record)
    for found in record.worst:
        for example in found.examples:
            assert f"<code>{example.name}</code>" in html
    assert FIND_AGAIN in html
    text = shadow_text(record)
    assert text is not None
    assert text.repeated
    first, second, third = text.lists
    assert [again for _, again in first.examples] == [False] * 7 + [True] * 3
    assert [again for _, again in second.examples] == [True] * 3 + [False] * 7
    assert not any(again for _, again in third.examples)
    assert [own.blind for own in text.lists] == [False, False, True]
    assert "A star: another attack" in html
    assert "on average it cannot see on these data" in html


def leveled(record: Record, level: int) -> Record:
    verdict = record.verdict.model_copy(update={"assurance_level": level})
    return record.model_copy(update={"verdict": verdict})


def black_box(record: Record) -> Record:
    policy = record.plan.policy.model_copy(update={"access": "black-box"})
    plan = record.plan.model_copy(update={"policy": policy})
    return leveled(record.model_copy(update={"plan": plan}), 2)


def blind(record: Record) -> Record:
    """No probe can see."""
    probes = tuple(
        control.model_copy(update={"informative": False}) for control in record.calibration.probes
    )
    calibration = record.calibration.model_copy(update={"probes": probes})
    return leveled(record.model_copy(update={"calibration": calibration}), 3)


def one_retrained() -> Record:
    """Too few to calibrate on."""
    record = inconclusive()
    probes = tuple(
        control.model_copy(update={"mode": None}) for control in record.calibration.probes
    )
    calibration = record.calibration.model_copy(update={"probes": probes})
    return leveled(record.model_copy(update={"calibration": calibration}), 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (bare, "black box, without reference models"),
        (
            compared,
            "white box, with reference models that do not count, for their recipe is not shown to "
            "reproduce the original",
        ),
        (one_retrained, "black box, without enough reference models"),
        (passing, "black box, with reference models"),
        (
            lambda: black_box(shadowed()),
            "black box, with reference models and shadow-model attacks",
        ),
        (shadowed, "white box, with reference models and shadow-model attacks"),
        (
            lambda: blind(shadowed()),
            "white box, with reference models; no shadow-model attack can see on these data",
        ),
    ],
)
def test_the_level_says_what_the_audit_had(make: Callable[[], Record], said: str) -> None:
    record = make()
    assert level_reached(record) == said
    assert f"{record.verdict.assurance_level} of 4: {said}</dd>" in page(record)


def test_the_glossary_says_what_each_level_takes() -> None:
    html = page(passing())
    for number, level in enumerate(LEVELS, 1):
        assert f"{number}: {level}." in html


def test_tests_that_share_a_reason_share_a_row() -> None:
    record = passing()
    one, other = record.skipped
    same = one.model_copy(update={"title": "Second of them"})
    also = one.model_copy(update={"title": "Not like them", "kind": "errored"})
    groups = skips(record.model_copy(update={"skipped": (one, other, same, also)}))
    assert [(group.kind, group.titles) for group in groups] == [
        ("left-out", (one.title, "Second of them")),
        ("skipped", (other.title,)),
        ("errored", ("Not like them",)),
    ]
    html = page(record.model_copy(update={"skipped": (one, other, same, also)}))
    section = html.split('id="deviations"')[1].split("</section>")[0]
    assert section.count("<tr>") == 1 + len(groups)
    assert f"{one.title} · Second of them" in section
