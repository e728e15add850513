"""``unaudit check``: the reports it writes and the command that it says repeats the audit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import FakeAudit, Run, with_outcome
from tests.report.samples import failing, hostile, inconclusive, passing

BASE = ("check", "m.pt", "--forget", "ids.txt", "--train", "t.npz")
JSON = ("-o", "json")


class TestReports:
    def test_html_and_pdf_by_default(
        self, run: Run, here: Path, fake_audit: FakeAudit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("unaudit.report.pdf.to_pdf", lambda _: b"%PDF-")
        result = run(*BASE, "--out", "audit")
        assert result.code == 0
        names = {path.name for path in (here / "audit").iterdir()}
        assert names == {"record.json", "audit.html", "audit.pdf"}
        assert "unaudit: wrote audit/audit.html" in result.err
        assert passing().verdict.headline[:40] in " ".join(result.out.split())

    def test_the_record_is_always_written(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        assert run(*BASE, "-o", "html:else/where.html", "--out", "audit").code == 0
        assert [path.name for path in (here / "audit").iterdir()] == ["record.json"]
        assert (here / "else/where.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

    @pytest.mark.parametrize("asked", [False, True])
    def test_without_pango_pdf_is_missed_only_if_it_was_asked_for(
        self,
        run: Run,
        here: Path,
        fake_audit: FakeAudit,
        monkeypatch: pytest.MonkeyPatch,
        asked: bool,
    ) -> None:
        # the import fails as it does where the extra is not installed
        monkeypatch.setitem(sys.modules, "weasyprint", None)
        fake_audit.record = failing()
        flags = ["-o", "html", "-o", "pdf"] if asked else []
        result = run(*BASE, *flags)
        assert result.code == (2 if asked else failing().verdict.exit_code)
        assert ("warning: " in result.err) is not asked
        assert "pdf" in result.err.lower()
        assert (fake_audit.plans == []) is asked

    @pytest.mark.parametrize(
        "flags", [["--out", "file/audit"], ["-o", "json:file/a.json"], ["--out", "file"]]
    )
    def test_an_unwritable_folder_is_found_before_the_work(
        self, run: Run, here: Path, fake_audit: FakeAudit, flags: list[str]
    ) -> None:
        (here / "file").touch()
        result = run(*BASE, *flags)
        assert result.code == 2
        assert "cannot write reports there (" in result.complaint()
        assert "choose another folder with --out" in result.complaint()
        assert fake_audit.plans == []

    def test_hostile_strings_reach_the_terminal_harmless(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        fake_audit.record = hostile()
        for flags in ([], ["-q"]):
            result = run(*BASE, *JSON, *flags)
            assert "\x1b" not in result.out
            assert "\u202e" not in result.out

    def test_quiet_is_one_line(self, run: Run, here: Path, fake_audit: FakeAudit) -> None:
        fake_audit.record = inconclusive()
        result = run(*BASE, *JSON, "-q")
        assert result.err == ""
        assert len(result.out.splitlines()) == 1
        assert result.out.startswith("inconclusive: ")

    def test_a_reader_that_went_away_changes_no_verdict(
        self, run: Run, here: Path, fake_audit: FakeAudit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(*_: object, **__: object) -> None:
            raise BrokenPipeError

        monkeypatch.setattr("unaudit.report.terminal.print_summary", gone)
        monkeypatch.setattr("unaudit.cli.auditing.drop_stdout", lambda: None)
        fake_audit.record = with_outcome(passing(), "fail", 1)
        assert run(*BASE, *JSON).code == 1


class TestCommandThatRepeats:
    def test_folders_and_whereabouts_are_left_out(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        run(
            *("check", "/secret/m.pt", "--forget", "/home/me/ids.txt", "--train", "/d/t.npz"),
            *("--retrained", "/r/a.pt", "--retrained", "/r/b.pt", "--accept-black-box"),
            *("--out", here / "audit", "--store", "/cache", "--seed", "3", *JSON),
        )
        assert fake_audit.commands == [
            "unaudit check m.pt --retrained a.pt --retrained b.pt --forget ids.txt --train t.npz "
            "--accept-black-box --seed 3"
        ]

    def test_the_config_is_named(self, run: Run, here: Path, fake_audit: FakeAudit) -> None:
        config = here / "models/unaudit.toml"
        config.parent.mkdir()
        config.write_text('[data]\ntrain = "t.npz"\n[request]\nforget = "ids.txt"\n')
        run("check", "models/m.pt", *JSON)
        assert fake_audit.commands == ["unaudit check m.pt --config unaudit.toml"]

    def test_it_is_quoted_for_a_shell(self, run: Run, here: Path, fake_audit: FakeAudit) -> None:
        run(*BASE, "--arch", "py:a.b:c?x=1&y=2", "--trust-code", *JSON)
        assert "--arch 'py:a.b:c?x=1&y=2' --trust-code" in str(fake_audit.commands[0])
