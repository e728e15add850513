"""What a node of a Ray cluster does with a job: data into local files, run it, answer.

The files of a run lie in one folder per node, readable by their owner alone and named after the
run's secret, each under the digest of its content. Whoever comes first writes a file, the others
wait for it. The folder goes when the run ends; what a killed run left is removed a day later by the
next one on that node.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypedDict

from threadpoolctl import threadpool_limits

from unaudit.engine.jobs import Job
from unaudit.errors import UnauditError, UsageError

FOLDER = "unaudit-data-"
"""Start of the name of a run's folder on a node."""
STALE = 24 * 3600.0
"""Seconds without a new job after which a folder is taken to be left behind."""
PLUGINS = ("unaudit.unlearners", "unaudit.architectures", "unaudit.formats")
"""Entry points from which jobs may take code."""


class Order(TypedDict):
    """A job and where it came from."""

    work: str
    inputs: dict[str, Any]
    threads: int
    """For tensors and linear algebra."""
    surroundings: dict[str, str]
    """:func:`surroundings` of the machine that ordered the job."""
    home: str
    """Node of that machine; the files of the job are there already."""
    directory: str
    """Working directory there."""
    run: str
    """The run's secret."""


class Place(TypedDict):
    """A file that a job reads."""

    path: str
    """Where it lies at home."""
    digest: str
    """SHA-256 of its content; empty where the cluster has no other node."""
    parts: list[Any]
    """References to its content, in order."""


def serve(order: Order, places: Mapping[str, Place]) -> bytes | dict[str, Any]:
    """The result of a job, or ``error``, ``type`` and ``kind`` of what went wrong: ``unaudit``
    (the reader can put it right), ``bug``, or ``lost`` (another try may do)."""
    import torch

    ray: Any = importlib.import_module("ray")
    try:
        _compare(order["surroundings"])
        torch.set_num_threads(order["threads"])
        if ray.get_runtime_context().get_node_id() == order["home"]:
            with contextlib.suppress(OSError):
                os.chdir(order["directory"])  # trusted code may lie there
            files = {name: place["path"] for name, place in places.items()}
        else:
            folder = Path(tempfile.gettempdir()) / f"{FOLDER}{order['run']}"
            files = {name: str(brought(place, folder)) for name, place in places.items()}
        with threadpool_limits(limits=order["threads"]):
            return Job(order["work"], order["inputs"], files).run()
    except UnauditError as error:
        return {"error": str(error), "type": type(error).__name__, "kind": "unaudit"}
    except ray.exceptions.RayError as error:
        return {"error": str(error), "type": type(error).__name__, "kind": "lost"}
    except Exception as error:  # the driver reports it
        trace = traceback.format_exc()
        return {"error": str(error), "type": type(error).__name__, "kind": "bug", "trace": trace}


@cache
def surroundings() -> dict[str, str]:
    """Versions, by name, of what decides results beside unaudit itself: torch and plug-ins."""
    import torch

    found = {"torch": str(torch.__version__)}
    for group in PLUGINS:
        for point in entry_points(group=group):
            if point.dist is not None:
                found[point.dist.name] = point.dist.version
    return found


def brought(place: Place, folder: Path) -> Path:
    """The file with the content of ``place`` in ``folder``, written if it is not there.

    Raises:
        RayError: part of the content is lost.
        UsageError: the folder cannot be written.
        RuntimeError: something else arrived.
    """
    target = folder / f"{place['digest']}{Path(place['path']).suffix}"
    try:
        if not folder.exists():
            _sweep(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        os.utime(folder)
        if not target.exists():
            with _alone(target):
                if not target.exists():  # somebody wrote it while this process waited
                    _write(target, place)
    except OSError as error:
        raise UsageError(
            f"node {socket.gethostname()} of the Ray cluster cannot keep the data of a job in "
            f"{folder.parent} ({error.strerror}); free space or set TMPDIR there before Ray starts"
        ) from None
    return target


def drop(run: str) -> None:
    """Remove the files of a run from this node."""
    shutil.rmtree(Path(tempfile.gettempdir()) / f"{FOLDER}{run}", ignore_errors=True)


def _compare(expected: Mapping[str, str]) -> None:
    found = surroundings()
    for name in sorted({*expected, *found}):
        here, there = found.get(name, "none"), expected.get(name, "none")
        if here != there:
            raise UsageError(
                f"node {socket.gethostname()} of the Ray cluster has {name} {here}, this machine "
                f"{there}; install the same on every node"
            )


def _write(target: Path, place: Place) -> None:
    """Write a private file and rename it: readers see all of it or nothing."""
    ray: Any = importlib.import_module("ray")
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in place["parts"]:
                content = ray.get(part)  # a view of shared memory
                digest.update(content)
                file.write(content)
        if digest.hexdigest() != place["digest"]:
            raise RuntimeError(f"not what was sent: {place['path']}")
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One process of this node at a time. Without such locks (Windows) several may write the same
    file, which the rename makes harmless."""
    with target.with_suffix(".lock").open("wb") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the process ends, however it does
        yield


def _sweep(parent: Path) -> None:
    """Remove what killed runs left behind."""
    for folder in parent.glob(f"{FOLDER}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE:
                shutil.rmtree(folder, ignore_errors=True)
