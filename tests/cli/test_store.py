"""``unaudit store``: tables, strict sizes and times, exit codes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.hugging_face import trained_tokenizer, words, write_jsonl
from unaudit.cli.quantities import age
from unaudit.cli.store import PURPOSES, _iso
from unaudit.data import open_dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.engine.store import Store, content_key
from unaudit.plan import DataSection, PreprocessSection

LOGITS = [content_key("logits", number=number) for number in range(3)]
MODEL = content_key("unaudit.training.model_job:make_model", seed=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = Store(tmp_path / "store")
    for key in LOGITS:
        store.array(key, (1000,), np.uint8, lambda array: array.fill(1))
    store.blob(MODEL, lambda: bytes(50_000))
    store.secret()
    return store.root


def path_of(root: Path, key: str) -> Path:
    (path,) = (root / key[:2]).glob(f"{key}.*")
    return path


def used(root: Path, key: str, days: float) -> None:
    when = time.time() - days * 86_400
    os.utime(path_of(root, key), (when, when))


def spoil(root: Path, key: str) -> Path:
    path = path_of(root, key)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return path


def test_everything_that_texts_leave_is_explained(run: Run, tmp_path: Path) -> None:
    trained_tokenizer(words()).save(str(tmp_path / "tokenizer.json"))
    path = write_jsonl(tmp_path / "d.jsonl", ["w1 w2", "w3"], [0, 1], "t")
    data = open_dataset(
        str(path),
        DataSection(),
        PreprocessSection(tokenizer=str(tmp_path)),
        Store(tmp_path / "store"),
    )
    assert isinstance(data, TextDataset)
    assert len(data.compressed_sizes()) == len(data.fingerprints()) == 2
    found = json.loads(run("store", "ls", "--store", tmp_path / "store", "--json").out)
    kinds = {kind["kind"] for kind in found["kinds"]}
    assert {"tokens", "token counts", "unknown tokens"} < kinds <= {*PURPOSES}
    assert "token scores" in PURPOSES


def test_ls_groups_by_kind_and_says_what_each_is(run: Run, root: Path) -> None:
    used(root, MODEL, 3.5)
    result = run("store", "ls", "--store", root)
    assert result.code == 0
    assert result.err == ""
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[0] == str(root)
    assert lines[1:] == [
        "kind entries size oldest used what it is",
        "make_model 1 48.9 KiB now 3 d trained and unlearned models",
        "logits 3 3.5 KiB now now outputs of models",
        "total 4 52.4 KiB",
    ]
    assert max(map(len, result.out.splitlines()[1:])) <= 80


def test_ls_as_json(run: Run, root: Path) -> None:
    told = json.loads(run("store", "ls", "--json", "--store", root).out)
    assert told["store"] == str(root)
    assert [(row["kind"], row["entries"]) for row in told["kinds"]] == [
        ("make_model", 1),
        ("logits", 3),
    ]
    assert told["kinds"][0]["bytes"] == path_of(root, MODEL).stat().st_size
    assert told["kinds"][0]["oldest"].endswith("+00:00")


def test_ls_shows_old_damaged_and_unfinished_files_and_hostile_kinds(run: Run, root: Path) -> None:
    key = content_key("\x1b[31mred\n[bold]", name=1)
    Store(root).blob(key, lambda: b"")
    (root / "ab").mkdir(exist_ok=True)
    (root / "ab" / f"{'ab' * 32}.blob").write_bytes(b"old")
    (root / "ab" / ".part-x1y2z3_0").write_bytes(b"part")
    (root / "damaged").mkdir()
    (root / "damaged" / f"{'ab' * 32}.blob").write_bytes(b"bad")
    out = run("store", "ls", "--store", root).out
    assert "\x1b" not in out
    for kind in ("unknown", "damaged", "unfinished", "[bold]"):
        assert kind in out
    rows = {
        row["kind"]: row
        for row in json.loads(run("store", "ls", "--json", "--store", root).out)["kinds"]
    }
    assert rows["unknown"]["oldest"] is None
    assert str(key.kind) in rows
    assert _iso(1e12) is None  # files can be dated to the year 33658


def test_the_default_store_may_not_be_there_yet_but_a_named_one_must(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNAUDIT_STORE", str(tmp_path / "none"))
    assert run("store", "ls").out.splitlines()[1:] == ["empty"]
    assert run("store", "gc", "--max-size", "1G").code == 0
    assert run("store", "verify").code == 0
    assert not (tmp_path / "none" / "ab").exists()
    for command in ("ls", "gc", "verify"):
        result = run("store", command, "--store", tmp_path / "typo")
        assert result.code == 2
        assert "no such folder; check --store" in result.complaint()


def test_gc_removes_what_is_old(run: Run, root: Path) -> None:
    used(root, LOGITS[0], 31)
    used(root, MODEL, 29)
    flags = ("--older-than", "30d", "--store", root)
    rehearsal = run("store", "gc", "--dry-run", *flags)
    assert rehearsal.out.splitlines() == [
        "would remove 1 entry (1.2 KiB): logits 1",
        "kept 3 entries (51.2 KiB)",
    ]
    assert path_of(root, LOGITS[0]).exists()
    done = run("store", "gc", *flags)
    assert done.code == 0
    assert done.out == rehearsal.out.replace("would remove", "removed")
    assert not list(root.rglob(f"{LOGITS[0]}*"))
    assert (root / "auditor.key").stat().st_size == 32


def test_gc_says_what_is_in_use_and_what_was_abandoned(run: Run, root: Path) -> None:
    (root / ".part-auditor-x1y2z3_0").write_bytes(b"")
    os.utime(root / ".part-auditor-x1y2z3_0", (0, 0))
    store = Store(root)
    store.find(MODEL)
    result = run("store", "gc", "--max-size", "0B", "--store", root)
    assert result.out.splitlines() == [
        "removed 3 entries (3.5 KiB): logits 3",
        "removed 1 abandoned file (0 B)",
        "in use, so not removed: 1 entry (48.9 KiB)",
        "kept 0 entries (0 B)",
    ]
    del store


def test_gc_of_a_kind(run: Run, root: Path) -> None:
    assert "removed 3 entries" in run("store", "gc", "--kind", "logits", "--store", root).out
    # a job that cleans every night must not fail when there is nothing left
    assert "removed 0 entries" in run("store", "gc", "--kind", "logits", "--store", root).out
    result = run("store", "gc", "--kind", "logts", "--store", root)
    assert result.code == 2
    assert "no kind 'logts' (did you mean 'logits'?)" in result.complaint()


@pytest.mark.parametrize("text", ["30", "d", "-1d", "30x", "1e3d", "3 d", "30D", "1h30m", "٣d", ""])
def test_times_are_read_strictly(run: Run, root: Path, text: str) -> None:
    result = run("store", "gc", "--store", root, "--older-than", text)
    assert result.code == 2
    assert "is no time; write a number and s, m, h, d or w, like 30d" in result.complaint()


@pytest.mark.parametrize("text", ["10", "G", "-1G", "10X", "1e3G", "10 G", "10GiBs", "0x10G", ""])
def test_sizes_are_read_strictly(run: Run, root: Path, text: str) -> None:
    result = run("store", "gc", "--store", root, "--max-size", text)
    assert result.code == 2
    assert "is no size; write a number and B, K, M, G or T, like 10G" in result.complaint()


@pytest.mark.parametrize(
    ("text", "days", "goes"),
    [
        ("90s", 0.0011, True),
        ("90s", 0.0009, False),
        ("45m", 0.032, True),
        ("1.5h", 0.06, False),
        ("2w", 14.1, True),
        ("2w", 13.9, False),
        ("999999999999w", 9999, False),
    ],
)
def test_units_of_time(run: Run, root: Path, text: str, days: float, goes: bool) -> None:
    used(root, MODEL, days)
    run("store", "gc", "--store", root, "--older-than", text)
    assert path_exists(root, MODEL) is not goes


@pytest.mark.parametrize(
    ("text", "goes"),
    [
        ("48K", True),
        ("50k", False),
        ("50KiB", False),
        ("50KB", True),
        ("0.06MB", False),
        ("1G", False),
        ("999999999999T", False),
    ],
)
def test_units_of_size(run: Run, root: Path, text: str, goes: bool) -> None:
    """The model takes 50,000 bytes and its seal."""
    run("store", "gc", "--store", root, "--kind", "make_model", "--max-size", text)
    assert path_exists(root, MODEL) is not goes


def test_a_size_is_exact_to_the_byte(run: Run, root: Path) -> None:
    size = path_of(root, MODEL).stat().st_size
    for limit, left in ((size, True), (size - 1, False)):
        run("store", "gc", "--store", root, "--kind", "make_model", "--max-size", f"{limit}B")
        assert path_exists(root, MODEL) is left


def path_exists(root: Path, key: str) -> bool:
    return bool(list(root.rglob(f"{key}.*")))


def test_verify_lists_what_is_damaged_and_fails(run: Run, root: Path) -> None:
    assert run("store", "verify", "--store", root).out == "4 entries, all whole\n"
    path = spoil(root, LOGITS[1])
    result = run("store", "verify", "--store", root)
    assert result.code == 2
    first, last = result.out.splitlines()
    assert first.startswith(f"{path}: unknown, its end is missing")
    assert last.startswith("1 of 4 entries damaged; set them aside with --repair")
    assert path.exists()
    quiet = run("store", "verify", "-q", "--store", root)
    assert (quiet.code, quiet.out.splitlines()) == (2, [last])


def test_verify_repairs_by_setting_aside(run: Run, root: Path) -> None:
    path = spoil(root, LOGITS[1])
    result = run("store", "verify", "--repair", "--store", root)
    assert result.code == 0
    assert result.out.splitlines()[-1] == "1 of 4 entries damaged and set aside"
    assert (root / "damaged" / path.name).exists()
    assert run("store", "verify", "--store", root).out == "3 entries, all whole\n"


def test_a_long_list_is_cut(run: Run, tmp_path: Path) -> None:
    for number in range(25):
        key = content_key("x", number=number)
        Store(tmp_path).blob(key, lambda: b"")
        spoil(tmp_path, key)
    lines = run("store", "verify", "--store", tmp_path).out.splitlines()
    assert len(lines) == 22
    assert lines[20] == "and 5 more"


def test_no_command_shows_the_help(run: Run) -> None:
    result = run("store")
    assert result.code == 2
    assert "verify" in result.err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "now"), (59, "now"), (60, "1 min"), (7300, "2 h"), (86_400 * 1234, "1,234 d")],
)
def test_ages(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
