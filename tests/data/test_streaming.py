"""Reading ahead: in order, in little memory, and over when it should be."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import Opener
from unaudit.data import Dataset
from unaudit.data.read_ahead import read_ahead
from unaudit.data.rows import FileRows, MemoryRows


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("unaudit-data")]


@given(
    count=st.integers(0, 30),
    threads=st.integers(1, 4),
    ahead=st.integers(0, 8),
)
def test_results_keep_the_order_of_the_tasks(count: int, threads: int, ahead: int) -> None:
    delays = np.random.default_rng(count).random(count) / 2000

    def task(number: int) -> Callable[[], int]:
        def work() -> int:
            time.sleep(delays[number])
            return number

        return work

    assert list(read_ahead(map(task, range(count)), threads, ahead)) == list(range(count))
    assert not workers()


def test_no_more_tasks_are_begun_than_allowed() -> None:
    begun = itertools.count()
    stream = read_ahead((lambda: next(begun) for _ in range(1000)), threads=2, tasks_ahead=5)
    for taken in range(1, 11):
        next(stream)
        time.sleep(0.002)
        assert next(begun) - (taken - 1) <= taken + 6
    stream.close()
    assert not workers()


def test_closing_stops_the_threads(tmp_path: Path, opened: Opener) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((1000, 10)), y=np.zeros(1000, dtype=int))
    batches = opened(tmp_path / "d.npz").batches(np.arange(1000, dtype=np.int64), 10)
    assert isinstance(batches, Iterator)
    next(batches)
    assert workers()
    batches.close()  # type: ignore[attr-defined]
    assert not workers()


def test_the_first_error_in_order_is_raised_and_the_threads_stop() -> None:
    def fail(number: int) -> Callable[[], int]:
        def work() -> int:
            if number == 3:
                time.sleep(0.02)
            if number >= 3:
                raise ValueError(number)
            return number

        return work

    stream = read_ahead(map(fail, range(50)), threads=4, tasks_ahead=8)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^3$"):
        next(stream)
    assert not workers()


def test_reading_overlaps_with_using(tmp_path: Path, opened: Opener) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((60, 10)), y=np.zeros(60, dtype=int))
    dataset = opened(tmp_path / "d.npz")
    plain = dataset._load  # type: ignore[attr-defined]

    def slow(rows: npt.NDArray[np.int64], out: npt.NDArray[np.float32]) -> None:
        time.sleep(0.02)
        plain(rows, out)

    dataset._load = slow  # type: ignore[attr-defined]
    begin = time.perf_counter()
    for _ in dataset.batches(np.arange(60, dtype=np.int64), 5):
        time.sleep(0.02)
    # one after the other: 12 × 40 ms
    assert time.perf_counter() - begin < 0.4


def peak_of(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def use(dataset: Dataset) -> None:
    dataset.fingerprints()
    for _ in dataset.batches(np.arange(len(dataset), dtype=np.int64), 64):
        pass


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_never_in_memory_as_a_whole(
    tmp_path: Path, opened: Opener, save: Callable[..., None]
) -> None:
    x = np.tile(np.random.default_rng(0).integers(0, 4, 1024, dtype=np.uint8), (60_000, 1))
    save(tmp_path / "d.npz", x=x, y=np.zeros(60_000, dtype=int))
    assert x.nbytes > 60_000_000
    del x
    assert peak_of(lambda: use(opened(tmp_path / "d.npz"))) < 20_000_000


def test_parquet_needs_no_more_memory_for_more_examples(tmp_path: Path, opened: Opener) -> None:
    peaks = []
    for count in (1_000, 10_000):
        x = np.random.default_rng(0).integers(0, 255, (count, 1024), dtype=np.uint8)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 1024)
        table = pa.table({"x": lists, "y": np.zeros(count, dtype=int)})
        path = tmp_path / f"{count}.parquet"
        pq.write_table(table, path, row_group_size=500)
        before = pa.total_allocated_bytes()
        pool = pa.default_memory_pool()
        dataset = opened(path)
        use(dataset)
        peaks.append(pa.total_allocated_bytes() - before)
        assert pool.bytes_allocated() - before < 4_000_000
        del dataset
    assert peaks[1] < peaks[0] + 1_000_000


@given(
    rows=st.lists(st.integers(0, 19), max_size=40),
    shape=st.sampled_from([(20, 3), (20, 2, 2), (20, 1)]),
    dtype=st.sampled_from(["u1", ">i4", "f8"]),
    offset=st.integers(0, 9),
)
def test_rows_of_a_file_are_the_rows_of_the_array(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[int],
    shape: tuple[int, ...],
    dtype: str,
    offset: int,
) -> None:
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    path = tmp_path_factory.mktemp("rows") / "f"
    path.write_bytes(b"x" * offset + array.tobytes() + b"y")
    wanted = np.array(rows, dtype=np.int64)
    in_file = FileRows(path, offset, shape, np.dtype(dtype))
    assert np.array_equal(in_file.read(wanted), array[wanted])
    assert np.array_equal(MemoryRows(array).read(wanted), array[wanted])
    path.unlink()
    assert np.array_equal(in_file.read(wanted), array[wanted])


def test_a_file_cut_short_is_an_error_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\0" * 100)
    rows = FileRows(tmp_path / "f", 0, (100, 4), np.dtype("u1"))
    assert rows.read(np.array([24])).tolist() == [[0, 0, 0, 0]]
    with pytest.raises(OSError, match="ends too early"):
        rows.read(np.array([25]))
