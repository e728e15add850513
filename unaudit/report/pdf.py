"""The report as a tagged PDF (PDF/UA-1), printed from the same page as the HTML.

Needs WeasyPrint and the pango libraries below it; both are optional, so that an audit runs without.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator
from typing import Any

from unaudit.errors import InputError
from unaudit.report.html import to_html
from unaudit.report.record import Record

REMEDY = (
    "install unaudit[pdf] with WeasyPrint 68 or later, and pango "
    "(Debian: apt install libpango-1.0-0 libpangoft2-1.0-0; macOS: brew install pango)"
)


def to_pdf(record: Record) -> bytes:
    """The bytes of the file; the same record gives the same bytes under ``SOURCE_DATE_EPOCH``.

    Raises:
        InputError: WeasyPrint or pango is missing; names the packages.
    """
    page = to_html(record)
    with _quiet():
        weasyprint, fetcher_class = library()
        fetcher = fetcher_class(allowed_protocols=("data",), allow_redirects=False)
        document = weasyprint.HTML(string=page, base_url=None, url_fetcher=fetcher)
        return bytes(
            document.write_pdf(
                pdf_variant="pdf/ua-1",
                pdf_identifier=hashlib.sha256(page.encode("utf-8")).digest()[:16],
            )
        )


def library() -> tuple[Any, Any]:
    """WeasyPrint and its fetcher class; whoever wants a PDF after long work asks before it.

    Raises:
        InputError: WeasyPrint or pango is missing; names the packages.
    """
    try:
        # it prints a page to stdout where pango is missing
        with contextlib.redirect_stdout(io.StringIO()):
            import weasyprint
            from weasyprint.urls import URLFetcher
    except ImportError as error:
        raise InputError(f"the PDF was not written: no usable WeasyPrint; {REMEDY}") from error
    except OSError as error:  # cffi did not find one of pango's libraries
        raise InputError(f"the PDF was not written: pango is missing; {REMEDY}") from error
    return weasyprint, URLFetcher


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep fontTools and WeasyPrint from writing their progress to the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("weasyprint", "fontTools")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
