"""``outputs:FILE.npz``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unaudit.errors import InputError, UnauditError, UnsafeModelError
from unaudit.loading import Limits, RecordedModel, load_model, recorded

Arrays = dict[str, Any]


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for split, count in (("forget", 5), ("retain", 9), ("unseen", 7)):
        made[f"{split}_logits"] = rng.normal(size=(count, 4)).astype(np.float32)
        made[f"{split}_labels"] = rng.integers(0, 4, count)
        made[f"{split}_ids"] = np.array([f"{split}-{i}" for i in range(count)])
    return made


def written(path: Path, made: Arrays, save: Callable[..., None] = np.savez) -> str:
    with path.open("wb") as file:
        save(file, **made)
    return f"outputs:{path}"


def loaded(spec: str) -> RecordedModel:
    model = load_model(spec, arch=None)
    assert isinstance(model, RecordedModel)
    return model


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_round_trip(tmp_path: Path, save: Callable[..., None]) -> None:
    made = arrays()
    model = loaded(written(tmp_path / "api.npz", made, save))
    assert list(model.splits) == ["forget", "retain", "unseen"]
    for name, split in model.splits.items():
        assert np.array_equal(split.logits, made[f"{name}_logits"])
        assert split.logits.dtype == np.float32
        assert np.array_equal(split.labels, made[f"{name}_labels"])
        assert split.labels.dtype == np.int64
        assert split.ids == tuple(made[f"{name}_ids"])
    came = model.provenance
    assert (came.name, came.format, came.tier) == ("api.npz", "recorded outputs", "T0")
    assert (came.arch, came.parameters) == (None, None)


def test_train_without_ids(tmp_path: Path) -> None:
    made = {f"train_{part}": arrays()[f"retain_{part}"] for part in ("logits", "labels")}
    assert loaded(written(tmp_path / "a.npz", made)).splits["train"].ids == tuple("012345678")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.arange(5), ("0", "1", "2", "3", "4")),
        (np.array([b"a", b"b", b"\xc3\xa9", b"d", b"e"]), ("a", "b", "é", "d", "e")),
    ],
)
def test_kinds_of_ids(tmp_path: Path, ids: Any, expected: tuple[str, ...]) -> None:
    spec = written(tmp_path / "a.npz", arrays() | {"forget_ids": ids})
    assert loaded(spec).splits["forget"].ids == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_kinds_of_logits(tmp_path: Path, dtype: Any) -> None:
    made = arrays()
    made["forget_logits"] = np.asfortranarray(made["forget_logits"].astype(dtype))
    logits = loaded(written(tmp_path / "a.npz", made)).splits["forget"].logits
    assert np.array_equal(logits, made["forget_logits"].astype(np.float32))
    assert logits.flags["C_CONTIGUOUS"]


def test_log_probabilities_are_logits(tmp_path: Path) -> None:
    made = arrays()
    exponentials = np.exp(made["forget_logits"])
    made["forget_logits"] = np.log(exponentials / exponentials.sum(axis=1, keepdims=True))
    assert len(loaded(written(tmp_path / "a.npz", made)).splits) == 3


def test_digest_covers_logits_labels_and_ids(tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        return loaded(written(tmp_path / "a.npz", arrays() | changes)).digest

    base = arrays()
    labels = base["forget_labels"].copy()
    labels[0] = (labels[0] + 1) % 4
    ids = base["forget_ids"].copy()
    ids[0] = "other"
    assert digest() == digest()
    changed = {
        digest(),
        digest(forget_logits=base["forget_logits"] + 1),
        digest(forget_labels=labels),
        digest(forget_ids=ids),
    }
    assert len(changed) == 4


def probabilities(logits: Any) -> Any:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


BASE = arrays()
WITH_NAN = BASE["forget_logits"].copy()
WITH_NAN[2, 1] = np.nan
BAD: dict[str, tuple[Arrays, str]] = {
    "object array": (
        {"forget_ids": np.array([1, "a", None, 2, 3], dtype=object)},
        "'forget_ids' holds Python objects, which could run code",
    ),
    "structured": ({"forget_labels": np.zeros(5, dtype=[("a", "i4")])}, "store whole numbers"),
    "nan": ({"forget_logits": WITH_NAN}, r"NaN or infinite numbers in 1 rows \(first: row 2\)"),
    "infinite": ({"forget_logits": WITH_NAN * np.inf}, "clip log-probabilities"),
    "overflow": ({"forget_logits": np.full((5, 4), 1e300)}, "in 5 rows"),
    "lengths": ({"forget_labels": np.zeros(4, int)}, "has 4 entries, 'forget_logits' 5"),
    "id lengths": ({"forget_ids": np.arange(6)}, "'forget_ids' has 6 entries"),
    "label too large": (
        {"forget_labels": np.array([0, 1, 4, 2, 9])},
        r"2 labels .*\(first: 4 in row 2",
    ),
    "label negative": ({"forget_labels": np.array([0, 1, -1, 2, 3])}, "1 labels outside 0 to 3"),
    "label beyond int64": ({"forget_labels": np.full(5, 2**64 - 1, np.uint64)}, "outside 0 to 3"),
    "float labels": ({"forget_labels": np.zeros(5)}, "store whole numbers"),
    "duplicate ids": ({"forget_ids": np.array(list("abcab"))}, "repeats 'a'"),
    "ids in both": (
        {"retain_ids": np.array(["forget-1", *"abcdefgh"])},
        r"1 ids are in both .*forget-1",
    ),
    "float ids": ({"forget_ids": np.zeros(5)}, "store strings or whole numbers"),
    "ids not utf-8": (
        {"forget_ids": np.array([b"\xff", b"b", b"c", b"d", b"e"])},
        "damaged strings",
    ),
    "one class": ({"forget_logits": np.zeros((5, 1), np.float32)}, "only one class"),
    "one axis": ({"forget_logits": np.zeros(5, np.float32)}, "store floating-point"),
    "integer logits": ({"forget_logits": np.zeros((5, 4), int)}, "store floating-point"),
    "no examples": (
        {"forget_logits": np.zeros((0, 4), np.float32), "forget_labels": np.zeros(0, int)},
        "is empty; leave the split out",
    ),
    "class counts": (
        {"unseen_logits": np.ones((7, 5), np.float32)},
        "forget 4, retain 4, unseen 5",
    ),
    "unknown": (
        {"forget_logit": np.zeros(3)},
        r"unknown array 'forget_logit' \(did you mean 'forget_log",
    ),
    "hostile name": ({"\x1b[31m" + "z" * 300: np.zeros(3)}, "could leave its folder|unknown array"),
    "probabilities": (
        {"forget_logits": probabilities(BASE["forget_logits"])},
        "look like probabilities; store log-probabilities",
    ),
    "train and forget": (
        {"train_logits": BASE["forget_logits"], "train_labels": BASE["forget_labels"]},
        "store either, not both",
    ),
    "no logits": ({"validation_labels": np.zeros(3, int)}, "lacks 'validation_logits'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(tmp_path: Path, case: str) -> None:
    changes, says = BAD[case]
    path = tmp_path / "a.npz"
    spec = written(path, arrays() | changes)
    with pytest.raises((InputError, UnsafeModelError), match=says) as caught:
        loaded(spec)
    assert str(caught.value).startswith(f"{spec}: ")
    assert str(caught.value).isprintable()


def test_no_members_at_all(tmp_path: Path) -> None:
    made = {key: value for key, value in arrays().items() if key.startswith("unseen")}
    with pytest.raises(InputError, match="neither 'train_logits' nor 'forget_logits'"):
        loaded(written(tmp_path / "a.npz", made))


def test_missing_truncated_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        loaded(f"outputs:{tmp_path / 'a.npz'}")
    spec = written(tmp_path / "a.npz", arrays())
    data = (tmp_path / "a.npz").read_bytes()
    for cut in (10, len(data) // 2, len(data) - 1):
        (tmp_path / "a.npz").write_bytes(data[:cut])
        with pytest.raises(UnauditError):
            loaded(spec)
    (tmp_path / "a.npz").write_text("hello\n")
    with pytest.raises(InputError, match="text file"):
        loaded(spec)


def _npz(path: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return f"outputs:{path}"


def test_a_zip_bomb_is_refused_before_it_inflates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "FREE_BYTES", 1 << 20)
    spec = _npz(tmp_path / "a.npz", {"forget_logits.npy": bytes(10 << 20)})
    with pytest.raises(UnsafeModelError, match=r"would inflate to 10\.0 MiB"):
        loaded(spec)
    small = _npz(tmp_path / "b.npz", {"forget_logits.npy": bytes(2000)})
    with pytest.raises(UnsafeModelError, match="would inflate"):
        load_model(small, arch=None, limits=Limits(recorded_bytes=1000))


@pytest.mark.parametrize("shape", [(10**12, 10), (-1, 4), (6, 4), (2**63, 2**63)])
def test_a_header_that_overstates_its_data(tmp_path: Path, shape: tuple[int, ...]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    member = b"\x93NUMPY\x01\x00" + buffer.getvalue().removeprefix(b"\x93NUMPY\x01\x00")
    spec = _npz(tmp_path / "a.npz", {"forget_logits.npy": member + bytes(80)})
    with pytest.raises(InputError, match="'forget_logits' is damaged or truncated"):
        loaded(spec)


def test_a_pickle_in_an_object_array_does_not_run(tmp_path: Path) -> None:
    from tests.loading.files import Calls

    marker = tmp_path / "marker"
    attack = np.empty(1, dtype=object)
    attack[0] = Calls(open, str(marker), "w")
    with (tmp_path / "a.npz").open("wb") as file:
        np.savez(file, forget_ids=attack)
    with pytest.raises(InputError, match="Python objects"):
        loaded(f"outputs:{tmp_path / 'a.npz'}")
    assert not marker.exists()
