"""Groups of records in the report: a table, one sentence, nothing in the terminal."""

from __future__ import annotations

import io
from html import unescape

from rich.console import Console

from unaudit.report.groups import DECIDES_NOTHING, FIND_AGAIN, group_lists
from unaudit.report.html import to_html
from unaudit.report.record import ExposedGroup, GroupEvidence, Interval, Record
from unaudit.report.table import markdown
from unaudit.report.terminal import print_summary
from unaudit.report.text import percent

from .parts import digest
from .samples import shadowed

AREA = Interval(estimate=0.81, low=0.72, high=0.88, level=0.9)


def exposed(*, above: float | None) -> tuple[ExposedGroup, ...]:
    return tuple(
        ExposedGroup(
            name=digest(f"group {at}")[:16], records=1 << at, score=12.3 - at, above_unseen=above
        )
        for at in range(4)
    )


def grouped(
    area: Interval | None = AREA, reason: str | None = None, groups: int = 40
) -> Record:  # fmt: skip
    evidence = GroupEvidence(
        probe="lira",
        title="Likelihood ratio (LiRA)",
        groups=groups,
        records=1234,
        unseen_groups=60,
        no_reference=reason,
        auc=area,
        exposed=exposed(above=None if reason else 0.985),
    )
    return shadowed().model_copy(update={"groups": (evidence,)})


def page(record: Record) -> str:
    return " ".join(unescape(to_html(record)).split())


def test_the_table_follows_the_examples_and_says_that_it_decides_nothing() -> None:
    html = page(grouped())
    section = html.split('id="membership"')[1].split('id="classes"')[0]
    examples, table = section.split("<h3>Groups that stand out most</h3>")
    assert "Forget examples that stand out most" in examples
    assert "1,234 scored forget examples, added up by the 40 groups" in table
    assert "held against 60 unseen groups: AUC 0.81 [0.72, 0.88]." in table
    for group, records in zip(exposed(above=0.985), ("1", "2–3", "4–7", "8–15"), strict=True):
        row = table.split(f"<code>{group.name}</code>")[1].split("</tr>")[0]
        assert f">{records}<" in row
        assert f">{percent(0.985)}<" in row
    assert ">12.3<" in table
    assert DECIDES_NOTHING in table
    assert FIND_AGAIN in table
    assert "online, median, pooled variance" in table


def test_without_a_reference_the_report_says_why() -> None:
    html = page(grouped(None, "it takes 20 unseen groups, there are 3", groups=1))
    table = html.split("<h3>Groups that stand out most</h3>")[1].split("</section>")[0]
    assert "added up by the 1 group whose records they are" in table
    assert "is not known (it takes 20 unseen groups, there are 3), so it cannot be said" in table
    assert table.count('<td class="num">–</td>') == 4
    assert "AUC" not in table
    (found,) = group_lists(grouped(None, groups=3))
    assert found.said.endswith("held against 60 unseen groups; too few groups for an AUC.")


def test_groups_are_in_the_page_alone() -> None:
    record = grouped()
    stream = io.StringIO()
    print_summary(record, Console(file=stream, width=80, no_color=True))
    for text in (stream.getvalue(), markdown(record)):
        assert "roup" not in text
    assert group_lists(shadowed()) == ()
    assert "Groups that stand out most" not in page(shadowed())


def test_the_record_comes_back_as_it_was() -> None:
    record = grouped()
    assert Record.model_validate_json(record.to_json()) == record
    old = record.model_copy(update={"schema_version": "1.0"})
    assert '"groups": [' not in old.to_json()
