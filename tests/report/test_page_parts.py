"""Parts of the page: what counts, where words are cut, digests, times, pictures in parts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unaudit.evidence import Access, Family
from unaudit.report.counting import ONLY_DIFFERS, UTILITY, counting
from unaudit.report.figures import draw
from unaudit.report.filters import coded, heading, noted
from unaudit.report.forest import MOST_ROWS
from unaudit.report.html import to_html
from unaudit.report.record import Record
from unaudit.report.text import whole
from unaudit.report.wording import no_bound

from .samples import bare, failing, passing

DIGEST = "0123456789abcdef" * 4
PROBE = "jsd"


def rows(record: Record, label: str) -> dict[str, tuple[str, str]]:
    """By title in a table of probes: the last cell, and the line below."""
    table = to_html(record).split(f'aria-label="{label}"')[1].split("</table>")[0]
    found: dict[str, tuple[str, str]] = {}
    title = ""
    for row in table.split("<tbody>")[1].split("<tr")[1:]:
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        words = [re.sub(r"<[^>]+>", "", cell.split('<span class="fine')[0]) for cell in cells]
        if 'class="because"' in row:
            found[title] = (found[title][0], words[0])
        else:
            title = words[0].strip()
            found[title] = (words[-1], "")
    return found


def judged(access: Access, family: Family, *, counted: bool) -> Record:
    """One unsigned probe that can see, and may or may not count."""
    record = failing()
    return record.model_copy(
        update={
            "plan": record.plan.model_copy(
                update={
                    "probes": tuple(
                        probe.model_copy(update={"access": access} if probe.name == PROBE else {})
                        for probe in record.plan.probes
                    )
                }
            ),
            "findings": tuple(
                item.model_copy(
                    update={"counted": counted, "family": family} if item.probe == PROBE else {}
                )
                for item in record.findings
            ),
        }
    )


@pytest.mark.parametrize(
    ("access", "family", "counted", "reason"),
    [
        ("black-box", "output-distance", True, None),
        ("white-box", "representation", False, ONLY_DIFFERS),
        ("white-box", "representation", True, None),
        ("black-box", "utility", False, UTILITY),
    ],
)
def test_controls_and_results_agree_on_what_counts(
    access: Access, family: Family, counted: bool, reason: str | None
) -> None:
    record = judged(access, family, counted=counted)
    found = counting(record)[PROBE]
    assert (found.counts, found.reason) == (counted, reason)
    controls, results = (
        rows(record, "Controls of every probe"),
        rows(record, "Finding of every probe"),
    )
    assert controls.keys() == results.keys()
    for title, (counts, _) in results.items():
        assert controls[title][0] == counts
    title = next(probe.title for probe in record.plan.probes if probe.name == PROBE)
    assert controls[title] == ("yes" if counted else "no", reason or "")


def test_a_probe_that_cannot_see_does_not_count_for_its_own_reason() -> None:
    record = failing()
    blind = record.calibration.probes[0].model_copy(
        update={"informative": False, "reason": "it is blind"}
    )
    altered = record.calibration.model_copy(
        update={"probes": (blind, *record.calibration.probes[1:])}
    )
    found = counting(record.model_copy(update={"calibration": altered}))[blind.probe]
    assert (found.counts, found.reason) == (False, "it is blind")


@given(st.text(alphabet="ab .!?", max_size=120), st.integers(10, 60))
def test_words_are_cut_at_the_end_of_a_sentence(said: str, most: int) -> None:
    shown = whole(said, most)
    assert len(shown) <= most
    if len(said) <= most:
        assert shown == said
    elif shown.endswith((". …", "! …", "? …")):
        assert said.startswith(shown[:-2])
        assert said[len(shown) - 2] == " "


def test_long_cards_are_not_cut_within_a_sentence() -> None:
    spots = tuple(f"Blind spot {number} has its own sentence." for number in range(60))
    record = passing()
    first = record.plan.probes[0].model_copy(update={"blind_spots": spots})
    plan = record.plan.model_copy(update={"probes": (first, *record.plan.probes[1:])})
    html = to_html(record.model_copy(update={"plan": plan}))
    said = html.split("<b>Cannot see</b> ")[1].split("</p>")[0]
    assert " ".join(spots).startswith(said.removesuffix(" …"))
    assert said.endswith("sentence. …")
    assert len(said) > 1500


def test_titles_do_not_break_at_hyphens_or_in_brackets() -> None:
    assert heading("Entropy attack (E-MIA)") == (
        'Entropy attack <span class="nowrap">(E-MIA)</span>'
    )
    assert heading("Nearest neighbors, MIARS-II").endswith('<span class="nowrap">MIARS-II</span>')
    assert heading("Off-space share (1 − DA)").count("nowrap") == 2
    assert heading("Likelihood ratio (LiRA)") == "Likelihood ratio (LiRA)"
    assert (
        heading("<b> a-very-long-name-that-may-break")
        == "&lt;b&gt; a-very-long-name-that-may-break"
    )
    assert len(heading("x" * 90)) == 60


def test_backticks_are_code_and_options_stay_together() -> None:
    assert coded("run `unaudit demo` <b>") == "run <code>unaudit demo</code> &lt;b&gt;"
    assert coded("add --unlearner METHOD") == 'add <span class="nowrap">--unlearner</span> METHOD'
    assert coded("a lone ` and a -- b") == "a lone ` and a -- b"


def test_digests_in_notes_are_a_table() -> None:
    note = f"its sha256 is of this list; {DIGEST}  config.json; {DIGEST}  a b.safetensors"
    found = noted(note)
    assert found.said == "its sha256 is of this list"
    assert found.files == (("config.json", DIGEST), ("a b.safetensors", DIGEST))
    for other in ("made from the recipe", f"a; {DIGEST}  b; c", DIGEST, f"{DIGEST}  x; y", ""):
        assert noted(other).files == ()
        assert noted(other).said == other
    record = passing()
    model = record.subject.model.model_copy(update={"notes": ("kept as it is", note)})
    subject = record.subject.model_copy(update={"model": model})
    html = to_html(record.model_copy(update={"subject": subject}))
    assert "<li>kept as it is</li>" in html
    assert f'<th scope="row">config.json</th><td><code class="digest">{DIGEST}</code></td>' in html


def test_passes_over_one_model_are_one_time() -> None:
    record = passing()
    seconds = {"a: b": 2.0, "subject: forget": 0.25, "subject: retain": 0.5, "probing": 3.0}
    environment = record.environment.model_copy(update={"seconds": seconds})
    html = to_html(record.model_copy(update={"environment": environment}))
    table = html.split("Wall time by stage</h3>")[1].split("</table>")[0]
    cells = re.findall(r'<th scope="row">(.*?)</th><td class="num">(.*?)</td>', table)
    assert cells == [("a: b", "2.0 s"), ("answers of subject", "750 ms"), ("probing", "3.0 s")]


def test_why_there_is_no_upper_bound() -> None:
    record = failing()
    assert no_bound(bare()) != ""
    unpooled = tuple(
        item.model_copy(update={"pooled": None, "required": True}) for item in record.families
    )
    verdict = record.verdict.model_copy(update={"upper_bound": None})
    altered = record.model_copy(update={"families": unpooled, "verdict": verdict})
    assert no_bound(altered) == "membership and output distance could not be pooled"
    assert f"none: {no_bound(altered)}" in to_html(altered)
    assert no_bound(record) == "a required family has no bound above"
    assert no_bound(record.model_copy(update={"families": ()})) == "nothing was pooled"


def test_many_probes_are_drawn_in_several_pictures() -> None:
    record = failing()
    few = draw(record).forest
    assert str(few.wide).count("<svg") == str(few.narrow).count("<svg") == 1
    more = tuple(
        item.model_copy(update={"probe": f"{item.probe}-{copy}"})
        for item in record.findings
        for copy in range(4)
    )
    many = draw(record.model_copy(update={"findings": more})).forest
    drawings = str(many.wide).split("</svg>\n")
    assert len(drawings) == 2
    for drawing in drawings:
        svg = ElementTree.fromstring(drawing if drawing.endswith("</svg>") else f"{drawing}</svg>")
        said = [text.text for text in svg.iter("text")]
        assert {"retrained", "original", "residual index"} <= set(said)
    assert len(many.rows) == len(more) + len(record.families) > MOST_ROWS
    names = re.findall(r'<title id="([^"]+)">', f"{many.wide}{many.narrow}")
    assert len(names) == len(set(names)) == 4
