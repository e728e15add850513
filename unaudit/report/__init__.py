"""Reports: one record in, files out. Nothing here imports torch or a probe.

A format is one function from a record to the bytes of a file, registered in :data:`FORMATS`; third
parties add theirs through the entry-point group ``unaudit.reports``. Its module is imported only
when the format is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unaudit.errors import UnauditError, UsageError
from unaudit.registry import Registry
from unaudit.report.files import write_atomically

if TYPE_CHECKING:
    from unaudit.report.record import Record


@dataclass(frozen=True)
class Format:
    """One kind of report."""

    filename: str
    """What the file is called where no path is given."""
    encode: Callable[[Record], bytes]
    """The whole file; raises an UnauditError where the format cannot be made on this machine."""


FORMATS: Registry[Format] = Registry("report format", "unaudit.reports")


@dataclass(frozen=True)
class Target:
    """One file to write."""

    format: str
    path: Path


def parse_target(spec: str, folder: Path = Path()) -> Target:
    """``FORMAT`` or ``FORMAT:PATH``; without a path the file gets its usual name in ``folder``.

    Raises:
        UsageError: no such format, or nothing after the colon.
    """
    name, colon, path = spec.partition(":")
    usual = FORMATS.get(name.strip().lower()).filename
    if colon and not path.strip():
        raise UsageError(f"'{spec}' names no file after the colon; write {name}:PATH or {name}")
    return Target(name.strip().lower(), Path(path) if colon else folder / usual)


def render(record: Record, targets: Sequence[Target]) -> list[Path]:
    """Write every target and return the paths; each file appears whole or not at all.

    One target that cannot be made does not keep the others from being written.

    Raises:
        UsageError: two targets share a path, or an unknown format; nothing is written then.
        InputError: a file cannot be written, or a format lacks a system library; the message is
            that of the first such target, raised after the other targets were written.
    """
    paths = [target.path for target in targets]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"two reports would be written to {path}; give each its own path")
    encoders = [FORMATS.get(target.format).encode for target in targets]
    attempts = [
        _attempt(path, encode, record) for path, encode in zip(paths, encoders, strict=True)
    ]
    failures = [failure for failure in attempts if failure is not None]
    if failures:
        raise failures[0]
    return paths


def _attempt(path: Path, encode: Callable[[Record], bytes], record: Record) -> UnauditError | None:
    try:
        write_atomically(path, encode(record))
    except UnauditError as error:
        return error
    return None


def _json(record: Record) -> bytes:
    return record.to_json().encode("utf-8")


def _html(record: Record) -> bytes:
    from unaudit.report.html import to_html

    return to_html(record).encode("utf-8")


def _pdf(record: Record) -> bytes:
    from unaudit.report.pdf import to_pdf

    return to_pdf(record)


FORMATS.register("json")(Format("record.json", _json))
FORMATS.register("html")(Format("audit.html", _html))
FORMATS.register("pdf")(Format("audit.pdf", _pdf))
