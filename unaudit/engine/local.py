"""Jobs on this machine, in several processes.

Workers are fresh interpreters that are told jobs as lines of JSON: nothing is pickled, no state is
inherited, and a program that calls unaudit needs no ``if __name__ == "__main__"``. A worker that
dies (killed, out of memory) is replaced and its job tried once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unaudit.engine.jobs import InProcess, Job
from unaudit.errors import InputError, UnauditError, UsageError

ATTEMPTS = 2
"""How often a job is tried whose worker dies."""
ROOT = Path(__file__).parents[2]
"""Where this package was imported from; workers run the same code."""
START = """\
import sys
sys.path[:] = [sys.argv[1], *(path for path in sys.path if path not in ("", "."))]
from unaudit.engine.worker import main
main(int(sys.argv[2]))
"""
"""What a worker runs. With ``-m`` it would import modules from the working directory, where files
from the model's side may lie."""
FAULTS: dict[str, type[UnauditError]] = {"InputError": InputError, "UsageError": UsageError}
"""Failures that a worker passes on as what they are; any other is an UnauditError."""


@dataclass(frozen=True)
class LocalProcesses:
    """An executor of worker processes."""

    workers: int
    """Processes at a time; one runs the jobs right here."""
    threads: int = 1
    """Threads for tensors in each."""

    @classmethod
    def for_machine(cls, workers: int | None = None) -> LocalProcesses:
        """One worker per core, or as many as said; together they use each core once."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        cores = cores or 1
        count = cores if workers is None else workers
        return cls(count, max(1, cores // max(1, count)))

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
        """See :class:`unaudit.engine.jobs.Executor`."""
        if self.workers == 1 or len(jobs) < 2:
            yield from InProcess().run(jobs)
            return
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for at in range(len(jobs)):
            waiting.put(at)
        finished: queue.SimpleQueue[tuple[int, bytes | BaseException]] = queue.SimpleQueue()
        stop = threading.Event()
        with tempfile.TemporaryDirectory(prefix="unaudit-jobs-") as folder:
            crew = [
                threading.Thread(
                    target=self._serve,
                    args=(jobs, waiting, finished, stop, Path(folder)),
                    daemon=True,
                )
                for _ in range(min(self.workers, len(jobs)))
            ]
            for thread in crew:
                thread.start()
            try:
                for _ in jobs:
                    at, result = finished.get()
                    if isinstance(result, BaseException):
                        raise result
                    yield at, result
            finally:
                stop.set()
                for thread in crew:
                    thread.join()

    def _serve(
        self,
        jobs: Sequence[Job],
        waiting: queue.SimpleQueue[int],
        finished: queue.SimpleQueue[tuple[int, bytes | BaseException]],
        stop: threading.Event,
        folder: Path,
    ) -> None:
        """Feed one worker until there is nothing left to do."""
        worker: _Worker | None = None
        try:
            while not stop.is_set():
                try:
                    at = waiting.get_nowait()
                except queue.Empty:
                    return
                for attempt in range(1, ATTEMPTS + 1):
                    worker = worker or _Worker(self.threads, stop)
                    try:
                        finished.put((at, worker.do(jobs[at], folder / str(at))))
                        break
                    except _DiedError as death:
                        worker.close()
                        worker = None
                        if stop.is_set():
                            return
                        if attempt == ATTEMPTS:
                            title = jobs[at].title or jobs[at].work
                            finished.put((at, RuntimeError(f"{title}: its worker {death}")))
                    except Exception as error:
                        finished.put((at, error))
                        break
        finally:
            if worker is not None:
                worker.close()


class _DiedError(Exception):
    """A worker ended before its job did."""


class _Worker:
    """One interpreter that runs jobs."""

    def __init__(self, threads: int, stop: threading.Event) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(ROOT), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        threading.Thread(target=self._end_on, args=(stop,), daemon=True).start()

    def do(self, job: Job, out: Path) -> bytes:
        """The result of one job.

        Raises:
            _DiedError: the worker ended.
            UnauditError, RuntimeError: the job failed.
        """
        order = {"work": job.work, "inputs": job.inputs, "places": job.places, "out": str(out)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise _DiedError(f"ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _failure(answer)
        result = out.read_bytes()
        out.unlink()
        return result

    def close(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _end_on(self, stop: threading.Event) -> None:
        """Kill the worker when everybody is to stop: an interrupted audit waits for no job."""
        while self._process.poll() is None:
            if stop.wait(0.2):
                with contextlib.suppress(OSError):
                    self._process.kill()
                return


def _failure(answer: dict[str, Any]) -> Exception:
    if answer["kind"] == "unaudit":
        return FAULTS.get(answer["type"], UnauditError)(answer["error"])
    return RuntimeError(f"{answer['type']}: {answer['error']}\n{answer['trace']}")
