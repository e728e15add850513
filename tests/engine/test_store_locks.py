"""Claims: one process computes, others wait; who dies blocks nobody; what is in use stays."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from unaudit.engine import locks
from unaudit.engine.housekeeping import clean
from unaudit.engine.locks import Locks
from unaudit.engine.store import Store, content_key

A, B, C = (content_key("logits", model=name) for name in "abc")
posix = pytest.mark.skipif(sys.platform == "win32", reason="kills")

PRELUDE = """
import sys, time
from pathlib import Path
import numpy as np
from unaudit.engine.store import Store, content_key
store = Store(Path(sys.argv[1]))
A, B, C = (content_key("logits", model=name) for name in "abc")
"""


@contextmanager
def other(root: Path, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process on the store, ready to go on when it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(root), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


HOLD = 'store._locks.take(A); print("ready", flush=True); sys.stdin.read()'


@posix
def test_a_claim_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    mine = Locks(tmp_path / "locks")
    with other(tmp_path, HOLD) as process:
        assert not mine.take(A)
        assert mine.take(B)
        process.kill()
        assert eventually(lambda: mine.take(A))
    mine.drop(A)
    with other(tmp_path, HOLD):
        assert not mine.take(A)


WORK = """
log, order = Path(sys.argv[2]), sys.argv[3]
def write(line):
    with log.open("a") as file:
        file.write(line + "\\n")
print("ready", flush=True)
sys.stdin.readline()
for name in order:
    def compute():
        write(name)
        time.sleep(0.02)
        return name.encode()
    print(store.blob(content_key("answer", name=name), compute).decode())
for pair in (order[:2], order[1:3], order[::2]):
    def fill(missing):
        for key, array in missing.items():
            write(key[:8])
            array[:] = 1
        time.sleep(0.02)
    forms = {content_key("logits", name=name): ((9,), np.float32) for name in pair}
    found = store.arrays(forms, fill)
    assert all((array == 1).all() for array in found.values())
print("end")
"""


def test_two_processes_share_the_work_and_do_nothing_twice(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    with (
        other(root, WORK, str(log), "abcdef") as first,
        other(root, WORK, str(log), "fedcba") as second,
    ):
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told = [process.communicate(timeout=30)[0].split() for process in (first, second)]
    assert told == [[*"abcdef", "end"], [*"fedcba", "end"]]
    done = log.read_text().split()
    assert len(done) == len(set(done))
    assert {*"abcdef"} < {*done}


def together(work: Callable[[], object], count: int = 4) -> list[object]:
    """What ``work`` gives in so many threads at a time."""
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(work()), daemon=True) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def test_threads_wait_for_one_another_too(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def compute() -> bytes:
        calls.append("bytes")
        time.sleep(0.02)
        return b"once"

    def fill(array: npt.NDArray[np.int64]) -> None:
        calls.append("array")
        time.sleep(0.02)
        array[:] = 1

    assert together(lambda: store.blob(A, compute)) == [b"once"] * 4
    assert together(lambda: store.array(A, (1,), np.int64, fill).tolist()) == [[1]] * 4
    assert calls == ["bytes", "array"]


def test_several_keys_are_claimed_in_one_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two processes could each wait for what the other holds."""
    taken: list[str] = []

    def take(_: Locks, key: str) -> bool:
        taken.append(key)
        return True

    monkeypatch.setattr(Locks, "take", take)
    monkeypatch.setattr(Locks, "drop", lambda self, key: None)
    mine = Locks(tmp_path / "locks")
    for keys in ((A, B, C), (C, B, A, B)):
        with mine.claim(*keys):
            pass
    assert len(taken) == 6
    assert taken[:3] == taken[3:]


def test_a_thread_never_waits_for_itself(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim(A, B):
        assert store.blob(A, lambda: store.blob(B, lambda: b"inner")) == b"inner"


def test_some_of_several_keys_are_claimed_those_that_are_free(tmp_path: Path) -> None:
    store = Store(tmp_path)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with Store(tmp_path).claim(A, B):
            held.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    with store.claim_some([A, B, C]) as claims:
        assert claims.held == {C}
        claims.drop(C)
        assert claims.held == set()
    timer = threading.Timer(0.05, release.set)
    timer.start()
    with store.claim_some([A, B]) as claims:
        assert release.is_set()
        assert claims.held
    thread.join()
    with store.claim_some([A, B]) as claims:
        assert claims.held == {A, B}


def test_who_waits_long_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "SAY_SO_AFTER", 0.0)
    held = threading.Event()

    def hold() -> None:
        with Store(tmp_path).claim(A):
            held.set()
            time.sleep(0.05)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    with caplog.at_level(logging.WARNING), Store(tmp_path).claim(A):
        pass
    thread.join()
    assert caplog.messages == ["another process is computing the same (logits); waiting for it"]


@posix
def test_a_second_store_on_the_folder_costs_no_claim_when_it_goes(tmp_path: Path) -> None:
    """Closing any handle of a file gives up all record locks of the process on it."""
    first = Store(tmp_path)
    first._locks.take(A)
    for _ in range(3):
        second = Store(tmp_path)
        second.blob(B, lambda: b"")
        del second
        Store(tmp_path / "elsewhere").blob(C, lambda: b"")  # closes what is no longer needed
    ask = 'print("ready", flush=True); print(store._locks.take(A), flush=True)'
    with other(tmp_path, ask) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "False\n"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")
def test_stores_that_are_gone_keep_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(30):
        Store(tmp_path / str(number)).blob(A, lambda: b"")
    assert len(os.listdir("/proc/self/fd")) < before + 10


@posix
def test_what_another_process_uses_is_not_cleaned(tmp_path: Path) -> None:
    use = """
array = store.array(A, (3,), np.float32, lambda array: array.fill(1))
print("ready", flush=True); sys.stdin.read()
"""
    Store(tmp_path).array(B, (3,), np.float32, lambda array: array.fill(1))
    with other(tmp_path, use) as process:
        done = clean(tmp_path, max_size=0)
        assert [entry.key for entry in done.removed] == [B]
        assert [entry.key for entry in done.busy] == [A]
        process.kill()
        assert eventually(lambda: len(clean(tmp_path, max_size=0).removed) == 1)


@posix
def test_what_is_being_computed_is_not_cleaned(tmp_path: Path) -> None:
    Store(tmp_path).blob(A, lambda: b"")
    with other(tmp_path, HOLD):
        assert [entry.key for entry in clean(tmp_path, max_size=0).busy] == [A]


def test_what_a_store_has_given_out_stays_as_long_as_it_lives(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.blob(A, lambda: b"")
    assert len(clean(tmp_path, max_size=0).busy) == 1
    del store
    assert len(clean(tmp_path, max_size=0).removed) == 1


def test_an_entry_that_is_just_being_deleted_does_not_count(tmp_path: Path) -> None:
    Store(tmp_path).blob(A, lambda: b"old")
    with Locks(tmp_path / "locks").alone(A) as free:
        assert free
        assert Store(tmp_path).find(A) is None
    assert Store(tmp_path).find(A) == b"old"


@posix
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_locks_still_gives_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.lockf", fail)
    assert Store(tmp_path).blob(A, lambda: b"x") == b"x"
    assert Store(tmp_path).find(A) == b"x"


@pytest.mark.parametrize("obstacle", ["folder", "link", "pipe"])
@posix
def test_a_file_of_locks_that_is_none_is_left_alone(tmp_path: Path, obstacle: str) -> None:
    path, target = tmp_path / "store/locks", tmp_path / "target"
    path.parent.mkdir()
    if obstacle == "folder":
        path.mkdir()
    elif obstacle == "link":
        path.symlink_to(target)
    else:
        os.mkfifo(path)
    array = Store(path.parent).array(A, (3,), np.float32, lambda array: array.fill(1))
    assert (array == 1).all()
    assert not target.exists()
