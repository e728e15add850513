"""Forget ids: what the file may look like, and where its ids are in the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.conftest import is_one_line
from unaudit.data import Dataset, locate, read_ids
from unaudit.data.ids import CANARY, HELD_OUT, MAX_LINE_BYTES, ForgetList, as_ids, read_forget_list
from unaudit.errors import InputError, UnauditError, UsageError
from unaudit.evidence import IntArray


class Named(Dataset):
    """Nothing but ids."""

    def __init__(self, ids: tuple[str, ...] | None, count: int | None = None) -> None:
        self.name = "named"
        self.ids = None if ids is None else np.array(ids, dtype=np.str_)
        self.labels = np.zeros(len(ids) if ids is not None else count or 0, dtype=np.int64)
        self.default_id_type = "index" if ids is None else "key"

    def batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        return iter(())

    def fingerprints(self) -> npt.NDArray[np.uint8]:
        return np.empty((len(self), 0), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb\n", ("a", "b")),
        (b"a\nb", ("a", "b")),
        (b"\xef\xbb\xbfa\nb\n", ("a", "b")),
        (b"a\r\nb\r\n", ("a", "b")),
        (b"a \t\n  b\n", ("a", "b")),
        (b"\n\na\n\n  \nb\n\n", ("a", "b")),
        (b"# why\n  # indented\na\n#a\n", ("a",)),
        (b"\xef\xbb\xbf# comment\na\n", ("a",)),
        (b"a#1\nb #2\n", ("a#1", "b #2")),
        (b"b\na\n", ("b", "a")),
        ("é/ü 1.png\n".encode(), ("é/ü 1.png",)),
        (b"a\xc2\xa0\nb\n", ("a", "b")),
    ],
)
def test_reads(tmp_path: Path, content: bytes, expected: tuple[str, ...]) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    assert read_ids(path) == expected
    assert read_ids(str(path)) == expected


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no forget ids"),
        (b"\n# only a comment\n  \n", "no forget ids"),
        (b"\xef\xbb\xbf", "no forget ids"),
        (b"a\n\nb\na\n", "line 4 repeats the id 'a' of line 1"),
        (b"a\na \n", "line 2 repeats the id 'a' of line 1"),
        (b"a\n\xff\xfe\n", "line 2 is not UTF-8"),
        ("a\nb\n".encode("utf-16"), "not UTF-8"),
        (b"a\nb\x00c\n", "line 2 holds control characters"),
        (b"a\rb\rc\r", "line 1 holds control characters"),
        (b"a\x1b[31mb\n", "line 1 holds control characters"),
        (b"x" * 2000 + b"\n", "line 1 is longer than 1024 characters"),
        (b"ok\n" + b"x" * 100_000, f"line 2 is longer than {MAX_LINE_BYTES} bytes"),
        (b"a\n\nb\tcanry\n", "line 3 has the unknown mark 'canry' (did you mean 'canary'?)"),
        (b"a\tb\n", "line 1 has the unknown mark 'b' (known: canary, held-out)"),
        (b"a\tCanary\n", "line 1 has the unknown mark 'Canary' (did you mean 'canary'?)"),
        (b"a\tcanary\theld-out\n", "line 1 has 2 marks; write one id, a tab and one mark"),
        (b"a\na\tcanary\n", "line 2 repeats the id 'a' of line 1"),
        (b"a\nb\theld-out\nb\theld-out\n", "line 3 repeats the id 'b' of line 2"),
        (b"a\theld-out\n", "no forget ids"),
        (b"a\n\x01\tcanary\n", "line 2 holds control characters"),
        (b"x" * 2000 + b"\tcanary\n", "line 1 is longer than 1024 characters"),
    ],
)
def test_refuses(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"ids.txt: ") as error:
        read_ids(path)
    assert complaint in str(error.value)
    assert is_one_line(str(error.value))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb c\n", ForgetList(("a", "b c"))),
        (b"a\tcanary\nb\n", ForgetList(("a", "b"), ("a",))),
        (b"\xef\xbb\xbfa\tcanary\r\nb\r\n", ForgetList(("a", "b"), ("a",))),
        (b"a canary\nb\n", ForgetList(("a canary", "b"))),
        (b" a b \t\t canary \t\n", ForgetList(("a b",), ("a b",))),
        (b"# canary\na\n#b\tcanary\n", ForgetList(("a",))),
        (b"b\theld-out\na\n", ForgetList(("a",), (), ("b",))),
        (b"7\n7\theld-out\n8\tcanary\n", ForgetList(("7", "8"), ("8",), ("7",))),
    ],
)
def test_marks(tmp_path: Path, content: bytes, expected: ForgetList) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    assert read_forget_list(path) == expected
    assert read_ids(path) == expected.ids


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; check --forget"):
        read_ids(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_ids(tmp_path)


# what neither strip() nor a line end takes away, and no comment
printable = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=30
).filter(lambda text: text == text.strip() and not text.startswith(("#", "\ufeff")))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    ids=st.lists(printable, min_size=1, max_size=20, unique=True),
    end=st.sampled_from(["\n", "\r\n", " \n", "\n\n", "\n# note\n"]),
    bom=st.booleans(),
    data=st.data(),
)
def test_written_ids_come_back_and_are_found(
    tmp_path: Path, ids: list[str], end: str, bom: bool, data: st.DataObject
) -> None:
    path = tmp_path / "ids.txt"
    text = "".join(entry + end for entry in ids)
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    listed = read_ids(path)
    assert list(listed) == ids
    stored = data.draw(st.permutations(ids))
    rows = locate(listed, Named(tuple(stored)), "key")
    assert rows.dtype == np.int64
    assert [stored[row] for row in rows] == ids


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    entries=st.dictionaries(printable, st.sampled_from(["", CANARY, HELD_OUT]), min_size=1),
    gap=st.sampled_from(["\t", " \t", "\t\t ", "\u3000\t"]),
    end=st.sampled_from(["\n", "\r\n", "\t\n", "\n# note\n"]),
)
def test_written_marks_come_back(
    tmp_path: Path, entries: dict[str, str], gap: str, end: str
) -> None:
    path = tmp_path / "ids.txt"
    lines = [entry + (gap + mark if mark else "") + end for entry, mark in entries.items()]
    path.write_bytes("".join(["!always\n", *lines]).encode())
    marked = {
        mark: tuple(entry for entry, own in entries.items() if own == mark)
        for mark in (CANARY, HELD_OUT)
    }
    found = read_forget_list(path)
    assert found.canaries == marked[CANARY]
    assert found.held_out == marked[HELD_OUT]
    forget = (entry for entry, mark in entries.items() if mark != HELD_OUT)
    assert found.ids == ("!always", *forget)


@given(text=printable)
def test_no_id_of_data_can_be_mistaken_for_a_marked_one(text: str) -> None:
    with pytest.raises(InputError, match="control characters"):
        as_ids([f"{text}\t{CANARY}"], "train.npz")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_bytes_give_ids_or_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    message = ""
    ids: tuple[str, ...] = ("none",)
    try:
        ids = read_ids(path)
    except InputError as error:
        message = str(error)
    assert is_one_line(message)
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(entry == entry.strip() and not entry.startswith("#") for entry in ids)


@given(
    count=st.integers(1, 50),
    data=st.data(),
)
def test_indexes_are_rows(count: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    assert locate([str(row) for row in rows], Named(None, count)).tolist() == rows


@given(text=st.text(max_size=8))
def test_only_plain_digits_are_indexes(text: str) -> None:
    canonical = text.isascii() and text.isdigit() and str(int(text)) == text
    if canonical and int(text) < 10:
        assert locate([text], Named(None, 10)).tolist() == [int(text)]
    else:
        with pytest.raises(InputError):
            locate([text], Named(None, 10))


@pytest.mark.parametrize(
    "entry", ["-1", "+1", "1_0", "1.0", "1e1", "007", "٣", "²", "0x1", " 1", "a", "", "1 2"]
)
def test_not_an_index(entry: str) -> None:
    with pytest.raises(InputError, match=r"is not an index.*check --id-type"):
        locate([entry], Named(None, 100))


@pytest.mark.parametrize("entry", ["10", "99999999999999999999999999", "9" * 1000])
def test_index_out_of_range(entry: str) -> None:
    with pytest.raises(InputError, match=r"1 forget index is out of range.*rows 0 to 9\)") as error:
        locate([entry, "3"], Named(None, 10))
    assert len(str(error.value)) < 300


def test_unknown_keys_are_counted_and_the_first_is_named() -> None:
    with pytest.raises(InputError) as error:
        locate(["a", *(f"z{i}" for i in range(37))], Named(("a", "b")))
    assert str(error.value) == (
        "37 forget ids are not in the training data (first: 'z0'); check --id-type, and "
        "that these are the data"
    )


def test_messages_say_what_kind_of_ids_and_of_which_data() -> None:
    for ids, data, complaint in (
        (["x"], Named(("a",)), "1 held-out canary id is not in the unseen data (first: 'x')"),
        (["7"], Named(None, 3), "the unseen data has rows 0 to 2"),
        (["x"], Named(None, 3), "held-out canary id 'x' is not an index"),
    ):
        with pytest.raises(InputError) as error:
            locate(ids, data, what="held-out canary", where="unseen")
        assert complaint in str(error.value)


def test_id_type_decides() -> None:
    digits = Named(("1", "0", "2"))
    assert locate(["0"], digits).tolist() == [1]
    assert locate(["0"], digits, "key").tolist() == [1]
    assert locate(["0"], digits, "index").tolist() == [0]
    with pytest.raises(UsageError, match=r"has no ids.*--id-type index"):
        locate(["0"], Named(None, 3), "key")


@pytest.mark.parametrize("odd", ["#a", "a ", "\u00a0a"])
def test_keys_that_no_list_can_express(odd: str) -> None:
    data = Named(("a", odd))
    with pytest.raises(UsageError, match="use --id-type index"):
        locate(["a"], data)
    assert locate(["0"], data, "index").tolist() == [0]


def test_an_id_given_twice() -> None:
    with pytest.raises(InputError, match="twice"):
        locate(["a", "a"], Named(("a", "b")))
    with pytest.raises(InputError, match="no forget ids"):
        locate([], Named(("a", "b")))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["a", None], "id of example 1 is missing"),
        (["a", ""], "id of example 1 is missing"),
        (["a", 1.5], "example 1 is '1.5', neither"),
        (["a", True], "example 1 is 'True', neither"),
        (["a", "b", "a"], "examples 0 and 2 have the same id 'a'"),
        ([1, "1"], "examples 0 and 1 have the same id '1'"),
        (["a\nb"], "example 0 holds control characters"),
        (["\ud800"], "example 0 is not valid Unicode"),
        (["x" * 1025], "longer than 1024"),
    ],
)
def test_bad_ids_in_data(values: list[object], complaint: str) -> None:
    with pytest.raises(UnauditError) as error:
        as_ids(values, "train.npz")
    assert complaint in str(error.value)
    assert str(error.value).startswith("train.npz: ")


def test_whole_numbers_become_digits() -> None:
    assert as_ids(np.array([3, 10, 0]), "f").tolist() == ["3", "10", "0"]
