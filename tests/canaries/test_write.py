"""Canaries go into the training data the way it is stored, and come out as they were made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.conftest import Tiny
from tests.data.writers import PREPROCESS, WRITERS, Encode, Writer, write_npz
from unaudit.canaries import Canaries, Design, Paths, draw, write
from unaudit.canaries.names import Names, list_text, name_canaries, request_text
from unaudit.data import Dataset, locate, open_dataset, read_ids
from unaudit.data.ids import ForgetList, read_forget_list
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.plan import DataSection, PreprocessSection

DESIGN = Design(count=4, seed=11)


def opened(path: Path, store: Path, **preprocess: object) -> Dataset:
    settings = PreprocessSection(**preprocess)  # type: ignore[arg-type]
    return open_dataset(str(path), DataSection(), settings, Store(store))


def made(path: Path, folder: Path) -> tuple[Dataset, Canaries, Names, Paths]:
    """Canaries of a data set, written."""
    train = opened(path, folder / "store", scale=1.0)
    canaries = draw(train, DESIGN)
    names = name_canaries(canaries, train, None, by_position=False, seed=DESIGN.seed)
    out = folder / "out"
    paths = write(out, canaries, names, train, DataSection(), lambda *_: {"note.txt": "é"})
    return train, canaries, names, paths


def append(path: Path, planted: Path) -> Path:
    """What a user does with the planted half; returns the data with it."""
    together = path.with_name(f"with-{path.name}")
    if path.is_dir():
        shutil.copytree(path, together)
        shutil.copytree(planted, together, dirs_exist_ok=True)
    elif path.suffix == ".parquet":
        tables = [pq.read_table(file) for file in (path, planted)]
        assert tables[0].schema.equals(tables[1].schema)
        pq.write_table(pa.concat_tables(tables), together)
    elif path.suffix == ".npz":
        with np.load(path) as old, np.load(planted) as new:
            assert set(old.files) == set(new.files)
            parts = {name: (old[name], new[name]) for name in old.files}
        for old_part, new_part in parts.values():
            assert old_part.dtype.kind == new_part.dtype.kind
            assert old_part.dtype.kind in "US" or old_part.dtype == new_part.dtype
        joined: dict[str, Any] = {n: np.concatenate(part) for n, part in parts.items()}
        np.savez(together, **joined)
    else:
        return planted  # other formats get an npz, to be converted by whoever needs it
    return together


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_a_model_is_fed_what_was_made(
    writer: Writer, tmp_path: Path, tiny: Tiny, encode: Encode
) -> None:
    path = writer(tmp_path, tiny, encode)
    train, canaries, names, paths = made(path, tmp_path)
    assert paths.others == (tmp_path / "out/note.txt",)
    combined = opened(append(path, paths.planted), tmp_path / "store", **PREPROCESS)
    rows = locate(
        [n for n, own in zip(names.listed, canaries.planted, strict=True) if own], combined
    )
    fed = np.concatenate([batch.numpy() for batch in combined.batches(rows, 3)])
    mean, std = (np.array(PREPROCESS[key])[:, None, None] for key in ("mean", "std"))
    expected = (canaries.inputs[canaries.planted] / 255 - mean) / std
    np.testing.assert_allclose(fed, expected, atol=1e-5)
    assert combined.labels[rows].tolist() == canaries.labels[canaries.planted].tolist()
    if combined.classes is not None and train.classes is not None:
        assert combined.classes == train.classes
    held_out = opened(paths.held_out, tmp_path / "store", scale=1.0)
    assert len(held_out) == DESIGN.count
    assert not set(held_out.ids.tolist()) & set(combined.ids.tolist())  # type: ignore[union-attr]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_the_same_seed_writes_the_same_bytes(
    writer: Writer, tmp_path: Path, tiny: Tiny, encode: Encode
) -> None:
    path = writer(tmp_path, tiny, encode)
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made(path, tmp_path / name)
        files = sorted(p for p in (tmp_path / name / "out").rglob("*") if p.is_file())
        runs.append({p.relative_to(tmp_path / name): p.read_bytes() for p in files})
    assert runs[0] == runs[1]
    assert len(runs[0]) >= 3


@pytest.mark.parametrize(
    ("x", "layout"),
    [
        (np.arange(40 * 7, dtype=np.float64).reshape(40, 7), "as-is"),
        (np.arange(40 * 12, dtype=np.int16).reshape(40, 3, 4), "as-is"),
        (np.arange(40 * 24, dtype=np.uint8).reshape(40, 4, 3, 2), "nhwc"),
        (np.arange(40 * 24, dtype=np.float16).reshape(40, 2, 4, 3), "as-is"),
    ],
    ids=["features", "planes", "nhwc", "nchw"],
)
def test_arrays_keep_their_type_and_layout(tmp_path: Path, x: np.ndarray, layout: str) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=x, y=np.arange(40) % 2, id=np.arange(1000, 1040))
    settings = PreprocessSection(scale=1.0, layout=layout)  # type: ignore[arg-type]
    train = open_dataset(str(path), DataSection(), settings, Store(tmp_path / "store"))
    canaries = draw(train, DESIGN)
    names = name_canaries(canaries, train, None, by_position=False, seed=0)
    paths = write(tmp_path / "out", canaries, names, train, DataSection(), lambda *_: {})
    with np.load(paths.planted) as arrays:
        assert arrays["x"].dtype == x.dtype
        assert arrays["x"].shape == (4, *x.shape[1:])
        assert arrays["id"].dtype.kind == "i"
        templates = x[canaries.templates[canaries.planted]]
        np.testing.assert_array_equal(
            np.sort(arrays["x"].reshape(4, -1)), np.sort(templates.reshape(4, -1))
        )
        if layout == "nhwc":  # the channels of a pixel stay together
            pixels = {tuple(p) for p in templates.reshape(-1, 2).tolist()}
            assert {tuple(p) for p in arrays["x"].reshape(-1, 2).tolist()} == pixels
    assert sorted(map(int, names.listed)) == list(range(1040, 1048))


def test_numeric_columns_and_further_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "a": rng.normal(size=30),
            "label": pa.array([str(n % 3) for n in range(30)]),
            "b": rng.integers(0, 9, 30),
            "c": rng.random(30).astype(np.float32),
            "id": np.arange(30),
        }
    )
    pq.write_table(table, tmp_path / "d.parquet")
    _, canaries, names, paths = made(tmp_path / "d.parquet", tmp_path)
    found = pq.read_table(paths.planted)
    assert found.schema.equals(table.schema)
    assert found["id"].to_pylist() == [
        int(name) for name, own in zip(names.listed, canaries.planted, strict=True) if own
    ]


@pytest.fixture
def plain(tmp_path: Path) -> Dataset:
    """Forty examples without ids."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "plain.npz", x=rng.random((40, 6)), y=np.arange(40) % 2)
    return opened(tmp_path / "plain.npz", tmp_path / "store", scale=1.0)


def test_positions_lie_behind_what_is_there(plain: Dataset, tmp_path: Path) -> None:
    canaries = draw(plain, DESIGN)
    with pytest.raises(UsageError, match=r"told by position.*add --unseen"):
        name_canaries(canaries, plain, None, by_position=True, seed=0)
    with pytest.raises(UsageError, match=r"plain\.npz: the data has no ids.*--id-type index"):
        name_canaries(canaries, plain, None, by_position=False, seed=0)
    np.savez(tmp_path / "other.npz", x=np.random.default_rng(1).random((7, 6)), y=np.arange(7) % 2)
    unseen = opened(tmp_path / "other.npz", tmp_path / "store", scale=1.0)
    names = name_canaries(canaries, plain, unseen, by_position=True, seed=0)
    assert names.stored is None
    planted = [n for n, own in zip(names.listed, canaries.planted, strict=True) if own]
    held_out = [n for n, own in zip(names.listed, canaries.planted, strict=True) if not own]
    assert planted == ["40", "41", "42", "43"]
    assert held_out == ["7", "8", "9", "10"]
    paths = write(tmp_path / "out", canaries, names, plain, DataSection(), lambda *_: {})
    with np.load(paths.planted) as arrays:
        assert set(arrays.files) == {"x", "y"}


def test_ids_that_are_taken_are_refused(tmp_path: Path, tiny: Tiny, encode: Encode) -> None:
    path = write_npz(tmp_path, tiny, encode)
    _, _, _, paths = made(path, tmp_path)
    again = opened(append(path, paths.planted), tmp_path / "store", scale=1.0)
    with pytest.raises(InputError, match=r"the id 'canary-11-000\d' is taken.*another --seed"):
        name_canaries(draw(again, DESIGN), again, None, by_position=False, seed=DESIGN.seed)


def test_the_lists_say_what_was_planted(tmp_path: Path, tiny: Tiny, encode: Encode) -> None:
    train = opened(write_npz(tmp_path, tiny, encode), tmp_path / "store", scale=1.0)
    canaries = draw(train, DESIGN)
    names = name_canaries(canaries, train, None, by_position=False, seed=11)
    before = ForgetList(("c0/00.png", "c1/04.png"), ("c1/04.png",), ("elsewhere",))
    (tmp_path / "ids.txt").write_text(list_text(before, names, canaries), encoding="utf-8")
    found = read_forget_list(tmp_path / "ids.txt")
    by_half = {
        half: {
            n for n, own in zip(names.listed, canaries.planted.tolist(), strict=True) if own is half
        }
        for half in (True, False)
    }
    assert found.ids[:2] == before.ids
    assert set(found.canaries) == {"c1/04.png"} | by_half[True]
    assert set(found.held_out) == {"elsewhere"} | by_half[False]
    (tmp_path / "request.txt").write_text(request_text(before, names, canaries), encoding="utf-8")
    assert read_ids(tmp_path / "request.txt") == found.ids
    assert read_forget_list(tmp_path / "request.txt").canaries == ()


def test_nothing_is_overwritten_unless_asked_and_nothing_half_written(
    tmp_path: Path, tiny: Tiny, encode: Encode
) -> None:
    path = write_npz(tmp_path, tiny, encode)
    train, canaries, names, paths = made(path, tmp_path)
    before = paths.planted.read_bytes()
    paths.held_out.unlink()

    def again(overwrite: bool, text: str = "new") -> Paths:
        texts = {"note.txt": text}
        return write(
            tmp_path / "out", canaries, names, train, DataSection(), lambda *_: texts,
            overwrite=overwrite,
        )  # fmt: skip

    with pytest.raises(UsageError, match=r"planted\.npz exists; --force overwrites it"):
        again(overwrite=False)
    assert not paths.held_out.exists()
    assert (tmp_path / "out/note.txt").read_text(encoding="utf-8") == "é"
    again(overwrite=True)
    assert paths.planted.read_bytes() == before
    assert (tmp_path / "out/note.txt").read_text(encoding="utf-8") == "new"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "held-out.npz", "note.txt", "planted.npz",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_written(tmp_path: Path, plain: Dataset) -> None:
    (tmp_path / "file").write_text("here")
    canaries = draw(plain, DESIGN)
    with pytest.raises(UsageError, match=r"file: cannot be written .*; choose another --out"):
        write(tmp_path / "file", canaries, Names([], None), plain, DataSection(), lambda *_: {})


@pytest.mark.parametrize("people", [[f"p{n % 9}" for n in range(30)], [n % 9 for n in range(30)]])
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_each_canary_is_somebody_of_its_own(tmp_path: Path, suffix: str, people: list[Any]) -> None:
    """Where the data say whose record an example is, they do so with canaries in them as well."""
    rng = np.random.default_rng(0)
    path, data = tmp_path / f"d{suffix}", DataSection(group_column="person")
    x, y, n = rng.random((30, 6)), np.arange(30) % 3, np.arange(30)
    if suffix == ".npz":
        np.savez(path, x=x, y=y, id=n, person=people)
        other = [people[8]] * 15 + [type(people[0])(40)] * 15
        np.savez(tmp_path / "unseen.npz", x=x + 9, y=y, id=n + 30, person=other)
    else:
        features = {f"f{at}": x[:, at] for at in range(6)}
        pq.write_table(pa.table({**features, "person": people, "label": y, "id": n}), path)
    settings = PreprocessSection(scale=1.0)
    store = Store(tmp_path / "store")
    train = open_dataset(str(path), data, settings, store)
    unseen = None
    if suffix == ".npz":
        unseen = open_dataset(str(tmp_path / "unseen.npz"), data, settings, store, classes=())
    canaries = draw(train, DESIGN)
    names = name_canaries(canaries, train, unseen, by_position=False, seed=DESIGN.seed)
    paths = write(tmp_path / "out", canaries, names, train, data, lambda *_: {})
    combined = open_dataset(str(append(path, paths.planted)), data, settings, store)
    held_out = open_dataset(str(paths.held_out), data, settings, store)
    assert combined.groups is not None
    assert held_out.groups is not None
    assert combined.groups[:30].tolist() == [str(one) for one in people]
    own = [*combined.groups[30:].tolist(), *held_out.groups.tolist()]
    assert len(set(own)) == len(canaries.labels)
    taken = set(combined.groups[:30].tolist())
    if unseen is not None and unseen.groups is not None:
        taken |= set(unseen.groups.tolist())
    assert not set(own) & taken
    if isinstance(people[0], int):
        start = 41 if suffix == ".npz" else 9
        assert sorted(map(int, own)) == list(range(start, start + len(own)))


def test_numbers_that_the_data_cannot_hold_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    person = (np.arange(40) % 8 + 120).astype(np.int8)
    np.savez(tmp_path / "d.npz", x=rng.random((40, 6)), y=np.arange(40) % 2, id=np.arange(40),
             person=person)  # fmt: skip
    data = DataSection(group_column="person")
    train = open_dataset(
        str(tmp_path / "d.npz"), data, PreprocessSection(), Store(tmp_path / "store")
    )
    canaries = draw(train, DESIGN)
    names = name_canaries(canaries, train, None, by_position=False, seed=0)
    with pytest.raises(InputError, match="ids or groups that int8 cannot hold"):
        write(tmp_path / "out", canaries, names, train, data, lambda *_: {})


def test_groups_that_are_taken_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    person = np.array([f"canary-11-{n % 8:04d}" for n in range(40)])
    np.savez(tmp_path / "d.npz", x=rng.random((40, 6)), y=np.arange(40) % 2, id=np.arange(40),
             person=person)  # fmt: skip
    data, store = DataSection(group_column="person"), Store(tmp_path / "store")
    train = open_dataset(str(tmp_path / "d.npz"), data, PreprocessSection(), store)
    with pytest.raises(InputError, match=r"the group 'canary-11-0000' is taken.*another --seed"):
        name_canaries(draw(train, DESIGN), train, None, by_position=False, seed=DESIGN.seed)
