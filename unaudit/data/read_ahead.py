"""Doing the next pieces of work in threads while their results are still being waited for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def read_ahead(
    tasks: Iterable[Callable[[], T]], threads: int, tasks_ahead: int
) -> Generator[T, None, None]:
    """Results of the tasks in their order, at most ``tasks_ahead`` of them begun beforehand.

    Closing the iterator drops what has not begun and waits for what has.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="unaudit-data")
    pending: deque[Future[T]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(task))
            if len(pending) > tasks_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use."""
    with suppress(AttributeError):  # only some systems let a process ask for its own share
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
