"""The page: self-contained, well-formed, readable by all, and unmoved by hostile strings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from unaudit.report.html import sections, to_html
from unaudit.report.record import Record
from unaudit.report.svg import STYLES
from unaudit.report.wording import MUST_APPEAR

from .samples import ALL, HOSTILE, bare, failing, inconclusive, over_unlearned, passing

SAMPLES = dict(ALL)
EVERY = pytest.mark.parametrize("name", list(SAMPLES))
VOID = {"meta", "link", "img", "br", "hr", "input", "col", "wbr", "area", "base", "source"}
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"


@cache
def page(name: str) -> str:
    return to_html(SAMPLES[name]())


class Node:
    def __init__(self, tag: str, attributes: dict[str, str], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.content: list[Node | str] = []

    @property
    def children(self) -> list[Node]:
        return [item for item in self.content if isinstance(item, Node)]

    def all(self, *tags: str) -> list[Node]:
        below = [node for child in self.children for node in child.all(*tags)]
        return ([self] if self.tag in tags else []) + below

    def words(self) -> str:
        return "".join(item if isinstance(item, str) else item.words() for item in self.content)


class Tree(HTMLParser):
    """Builds the tree and complains about every tag that is not closed where it should be."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.open = Node("#root", {}, None)
        self.feed(source)
        self.close()
        assert self.open is self.root, f"<{self.open.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        node = Node(tag, {name: value or "" for name, value in attrs}, self.open)
        self.open.content.append(node)
        if tag not in VOID:
            self.open = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.tag == tag, f"</{tag}> closes <{self.open.tag}>"
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        self.open.content.append(data)


@cache
def tree(name: str) -> Node:
    return Tree(page(name)).root


@EVERY
def test_structure(name: str) -> None:
    root = tree(name)
    assert len(root.all("h1")) == len(root.all("main")) == len(root.all("title")) - _svgs(root) == 1
    assert {"header", "main", "nav", "footer"} <= {node.tag for node in root.all(*_LANDMARKS)}
    assert root.all("html")[0].attributes["lang"] == "en"
    ids = [node.attributes["id"] for node in _every(root) if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    for node in _every(root):
        for target in node.attributes.get("aria-labelledby", "").split():
            assert target in ids
        if node.attributes.get("href", "").startswith("#"):
            assert node.attributes["href"][1:] in ids
    levels = [int(node.tag[1]) for node in root.all("h1", "h2", "h3", "h4", "h5")]
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), "a level is skipped"


_LANDMARKS = ("header", "main", "nav", "footer")


def _every(node: Node) -> list[Node]:
    return [node, *(below for child in node.children for below in _every(child))]


def _group(figure: Node) -> Node:
    """What holds several pictures and their numbers."""
    assert figure.parent is not None
    assert figure.parent.parent is not None
    return figure.parent.parent


def _svgs(root: Node) -> int:
    return len(root.all("svg"))


@EVERY
def test_tables_have_headers_with_scope(name: str) -> None:
    tables = tree(name).all("table")
    assert tables
    for table in tables:
        assert table.all("thead")[0].all("th")
        assert all(cell.attributes.get("scope") in ("col", "row") for cell in table.all("th"))
        width = len(table.all("thead")[0].all("th"))
        for row in table.all("tbody")[0].all("tr"):
            cells = row.all("td", "th")
            spans = sum(int(cell.attributes.get("colspan", 1)) for cell in cells)
            assert spans == width or len(cells) == 1, row.words()


@EVERY
def test_every_picture_is_described_and_has_its_numbers(name: str) -> None:
    root = tree(name)
    for svg in root.all("svg"):
        assert svg.attributes["role"] == "img"
        assert svg.children[0].tag == "title"
        assert svg.children[0].words().strip()
        assert svg.children[1].tag == "desc"
        assert svg.children[1].words().strip()
    for figure in root.all("figure"):
        assert figure.all("svg")
        title = figure.all("figcaption")[0].all("strong")[0].words().rstrip(".")
        (found,) = (figure if figure.all("details") else _group(figure)).all("details")
        tables = found.all("table")
        if not figure.all("details"):  # one list of numbers for several pictures
            tables = [t for t in tables if t.all("caption")[0].words() == title]
        assert tables
        assert all(table.all("tbody")[0].all("tr") for table in tables)
    assert {svg.parent.tag for svg in root.all("svg") if svg.parent} == {"figure"}


@EVERY
def test_nothing_runs_and_nothing_is_fetched(name: str) -> None:
    source, root = page(name), tree(name)
    assert not root.all("script", "iframe", "object", "embed", "link", "base", "form", "img")
    policy = [n for n in root.all("meta") if n.attributes.get("http-equiv")]
    assert [n.attributes["content"] for n in policy] == [CSP]
    for node in _every(root):
        assert not [key for key in node.attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href", "action", "data"):
            assert node.attributes.get(key, "#").startswith(("#", "data:"))
        if key := node.attributes.get("style", ""):
            assert re.fullmatch(r"max-width:\d+(\.\d+)?px", key)
    addresses = re.findall(r"url\(\s*[\"']?([^\"')]{0,22})", source)
    assert addresses
    assert all(address.startswith("data:font/woff2;base64") for address in addresses)
    assert "@import" not in source
    if name != "hostile":
        assert "http://" not in source
        assert "https://" not in source


def test_hostile_strings_are_text() -> None:
    source, root = page("hostile"), tree("hostile")
    assert "<script" not in source
    assert "&lt;script&gt;" in source
    assert "<img" not in source
    assert "{{ 7*7 }}" in source, "strings of the record are no templates"
    assert "49" not in root.all("h1")[0].parent.words()  # type: ignore[union-attr]
    acting = "\u202e\u2066\u200f\x1b\x07\x00\x9b\u0359"
    assert not set(acting) & set(source)
    assert set(acting) <= set(HOSTILE)
    assert len(root.all("title")[0].words()) < 300


@EVERY
def test_all_sections_and_sentences_are_there(name: str) -> None:
    root = tree(name)
    parts = [n.attributes["id"] for n in root.all("section") if "part" in _classes(n)]
    assert parts == [section.name for section in sections(SAMPLES[name]())]
    said = " ".join(root.words().split())
    for sentence in MUST_APPEAR:
        assert sentence in said
    assert "undefined" not in said.lower()
    assert "None" not in said
    assert "nan" not in said.split()


def _classes(node: Node) -> list[str]:
    return node.attributes.get("class", "").split()


@pytest.mark.parametrize(
    ("make", "outcome", "exit_code"),
    [
        (passing, "Pass", 0),
        (failing, "Fail", 1),
        (over_unlearned, "Fail", 1),
        (inconclusive, "Inconclusive", 3),
        (bare, "Inconclusive", 3),
    ],
)
def test_the_verdict_comes_first(make: Callable[[], Record], outcome: str, exit_code: int) -> None:
    record = make()
    root = Tree(to_html(record)).root
    box = root.all("main")[0].children[0]
    assert box.attributes["id"] == "verdict"
    said = " ".join(box.words().split())
    assert f"{outcome} at τ = 0.50, {record.plan.policy.access} access" in said
    assert record.verdict.headline in said
    assert "Scope: these tests, at these settings" in said
    assert f"exit code {exit_code}" in said
    for text in (record.report_id, record.plan.sha256, record.subject.model.sha256):
        assert text in said
    assert f"{record.verdict.assurance_level} of 4" in said


def test_findings_are_listed_failures_first() -> None:
    record = failing()
    heads = [head for head in tree("fail").all("thead") if "Measure" in head.words()]
    table = heads[0].parent
    assert table is not None
    failed = ["fails" in _classes(row) for row in table.all("tbody")[0].children]
    assert failed == sorted(failed, reverse=True)
    assert sum(failed) == sum(finding.fails for finding in record.findings)
    assert len(failed) == len(record.findings)


def test_unsigned_probes_differ_without_a_direction() -> None:
    rows = {
        row.children[0].words().strip(): row.words()
        for row in tree("fail").all("tr")
        if "fails" in _classes(row)
    }
    distance = next(words for name, words in rows.items() if name.startswith("Softmax distance"))
    attack = next(words for name, words in rows.items() if name.startswith("Loss attack"))
    assert "differs" in distance
    assert "residual" not in distance
    assert "residual" in attack


def test_the_same_record_gives_the_same_bytes() -> None:
    assert to_html(failing()) == page("fail")


def test_dates_come_from_the_record_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert 'content="2026-05-03T14:05:09Z"' in to_html(bare())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert 'content="1970-01-02T00:00:00Z"' in to_html(bare())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    assert "dcterms.created" not in to_html(bare())


def _sheet() -> str:
    return (files("report_templates") / "audit.css").read_text(encoding="utf-8")


def test_every_svg_class_has_a_rule() -> None:
    for style in STYLES:
        assert f".chart .{style} {{" in _sheet()


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("ink", "paper"),
        ("muted", "paper"),
        ("link", "paper"),
        ("forget", "paper"),
        ("unseen", "paper"),
        ("ink", "panel"),
        ("muted", "floor"),
        *(
            ("ink", f"heat-{side}-{depth}")
            for side in ("above", "below")
            for depth in ("light", "medium", "strong", "full")
        ),
        *((outcome, f"{outcome}-tint") for outcome in ("pass", "fail", "open")),
        *(("muted", f"{outcome}-tint") for outcome in ("pass", "fail", "open")),
    ],
)
def test_text_has_the_contrast_of_wcag_aa(scheme: str, ink: str, ground: str) -> None:
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part))
        for part in _sheet().split("prefers-color-scheme: dark")
    )
    colors = light if scheme == "light" else dark
    assert light.keys() == dark.keys()
    bright, dim = sorted((_luminance(colors[ink]), _luminance(colors[ground])), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


def test_the_fonts_hold_every_character_that_reports_use() -> None:
    ttlib = pytest.importorskip("fontTools.ttLib", reason="fontTools comes with unaudit[pdf]")
    folder = files("report_templates") / "fonts"
    sizes = [
        len((folder / entry.name).read_bytes())
        for entry in folder.iterdir()
        if entry.name.endswith(".woff2")
    ]
    assert 0 < sum(sizes) <= 120_000
    for font in ("Inter-Regular.woff2", "Inter-SemiBold.woff2"):
        with (folder / font).open("rb") as stream:
            known = set(ttlib.TTFont(stream).getBestCmap())
        for name in SAMPLES:
            if name != "hostile":
                body = tree(name).all("body")[0].words()
                missing = {c for c in body if ord(c) not in known and not c.isspace()}
                assert not missing, (font, missing)
