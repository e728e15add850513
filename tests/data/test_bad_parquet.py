"""Parquet files that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.data.complaints import complaint_about, kept_parquet, use
from tests.data.conftest import Opener
from unaudit.data import parquet

Encode = Callable[..., bytes]


LISTS = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"x": LISTS}, "set data.label_column"),
        ({"x": LISTS, "label": [0, None]}, "label of example 1 is missing"),
        ({"x": LISTS, "label": [0.0, 0.5]}, "example 1 is 0.5"),
        ({"x": LISTS, "label": [0, 1], "id": ["a", None]}, "id of example 1 is missing"),
        ({"x": LISTS, "label": [0, 1], "id": [1.5, 2.5]}, "id of example 0 is '1.5'"),
        ({"x": [[1.0, 2.0], [3.0]], "label": [0, 1]}, "example 1 has a list of 1 values"),
        ({"x": [[1.0, 2.0], None], "label": [0, 1]}, "example 1 has missing values"),
        ({"x": [[1.0, 2.0], [None, 1.0]], "label": [0, 1]}, "example 1 has missing values"),
        (
            {"x": pa.array([[], []], pa.list_(pa.int8())), "label": [0, 1], "id": ["a", "b"]},
            "example 'a' has an empty list",
        ),
        ({"x": [[[1, 2], [3, 4]], [[1, 2], [3]]], "label": [0, 1]}, "example 1 has a list of 1"),
        ({"x": [["a"], ["b"]], "label": [0, 1]}, "neither images nor numbers"),
        ({"x": [[1.0], [float("nan")]], "label": [0, 1]}, "example 1 holds NaN"),
        ({"a": [1, None], "label": [0, 1]}, "example 1 has no value in column 'a'"),
        ({"a": [1, 2], "note": ["p", "q"], "label": [0, 1]}, "column 'note' holds string"),
        ({"pixels": LISTS, "label": [0, 1]}, "column 'pixels' holds list"),
        ({"id": [1, 2], "label": [0, 1]}, "no columns besides label and id"),
        ({"image": LISTS, "x": LISTS, "label": [0, 1]}, "both 'image' and 'x' exist"),
        ({"image": [b"abc", b"d"], "label": [0, 1]}, "example 0 is not a PNG"),
        ({"image": [None, b"d"], "label": [0, 1]}, "example 0 has no image bytes"),
        ({"image": [{"bytes": None, "path": "a"}] * 2, "y": [0, 1]}, "holds struct"),
        ({"a": [1.5], "label": pa.array([0])}, ""),
    ],
)
def test_parquet_columns(
    tmp_path: Path, opened: Opener, columns: dict[str, Any], complaint: str
) -> None:
    path = kept_parquet(tmp_path / "d.parquet", columns)
    if complaint:
        assert complaint in complaint_about(opened, path)
    else:
        use(opened(path))


def test_parquet_images_stored_by_path_only(tmp_path: Path, opened: Opener, encode: Encode) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    png = encode(np.zeros((4, 4, 3), dtype=np.uint8))
    images = pa.array([{"bytes": png, "path": "a"}, {"bytes": None, "path": "b"}], kind)
    path = kept_parquet(
        tmp_path / "d.parquet", {"image": images, "label": [0, 1], "id": ["p", "q"]}
    )
    assert "example 'q' has no image bytes" in complaint_about(opened, path)


def test_parquet_without_rows(tmp_path: Path, opened: Opener) -> None:
    path = kept_parquet(tmp_path / "d.parquet", {"a": pa.array([], pa.int64()), "label": []})
    assert "holds 0 examples" in complaint_about(opened, path)


def test_parquet_cut_short_or_damaged(tmp_path: Path, opened: Opener) -> None:
    rng = np.random.default_rng(0)
    x = [row.tolist() for row in rng.random((50, 20))]
    whole = kept_parquet(tmp_path / "d.parquet", {"x": x, "label": [0] * 50}).read_bytes()
    for length in range(4, len(whole), len(whole) // 23):
        (tmp_path / "cut.parquet").write_bytes(whole[:length])
        assert "damaged or truncated" in complaint_about(opened, tmp_path / "cut.parquet")
    (tmp_path / "hole.parquet").write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    assert "damaged parquet" in complaint_about(opened, tmp_path / "hole.parquet")


def test_parquet_row_groups_must_fit_in_memory(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 1 << 20)
    rows = {"x": np.random.default_rng(0).random((4000, 50)).tolist(), "y": [0] * 4000}
    path = kept_parquet(tmp_path / "d.parquet", rows)
    assert "write the file with smaller row groups" in complaint_about(opened, path)
    use(opened(kept_parquet(tmp_path / "e.parquet", rows, row_group_size=1000)))


def test_parquet_claiming_too_many_rows(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_EXAMPLES", 3)
    path = kept_parquet(tmp_path / "d.parquet", {"a": [1.0] * 4, "label": [0] * 4})
    assert "holds 4 examples; give data with 1 to 3" in complaint_about(opened, path)
