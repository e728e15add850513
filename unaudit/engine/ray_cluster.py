"""Jobs on a Ray cluster: one that is started here, or one that is there already.

A job travels as JSON, its data as files that are put into the cluster's shared memory once and
written once per node, its result as bytes. A job whose worker or node is lost is tried again
elsewhere. What is asked of each node is checked on it: the same unaudit, torch and plug-ins.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from unaudit.engine import ray_entry, ray_node
from unaudit.engine.jobs import Job
from unaudit.engine.local import FAULTS, LocalProcesses
from unaudit.engine.ray_node import Order
from unaudit.engine.ray_session import Session, connect
from unaudit.errors import UnauditError, UsageError

ATTEMPTS = 3
"""How often a job is tried whose worker or node is lost."""
PENDING = 1000
"""Jobs that a cluster knows of at a time, where nobody said how many."""
PATIENCE = 60.0
"""Seconds without a result after which it is said what the jobs wait for."""

_log = logging.getLogger(__name__)


class RayCluster:
    """An executor of Ray tasks. It connects when it gets its first job, and disconnects when it is
    closed or the process ends; of a cluster that it did not start, nothing else is stopped."""

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        threads: int = 1,
        *,
        object_store: int | None = None,
    ) -> None:
        """
        Args:
            address: ``HOST:PORT``, or ``auto`` for ``RAY_ADDRESS``; None starts a cluster on this
                machine, on loopback.
            workers: jobs at a time; None: one per core here, on a cluster as many as it takes.
            threads: cores that each job gets, and threads for its tensors.
            object_store: bytes of shared memory of a cluster that is started here.
        """
        self.address, self.threads = address, threads
        self.workers = workers
        self._object_store = object_store
        self._session: Session | None = None
        self._task: Any = None
        self._gpu_task: Any = None
        self._identity: dict[str, str] = {}

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
        """See :class:`unaudit.engine.jobs.Executor`.

        Raises:
            UsageError: there is no cluster, or a node of it has other software.
            ValueError: a place of a job is not a file.
        """
        if not jobs:
            return
        session = self._connected()
        ray = session.ray
        waiting = deque(range(len(jobs)))
        running: dict[Any, int] = {}
        lost: Counter[int] = Counter()
        told = False
        try:
            while waiting or running:
                while waiting and len(running) < (self.workers or PENDING):
                    at = waiting.popleft()
                    running[self._submit(session, jobs[at])] = at
                done, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
                if not done and not told:
                    told = self._say_what_is_lacking(session, jobs, running.values())
                for reference in done:
                    at = running.pop(reference)
                    result = _result(ray, reference)
                    if isinstance(result, bytes):
                        yield at, result
                        continue
                    lost[at] += 1
                    title = jobs[at].title or jobs[at].work
                    if lost[at] == ATTEMPTS:
                        raise RuntimeError(
                            f"{title}: its worker was lost {ATTEMPTS} times ({result})"
                        )
                    _log.warning("%s: its worker was lost (%s); trying again", title, result)
                    waiting.append(at)
        finally:
            for reference in running:
                with contextlib.suppress(Exception):  # the cluster may be gone
                    ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; the last to leave stops what was started and removes the data."""
        atexit.unregister(self.close)
        session, self._session = self._session, None
        if session is not None:
            session.leave()

    def _connected(self) -> Session:
        if self._session is None:
            here = LocalProcesses.for_machine(self.workers)
            cpus = here.workers * self.threads
            self._session = connect(self.address, cpus, self.threads, self._object_store)
            atexit.register(self.close)
            # the entry says what is wrong on nodes without unaudit, so it cannot be imported there
            self._session.ray.cloudpickle.register_pickle_by_value(ray_entry)
            self._task = self._session.ray.remote(ray_entry.execute)
            # said here and not with each job, else Ray would give a process another GPU than the
            # one it has begun to use; so each of these jobs gets a fresh process
            self._gpu_task = self._session.ray.remote(num_gpus=1)(ray_entry.execute)
            self._identity = ray_entry.identity()
        return self._session

    def _submit(self, session: Session, job: Job) -> Any:
        """A reference to the result to come."""
        ray = session.ray
        gpus = _gpus(job)
        if gpus and session.own and gpus > ray.cluster_resources().get("GPU", 0):
            raise UsageError("Ray finds no GPU on this machine; run with --device cpu")
        order = Order(
            work=job.work,
            inputs=dict(job.inputs),
            threads=self.threads,
            surroundings=ray_node.surroundings(),
            home=ray.get_runtime_context().get_node_id(),
            directory=os.getcwd(),
            run=session.depot.run,
        )
        places = {
            name: session.depot.place(path, shipped=not session.own)
            for name, path in job.places.items()
        }
        task = (self._gpu_task if gpus else self._task).options(
            name=job.title or job.work,
            num_cpus=self.threads,
            max_retries=0,  # tried again here, where tries are counted
        )
        return task.remote(json.dumps(order), self._identity, places)

    def _say_what_is_lacking(
        self, session: Session, jobs: Sequence[Job], running: Iterable[int]
    ) -> bool:
        """Whether there was something to say: a cluster that grows may get it yet."""
        needed = {"CPU": self.threads, "GPU": max(_gpus(jobs[at]) for at in running)}
        wanted = {what: count for what, count in needed.items() if count}
        for node in session.ray.nodes():
            offered = node["Resources"]
            if node["Alive"] and all(offered.get(what, 0) >= n for what, n in wanted.items()):
                return False
        text = " and ".join(f"{count} {what}" for what, count in wanted.items())
        _log.warning("waiting: no node of the Ray cluster has %s for a job", text)
        return True


def _gpus(job: Job) -> int:
    return int(str(job.inputs.get("device", "")).startswith("cuda"))


def _result(ray: Any, reference: Any) -> bytes | str:
    """The result of a task, or how its worker was lost.

    Raises:
        UnauditError: the job failed in a way that its reader can put right.
        RuntimeError: the job or Ray broke.
    """
    errors = ray.exceptions
    try:
        answer: bytes | dict[str, Any] = ray.get(reference)
    except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
        return type(error).__name__
    except errors.ObjectLostError as error:  # the node went with the result on it
        return type(error).__name__
    except errors.RayError as error:
        raise RuntimeError(f"Ray: {error}") from None
    if isinstance(answer, bytes):
        return answer
    if answer["kind"] == "lost":
        return str(answer["type"])
    if answer["kind"] == "unaudit":
        raise FAULTS.get(answer["type"], UnauditError)(answer["error"])
    raise RuntimeError(f"{answer['type']}: {answer['error']}\n{answer['trace']}")
