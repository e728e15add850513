from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.report.samples import failing
from unaudit.report.record import Record


@pytest.fixture
def record(here: Path) -> Path:
    path = here / "audit/record.json"
    path.parent.mkdir()
    path.write_text(failing().to_json(), encoding="utf-8")
    return path


def test_every_format_is_rendered_without_torch(record: Path, here: Path) -> None:
    script = (
        "import sys; from unaudit.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'scipy', 'sklearn', 'pyarrow', 'attacks'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    targets = ["-o", "html:a.html", "-o", "pdf:a.pdf", "-o", "json:a.json"]
    done = subprocess.run(
        [sys.executable, "-c", script, "report", str(record), *targets],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"unaudit: wrote a.{ext}" for ext in ("html", "pdf", "json")
    ]
    assert Record.read(here / "a.json") == failing()
    assert (here / "a.pdf").read_bytes().startswith(b"%PDF-")
    assert (here / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_without_a_path_it_lands_next_to_the_record(run: Run, record: Path) -> None:
    assert run("report", record, "-o", "html").code == 0
    assert (record.parent / "audit.html").is_file()


def test_without_a_format_the_summary_is_printed(run: Run, record: Path) -> None:
    result = run("report", record)
    assert (result.code, result.err) == (0, "")
    assert failing().verdict.headline[:30] in " ".join(result.out.split())
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file or directory; give a record.json"),
        ("", "not a JSON record"),
        ("[]", "schema_version is None"),
        ('{"schema_version": "9.0"}', "schema_version is '9.0'"),
        ('{"schema_version": "1.0"}', "not a valid record"),
    ],
)
def test_what_is_no_record_is_one_line(
    run: Run, here: Path, content: str | None, complaint: str
) -> None:
    if content is not None:
        (here / "record.json").write_text(content, encoding="utf-8")
    result = run("report", "record.json", "-o", "html")
    assert result.code == 2
    assert complaint in result.complaint()
    assert not (here / "audit.html").exists()


def test_a_wrong_format_is_one_line(run: Run, record: Path) -> None:
    result = run("report", record, "-o", "pfd")
    assert result.code == 2
    assert result.complaint() == "unknown report format 'pfd' (did you mean 'pdf'?)"


def test_an_unwritable_place_is_one_line(run: Run, record: Path, here: Path) -> None:
    (here / "file").touch()
    result = run("report", record, "-o", "html:file/a.html")
    assert result.code == 2
    assert "file/a.html: cannot be written" in result.complaint()
