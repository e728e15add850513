"""CSV and JSON lines that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.complaints import complaint_about
from tests.data.conftest import Opener


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n", "set data.label_column"),
        ("label\n1\n", "no columns besides label and id"),
        ("a,label\n", "holds no examples"),
        ("a,label\n1,0\n2\n", "not a table of separated values"),
        ("a,label\n1,0\n2,3,1\n", "put values that hold a separator in double quotes"),
        (
            "a;label\n1;0\n",
            "the one column 'a;label', with semicolons in it; separate columns with",
        ),
        ("a\tlabel\n1\t0\n", "with tabs in it; separate columns with commas (.csv)"),
        ("a,a,label\n1,1,0\n", "two columns have the same name"),
        ("a,label\n1,0\nx,1\n", "example 1 has 'x' in column 'a', which must hold numbers"),
        ("a,label\n1,0\n,1\n", "example 1 has no value in column 'a'"),
        ("a,label\n1,0\n1_0,1\n", "'1_0' in column 'a'"),
        ("a,label\n1,0\n٣,1\n", "'٣' in column 'a'"),
        ("a,label\n1,0\nnan,1\n", "example 1 holds NaN"),
        ("a,label\n1,0\n1e999,1\n", "example 1 holds NaN or infinite"),
        ("a,label\n1,0\n2,\n", "label of example 1 is missing"),
        ("a,label\n1,0\n2,-1\n", "label of example 1 is -1"),
        ("a,label,id\n1,0,p\n2,1,p\n", "examples 0 and 1 have the same id 'p'"),
        ("a,label,id\n1,0,p\n2,1,\n", "id of example 1 is missing"),
        ("5.1,3.5,0\n4.9,3.0,0\n", "called label or labels or y (found: '5.1', '3.5', '0')"),
        ("a,label\n" + "9" * 500 + "z,0\n", "which must hold numbers"),
    ],
)
def test_csv(tmp_path: Path, opened: Opener, text: str, complaint: str) -> None:
    (tmp_path / "d.csv").write_text(text, encoding="utf-8")
    assert complaint in complaint_about(opened, tmp_path / "d.csv")


def test_csv_that_is_not_utf8(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "d.csv").write_bytes(b"a,label\n1,caf\xe9\n")
    said = complaint_about(opened, tmp_path / "d.csv")
    assert "not a table of separated values" in said
    assert said.endswith("; save it as UTF-8")


def test_tsv_with_commas(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "d.tsv").write_text("a,label\n1,0\n")
    assert "with commas in it; separate columns" in complaint_about(opened, tmp_path / "d.tsv")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\n\n", "holds no examples"),
        ('{"x": [1, 2]}\n', "set data.label_column"),
        ('{"x": [1, 2], "y": 0}\nnonsense\n', "line 2 is not JSON"),
        ('{"x": [1, 2], "y": 0}\n[1]\n', "line 2 is not a JSON object"),
        ('{"x": [1, 2], "y": 0}\n{"x": [1, 2]}\n', "example 1 has no 'y'"),
        ('{"x": [1, 2], "y": 0}\n{"x": [1], "y": 0}\n', "example 1 has inputs of shape (1,)"),
        ('{"x": [1, 2], "y": 0}\n{"x": ["1", 2], "y": 0}\n', "inputs that are not numbers"),
        ('{"x": [1, 2], "y": 0}\n{"x": [null, 2], "y": 0}\n', "inputs that are not numbers"),
        ('{"x": [1, 2], "y": 0}\n{"x": "12", "y": 0}\n', "inputs that are not numbers"),
        ('{"x": [1, 2], "y": 0}\n{"x": [[1], [1, 2]], "y": 0}\n', "lists of different length"),
        ('{"x": [[1], [1, 2]], "y": 0}\n', "lists of different length"),
        ('{"x": [], "y": 0}\n', "inputs that are not numbers"),
        ('{"x": [1, NaN], "y": 0}\n', "example 0 holds NaN"),
        ('{"x": [1, 1e999], "y": 0}\n', "example 0 holds NaN or infinite"),
        ('{"x": [1], "y": null}\n', "label of example 0 is missing"),
        ('{"x": [1], "y": -2}\n', "label of example 0 is -2"),
        ('{"x": [1], "y": 0, "id": {}}\n', "id of example 0 is '{}'"),
        ('{"x": [1], "y": 0, "id": "\\u0000"}\n', "holds control characters"),
        ('{"text": "a film", "label": 0}\n', "holds texts, but there is no tokenizer"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + ', "y": 0}\n', "line 1 is not JSON"),
        ('{"x": [' + "9" * 5000 + '], "y": 0}\n', ""),
        ('{"y": 0}\n', "no columns besides label and id"),
    ],
)
def test_jsonl(tmp_path: Path, opened: Opener, text: str, complaint: str) -> None:
    (tmp_path / "d.jsonl").write_text(text, encoding="utf-8")
    assert complaint in complaint_about(opened, tmp_path / "d.jsonl")


def test_jsonl_lines_are_bounded(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unaudit.data.text_table.BLOCK_BYTES", 1 << 20)
    (tmp_path / "d.jsonl").write_text(json.dumps({"x": [0] * (1 << 19), "y": 0}))
    assert "line 1 is longer than 1 MiB" in complaint_about(opened, tmp_path / "d.jsonl")
