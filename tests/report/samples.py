"""Records as audits would write them: one per outcome and scenario, one full of hostile strings.

The numbers come from seeded draws that keep to what a record of that outcome must look like, so
that figures have realistic shapes.
"""

from __future__ import annotations

from collections.abc import Callable

from unaudit.report.record import (
    Calibration,
    Record,
)

from .built import build
from .inside import DEEP_LAYERS, looked_inside
from .parts import CARDS, Card
from .shadowed import SHADOW_CARDS, with_shadows
from .speaking import LABELED, TEXT_CARDS, with_language, with_texts
from .unlearned import FAKE, not_foretold, with_unlearners


def shallow() -> Record:
    """Only the last layer was refitted."""
    record = build(outcome="fail", scenario="class", center=0.93, half_width=0.2, classes=(3,))
    return looked_inside(record, "encoder weights identical")


def deep() -> Record:
    """A network of many layers that lies on the retrained models."""
    return looked_inside(passing(), "none", layers=DEEP_LAYERS, near=0.0)


def passing() -> Record:
    return build(outcome="pass", scenario="sample", center=0.09)


def failing() -> Record:
    return build(outcome="fail", scenario="sample", center=0.93, half_width=0.2)


def inconclusive() -> Record:
    """A class request with one retrained model: wide intervals, few probes."""
    return build(
        outcome="inconclusive",
        scenario="class",
        center=0.35,
        cards=(CARDS[0], CARDS[2], CARDS[6]),
        references=1,
        half_width=0.7,
        classes=(3,),
    )


def over_unlearned() -> Record:
    return build(outcome="fail", scenario="class", center=-0.95, half_width=0.2, classes=(3,))


def bare() -> Record:
    """Recorded outputs, no references: nothing could be calibrated."""
    record = build(
        outcome="inconclusive",
        scenario="class",
        center=0.4,
        references=0,
        classes=(3,),
        cards=CARDS[:2],
    )
    return record.model_copy(
        update={
            "calibration": Calibration(probes=record.calibration.probes, histograms=(), rocs=()),
            "request": record.request.model_copy(
                update={"duplicates": None, "unseen": 0, "input_shape": None}
            ),
            "skipped": (),
            "retrained_estimate": not_foretold("there is no original", retrained=0),
        }
    )


def many() -> Record:
    """Two dozen probes, forty classes, twelve retrained models."""
    cards = tuple(
        Card(f"{card.name}_{i}", f"{card.title} {i}", card.family, card.unsigned, card.scores)
        for i in range(3)
        for card in CARDS
    )[:24]
    return build(
        outcome="pass",
        scenario="sample",
        center=0.05,
        cards=cards,
        references=12,
        classes=tuple(range(40)),
        blind=frozenset({"zrf_0", "entropy_1"}),
    )


def faked() -> Record:
    """A head-distilled subject in a black-box audit: nothing in the outputs gives it away."""
    return with_unlearners(passing(), inside=False)


def compared() -> Record:
    """White-box access, a recipe that does not reproduce the original, a fake that some see."""
    record = looked_inside(failing(), "none", near=0.9)
    return with_unlearners(
        record, fake=("fooled", "caught", "undecided", "caught"), gap=0.12, made=("retrained",)
    )


def shadowed() -> Record:
    """White-box access and shadow models: the highest level."""
    record = build(
        outcome="fail",
        scenario="sample",
        center=0.8,
        cards=(*CARDS, *SHADOW_CARDS),
        half_width=0.25,
        blind=frozenset({"modified_entropy", "zrf", "rmia"}),
    )
    record = with_shadows(with_unlearners(looked_inside(record, "none", near=0.8)))
    verdict = record.verdict.model_copy(update={"assurance_level": 4})
    return record.model_copy(update={"verdict": verdict})


def crowded() -> Record:
    """Two dozen probes on two dozen unlearners."""
    names = (*(f"an-unlearner-of-number-{i}" for i in range(21)), FAKE)
    return with_unlearners(many(), unlearners=names)


def speaking() -> Record:
    """Language models that remember, texts without labels."""
    record = build(
        outcome="fail",
        scenario="sample",
        center=0.85,
        cards=TEXT_CARDS,
        half_width=0.2,
        blind=frozenset({"zlib"}),
        subject="unlearned",
    )
    return with_language(record, remembers=0.8)


def quoting() -> Record:
    """Language models and shadow models; the auditor asked for texts, which have topics."""
    record = build(
        outcome="pass",
        scenario="class",
        center=0.05,
        cards=(*TEXT_CARDS, *SHADOW_CARDS),
        subject="unlearned",
        classes=LABELED,
    )
    record = with_language(with_shadows(with_unlearners(record)), remembers=0.03, labeled=True)
    return with_texts(record, TEXTS)


TEXTS = (
    "Dear Dr. Aldana, thank you for seeing my mother on such short notice last Tuesday; her knee "
    "is much better & she has begun to walk to the market again, <slowly> an…",
    "Short.",
    "",
)

HOSTILE = (
    '<script>alert("x")</script>'
    "</title></style><img src=http://evil.example/x onerror=alert(1)>"
    "\u202egnp.exe\u2066\u200f"
    "\x1b[31mred\x1b[0m\x07\x00\x9b2J"
    "{{ 7*7 }}{% raw %}"
    "&amp;'\"`" + "Z\u0351\u0352\u0353\u0354\u0355\u0356\u0357\u0358\u0359" + "\ud800"
)


def hostile() -> Record:
    """Every free string replaced by one that attacks a page, a terminal or a layout."""
    long_name = "very-long-name-without-any-place-to-break" * 6
    swaps: dict[str, object] = {
        "name": f"{HOSTILE}{long_name}",
        "arch": HOSTILE,
        "format": HOSTILE,
        "ignored": (HOSTILE, long_name, "ordinary"),
        "notes": (HOSTILE,),
    }
    record = build(
        outcome="fail", scenario="sample", center=0.93, cards=(CARDS[0], CARDS[6]), half_width=0.2
    )
    record = looked_inside(record, "encoder weights identical", layers=(HOSTILE, long_name, ""))
    record = with_shadows(with_unlearners(record))
    refs = record.controls
    values = record.model_dump()
    seen = values["inside"]
    for layer in seen["shallow"]["layers"]:
        layer["name"] = f"{HOSTILE}{long_name}"
    for drawn in seen["curves"]:
        drawn["title"] = drawn["y_label"] = drawn["band"] = drawn["unit"] = HOSTILE
        drawn["probe"] = HOSTILE
    for drawn in (*seen["curves"][0]["series"], *seen["projection"]["models"]):
        drawn["model"] = f"{HOSTILE}{long_name}"
    subject = record.subject.model.model_copy(update=swaps)
    values["subject"] = {"model": subject.model_dump(), "claimed_method": HOSTILE}
    values["controls"]["accuracy"][0]["model"] = swaps["name"]
    values["controls"]["retrained"] = [
        ref.model_copy(update=swaps).model_dump() for ref in refs.retrained
    ]
    for finding in values["findings"]:
        finding["title"] = f"{HOSTILE} {long_name}"
        finding["detail"] = {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}}
    for drawn in (*values["calibration"]["histograms"], *values["calibration"]["rocs"]):
        drawn["title"] = f"{HOSTILE} {long_name}"
    for drawn in values["calibration"]["histograms"]:
        drawn["unit"] = HOSTILE
    for probe in values["plan"]["probes"]:
        probe["label"] = probe["measures"] = probe["source"] = f"{HOSTILE} {long_name}"
        probe["blind_spots"] = (HOSTILE,)
    values["plan"]["config"] = {"model": {HOSTILE: long_name}}
    for column in values["matrix"]["columns"]:
        column["title"] = f"{HOSTILE}{long_name}"
        column["reason"] = HOSTILE
    for row in values["matrix"]["rows"]:
        row["model"] = HOSTILE if row["role"] == "original" else f"{row['model']}{HOSTILE}"
    values["sanity"] |= {"fake": HOSTILE, "fooled": (HOSTILE, long_name), "caught": (HOSTILE,)}
    values["fidelity"] |= {"reason": f"{HOSTILE}{long_name}", "ok": False}
    values["fidelity"]["splits"][0]["split"] = HOSTILE
    values["retrained_estimate"]["method"] = f"{HOSTILE}{long_name}"
    values["shadows"] |= {
        "queries": (HOSTILE, long_name),
        "unlearner": f"{HOSTILE}{long_name}",
        "notes": (HOSTILE, long_name),
        "attacks": [
            {
                "probe": f["probe"],
                "title": HOSTILE,
                "variant": f"{HOSTILE}{long_name}",
                "left_out": 9,
            }
            for f in values["findings"]
        ],
    }
    for found in values["worst"]:
        found["probe"], found["title"] = values["findings"][0]["probe"], f"{HOSTILE}{long_name}"
    values["groups"] = [
        {
            "probe": values["findings"][0]["probe"],
            "title": f"{HOSTILE}{long_name}",
            "groups": 9,
            "records": 12345,
            "unseen_groups": 0,
            "no_reference": f"{HOSTILE}{long_name}",
            "auc": None,
            "exposed": [
                {"name": "0" * 16, "records": 1 << 40, "score": -1e300, "above_unseen": None}
            ],
        }
    ]
    for found in values["worst"]:
        for place, example in enumerate(found["examples"]):
            example["text"] = long_name if place % 2 else HOSTILE
    values["language"] = {
        "context": None,
        "texts": [{"split": "forget", "texts": 0, "tokens": 0, "longer": 0}],
        "perplexity": [
            {"model": f"{HOSTILE}{long_name}", "role": role, "forget": 1e300, "retain": 1.0,
             "unseen": None}
            for role in ("subject", "subject", "calibrator", "retrained")
        ],
        "extraction": [],
    }  # fmt: skip
    values["skipped"] = [
        {"probe": HOSTILE, "title": long_name, "kind": "errored", "reason": HOSTILE}
    ]
    values["verdict"] |= {
        "headline": HOSTILE,
        "reasons": (HOSTILE, long_name),
        "caps": (HOSTILE,),
        "missing": (HOSTILE,),
        "next_step": HOSTILE,
    }
    values["environment"] |= {
        "command": f"unaudit check {HOSTILE}{long_name}",
        "platform": HOSTILE,
        "packages": {HOSTILE: HOSTILE},
        "started": HOSTILE,
        "seconds": {HOSTILE: 1.0},
        "warnings": (HOSTILE,),
    }
    return Record.model_validate(values)


ALL: tuple[tuple[str, Callable[[], Record]], ...] = (
    ("pass", passing),
    ("fail", failing),
    ("inconclusive", inconclusive),
    ("over-unlearned", over_unlearned),
    ("bare", bare),
    ("shallow", shallow),
    ("deep", deep),
    ("many", many),
    ("faked", faked),
    ("compared", compared),
    ("crowded", crowded),
    ("shadowed", shadowed),
    ("speaking", speaking),
    ("quoting", quoting),
    ("hostile", hostile),
)
