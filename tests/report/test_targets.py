"""Which files are written, and that each appears whole or not at all."""

from __future__ import annotations

import builtins
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from unaudit.errors import InputError, UsageError
from unaudit.report import FORMATS, Format, Target, parse_target, render
from unaudit.report.record import Record

from .samples import bare


def test_targets_are_parsed() -> None:
    assert parse_target("html:a/b.html") == Target("html", Path("a/b.html"))
    assert parse_target("HTML") == Target("html", Path("audit.html"))
    assert parse_target("pdf", Path("out")) == Target("pdf", Path("out/audit.pdf"))
    assert parse_target("json", Path("out")) == Target("json", Path("out/record.json"))
    assert parse_target("html:C:\\a.html") == Target("html", Path("C:\\a.html"))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("htlm", "did you mean 'html'"),
        ("PDFF:a.pdf", "did you mean 'pdf'"),
        ("docx", "known: json, html, pdf"),
        ("", "known: json, html, pdf"),
        ("html:", "names no file"),
        ("html: ", "names no file"),
    ],
)
def test_wrong_targets_are_usage_errors(spec: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        parse_target(spec)
    assert "\n" not in str(caught.value)


def test_files_are_written_where_asked(tmp_path: Path) -> None:
    record = bare()
    targets = [Target("json", tmp_path / "x" / "r.json"), Target("html", tmp_path / "a.html")]
    assert render(record, targets) == [target.path for target in targets]
    assert Record.read(tmp_path / "x" / "r.json") == record
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.html", "r.json", "x"]


def test_two_reports_never_share_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(UsageError, match="give each its own path"):
        render(bare(), [Target("json", path), Target("html", path)])
    assert not path.exists()


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        render(bare(), [Target("json", tmp_path / "r.json")])
    finally:
        os.umask(before)
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o640


def _disk_full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    path.write_text("before", encoding="utf-8")
    monkeypatch.setattr(os, call, _disk_full)
    with pytest.raises(InputError, match=r"record\.json: .*No space left") as caught:
        render(bare(), [Target("json", path)])
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert path.read_text(encoding="utf-8") == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_a_write_that_stops_halfway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.open

    class Halting:
        def __init__(self, descriptor: int) -> None:
            self.file = real(descriptor, "wb")

        def __enter__(self) -> Halting:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            _disk_full()

    monkeypatch.setattr(builtins, "open", lambda path, _mode: Halting(path))
    with pytest.raises(InputError, match="No space left"):
        render(bare(), [Target("json", tmp_path / "record.json")])
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("I am a file", encoding="utf-8")
    with pytest.raises(InputError, match="choose another folder with --out"):
        render(bare(), [Target("html", tmp_path / "out" / "audit.html")])
    assert (tmp_path / "out").read_text(encoding="utf-8") == "I am a file"


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "audit.html").mkdir()
    with pytest.raises(InputError, match=r"audit\.html: cannot be written"):
        render(bare(), [Target("html", tmp_path / "audit.html")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["audit.html"]


def test_one_failing_format_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Record) -> NoReturn:
        raise InputError("no pango here")

    monkeypatch.setitem(FORMATS._items, "pdf", Format("audit.pdf", refuse))
    with pytest.raises(InputError, match="no pango here"):
        render(bare(), [parse_target("pdf", tmp_path), parse_target("html", tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["audit.html"]


def test_rendering_needs_neither_torch_nor_probes(tmp_path: Path) -> None:
    render(bare(), [Target("json", tmp_path / "record.json")])
    program = (
        "import sys, io; from pathlib import Path; from rich.console import Console\n"
        "from unaudit.report import Target, render\n"
        "from unaudit.report.record import Record\n"
        "from unaudit.report.terminal import print_summary\n"
        "record = Record.read(Path('record.json'))\n"
        "render(record, [Target('html', Path('audit.html')), Target('json', Path('again.json'))])\n"
        "print_summary(record, Console(file=io.StringIO()))\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'attacks', 'weasyprint'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "record.json").read_bytes()
