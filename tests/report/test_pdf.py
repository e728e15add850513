"""The PDF: tagged, reproducible, fetches nothing, and fails in one line where pango is missing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import OpenerDirector

import pytest

from unaudit.errors import InputError
from unaudit.report import parse_target, pdf, render
from unaudit.report.pdf import to_pdf

from .samples import bare, hostile, inconclusive

try:
    import weasyprint  # noqa: F401
except (ImportError, OSError) as reason:
    MISSING = str(reason)
else:
    MISSING = ""
needs_pango = pytest.mark.skipif(bool(MISSING), reason=f"WeasyPrint cannot run here: {MISSING}")


@pytest.fixture(scope="module")
def document() -> Any:
    pypdf = pytest.importorskip("pypdf")
    return pypdf.PdfReader(io.BytesIO(to_pdf(inconclusive())))


@needs_pango
def test_tagged_as_pdf_ua(document: Any) -> None:
    catalog = document.trailer["/Root"]
    assert catalog["/MarkInfo"]["/Marked"]
    assert catalog["/Lang"] == "en"
    assert catalog["/ViewerPreferences"]["/DisplayDocTitle"]
    assert b"pdfuaid:part" in catalog["/Metadata"].get_data()
    kinds: dict[str, int] = {}
    alternatives: list[str] = []

    def walk(element: Any) -> None:
        element = element.get_object()
        if not hasattr(element, "get"):
            return
        kind = element.get("/S")
        if kind is not None:
            kinds[kind] = kinds.get(kind, 0) + 1
        if kind == "/Figure":
            alternatives.append(element["/Alt"])
        below = element.get("/K", [])
        for child in below if isinstance(below, list) else [below]:
            walk(child)

    walk(catalog["/StructTreeRoot"])
    assert kinds["/H1"] == 1
    assert {"/H2", "/H3", "/P", "/Table", "/TH", "/TD", "/Figure", "/Sect"} <= kinds.keys()
    assert len(alternatives) == 2 + 2 + 2  # two forest plots, two histograms, two ROC curves
    assert all(alternatives)


@needs_pango
def test_content_and_metadata(document: Any) -> None:
    record = inconclusive()
    text = " ".join(page.extract_text() for page in document.pages)
    assert record.verdict.headline in text
    assert "Signature" in text
    assert "False-positive rate" in text, "the numbers behind figures are printed"
    assert record.report_id in document.metadata.title
    assert len(document.outline) > 0
    actions = [
        annotation.get_object().get("/A", {})
        for page in document.pages
        for annotation in page.get("/Annots", [])
    ]
    assert not [action for action in actions if "/URI" in action or "/JS" in action]
    fonts = {
        str(font.get_object()["/BaseFont"])
        for page in document.pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert all("Unaudit" in font for font in fonts), fonts


@needs_pango
def test_the_same_record_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1750000000")
    here = to_pdf(bare())
    (tmp_path / "record.json").write_text(bare().to_json(), encoding="utf-8")
    program = (
        "from pathlib import Path; from unaudit.report import *; "
        "from unaudit.report.record import Record; "
        "render(Record.read(Path('record.json')), [parse_target('pdf')])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "", "libraries do not write to the user's terminal"
    assert (tmp_path / "audit.pdf").read_bytes() == here
    pypdf = pytest.importorskip("pypdf")
    assert pypdf.PdfReader(io.BytesIO(here)).metadata.creation_date_raw == "D:20250615150640Z"


@needs_pango
def test_only_data_urls_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = OpenerDirector.open

    def record_url(self: OpenerDirector, request: Any, *rest: Any, **named: Any) -> Any:
        opened.append(getattr(request, "full_url", request))
        return real(self, request, *rest, **named)

    monkeypatch.setattr(OpenerDirector, "open", record_url)
    page = (
        '<html lang="en"><title>t</title><link rel="stylesheet" href="http://192.0.2.1/a.css">'
        '<img alt="a" src="file:///etc/hostname"><img alt="b" src="http://192.0.2.1/b.png">'
        '<img alt="c" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">'
        '<svg viewBox="0 0 9 9"><title>s</title><image href="file:///etc/hostname"/></svg></html>'
    )
    monkeypatch.setattr(pdf, "to_html", lambda _: page)
    to_pdf(bare())
    assert opened
    assert all(url.startswith("data:") for url in opened)


@needs_pango
def test_hostile_strings_can_be_printed() -> None:
    pypdf = pytest.importorskip("pypdf")
    reader = pypdf.PdfReader(io.BytesIO(to_pdf(hostile())))
    assert "<script>" in reader.pages[0].extract_text()
    assert len(reader.pages) < 40


def _without_weasyprint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "weasyprint"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("raise ImportError('No module named weasyprint')", "no usable WeasyPrint"),
        ("raise OSError(\"cannot load library 'libpango-1.0-0'\")", "pango is missing"),
    ],
)
def test_without_pango_the_html_is_still_written(
    source: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_weasyprint(monkeypatch)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "weasyprint.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(broken))
    out = tmp_path / "out"
    with pytest.raises(InputError, match=complaint) as caught:
        render(bare(), [parse_target("pdf", out), parse_target("html", out)])
    message = str(caught.value)
    assert "\n" not in message
    for remedy in (
        "unaudit[pdf]",
        "libpango-1.0-0 libpangoft2-1.0-0",
        "brew install pango",
    ):
        assert remedy in message
    assert [path.name for path in out.iterdir()] == ["audit.html"]
