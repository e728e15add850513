"""What lies in a folder that an audit may be about: files and folders of usual names."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODELS: Mapping[str, tuple[str, ...]] = {
    "model.path": ("subject", "unlearned", "model"),
    "references.original": ("original",),
}
DATA: Mapping[str, tuple[str, ...]] = {
    "data.train": ("train",),
    "data.unseen": ("unseen", "test"),
    "request.forget": ("forget", "forget-ids", "forget_ids"),
}
"""Names without their endings, the first that is there counts."""
WEIGHTS = (".safetensors", ".pt", ".pth")
TABLES = (".jsonl", ".parquet", ".csv", ".tsv", ".npz")
LIST = (".txt",)
CONFIG = "config.json"
LONGEST_LINE = 1 << 20
"""Characters of a line that is looked at."""


def is_text_model(path: str | Path) -> bool:
    """Whether this is a folder in Hugging Face layout that says itself what it is."""
    return (Path(path) / CONFIG).is_file()


def found_around(folder: Path) -> dict[str, str]:
    """Answers by key of the plan, as paths in ``folder``."""
    found = {"model.path": "."} if is_text_model(folder) else {}
    for key, names in MODELS.items():
        _take(found, key, [name for stem in names for name in _models(folder, stem)])
    for key, names in DATA.items():
        endings = LIST if key == "request.forget" else TABLES
        files = [f"{stem}{ending}" for stem in names for ending in endings]
        _take(found, key, [name for name in files if (folder / name).is_file()])
    retrained = _numbered(entry.name for entry in folder.glob("retrained*") if _is_model(entry))
    # names with spaces cannot be told apart in a list of names
    _take(found, "references.retrained", [" ".join(x for x in retrained if " " not in x)])
    return found


def text_column(model: Path, data: Path) -> str | None:
    """The column that a model of texts reads, if it bears no usual name and is the only one of
    texts; None as well for other models."""
    from unaudit.data.source import ID_NAMES, LABEL_NAMES, TEXT_NAMES

    row = _first_row(data) if is_text_model(model) else {}
    if any(name in row for name in TEXT_NAMES):
        return None
    texts = [
        name
        for name, value in row.items()
        if isinstance(value, str) and name not in (*ID_NAMES, *LABEL_NAMES)
    ]
    return texts[0] if len(texts) == 1 else None


def holds_texts(data: str | Path) -> bool:
    """Whether this is a table with a column of texts that bears a usual name."""
    from unaudit.data.source import TEXT_NAMES

    row = _first_row(Path(data))
    return any(isinstance(row.get(name), str) for name in TEXT_NAMES)


def _take(found: dict[str, str], key: str, names: list[str]) -> None:
    if key not in found and names and names[0]:
        found[key] = names[0]


def _models(folder: Path, stem: str) -> list[str]:
    names = [stem, *(f"{stem}{ending}" for ending in WEIGHTS)]
    return [name for name in names if _is_model(folder / name)]


def _is_model(path: Path) -> bool:
    return is_text_model(path) or (path.is_file() and path.suffix in WEIGHTS)


def _numbered(names: Any) -> list[str]:
    """retrained-2 before retrained-10."""
    return sorted(names, key=lambda name: [int(x) for x in re.findall("[0-9]{1,9}", name)])


def _first_row(path: Path) -> Mapping[str, Any]:
    """By column; nothing if the file cannot be read: whoever audits it says why."""
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                rows = next(file.iter_batches(batch_size=1)).to_pylist()
            return dict(rows[0]) if rows else {}
        with path.open(encoding="utf-8-sig") as text:
            if path.suffix == ".jsonl":
                row = json.loads(text.readline(LONGEST_LINE))
                return row if isinstance(row, dict) else {}
            if path.suffix in (".csv", ".tsv"):
                delimiter = "\t" if path.suffix == ".tsv" else ","
                lines = csv.DictReader(text, delimiter=delimiter)
                return {str(k): _cell(v) for k, v in next(lines, {}).items()}
    except Exception:  # a guess is all that depends on it
        return {}
    return {}


def _cell(value: object) -> object:
    """A number where it is one."""
    try:
        return float(str(value))
    except ValueError:
        return value
