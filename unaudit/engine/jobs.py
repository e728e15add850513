"""Jobs: pure computations that can run anywhere and are done once.

A job is a function, named by module, and JSON values. Its key is the digest of everything that
decides the result; where its data lie is told apart from that, so that the same job has the same
key on every machine. Results are bytes (safetensors, npz, JSON), never pickles.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from unaudit.engine.store import Store, content_key

Work = Callable[[Mapping[str, Any], Mapping[str, str]], bytes]
"""(inputs, places) → result."""
PACKAGE = "unaudit."
"""Jobs are functions of this package: a job file names no other code."""


@dataclass(frozen=True)
class Job:
    """One pure computation."""

    work: str
    """``unaudit.module:function``."""
    inputs: Mapping[str, Any]
    """JSON values that decide the result: parameters, seeds, digests of data and code."""
    places: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Paths of what the inputs name by digest."""
    title: str = field(default="", compare=False)
    """For progress and messages."""

    @property
    def key(self) -> str:
        """Where the store keeps the result."""
        return content_key(self.work, **self.inputs)

    def run(self) -> bytes:
        """Compute the result, here and now."""
        return resolve(self.work)(self.inputs, self.places)


class Executor(Protocol):
    """Runs jobs somewhere."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
        """(position, result) of every job, in the order in which they finish.

        Raises:
            UnauditError: a job failed in a way that its reader can put right.
            RuntimeError: a job broke, or its worker died again and again.
        """
        ...


class InProcess:
    """Runs one job after another in this process."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
        for at, job in enumerate(jobs):
            yield at, job.run()


def resolve(work: str) -> Work:
    """The function that a job names.

    Raises:
        ValueError: it lies outside this package or does not exist.
    """
    module, separator, name = work.partition(":")
    if not separator or not module.startswith(PACKAGE):
        raise ValueError(f"no job: {work!r}")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise ValueError(f"no job: {work!r}")
    return cast(Work, found)


def results_of(
    jobs: Sequence[Job],
    store: Store,
    executor: Executor,
    on_done: Callable[[int], None] = lambda position: None,
    *,
    places: Callable[[], Mapping[str, str]] = dict,
) -> list[bytes]:
    """Results in the order of ``jobs``; only what the store does not hold is run.

    Each result is stored as soon as it is there, so that an interrupted run goes on where it was.
    What another process is about to compute is waited for, not computed twice.

    Args:
        jobs: equal ones are run once.
        store: where results are kept.
        executor: where jobs run.
        on_done: told the position of every job, stored or run.
        places: lays out what jobs read and says where it lies; asked once, and only if a job is to
            be run.
    """
    positions: dict[str, list[int]] = {}
    for at, job in enumerate(jobs):
        positions.setdefault(job.key, []).append(at)
    pending = {job.key: job for job in jobs}
    found: dict[str, bytes] = {}
    laid_out: Mapping[str, str] | None = None

    def keep(key: str, result: bytes) -> None:
        found[key] = result
        del pending[key]
        for at in positions[key]:
            on_done(at)

    def recall(keys: Sequence[str]) -> None:
        for key in keys:
            known = store.find(key)
            if known is not None:
                keep(key, known)

    recall(list(pending))
    while pending:
        with store.claim_some(list(pending)) as claims:  # waits until one is free
            recall([key for key in pending if key in claims.held])  # done meanwhile by others
            mine = [job for key, job in pending.items() if key in claims.held]
            if mine:
                laid_out = places() if laid_out is None else laid_out
                mine = [replace(job, places={**laid_out, **job.places}) for job in mine]
                for position, result in executor.run(mine):
                    key = mine[position].key
                    keep(key, store.blob(key, lambda result=result: result))  # type: ignore[misc]
                    claims.drop(key)
        recall(list(pending))
    return [found[job.key] for job in jobs]
