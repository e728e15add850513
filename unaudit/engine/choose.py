"""Where jobs run, as said on the command line: ``local`` or ``ray[:ADDRESS]``."""

from __future__ import annotations

from unaudit.engine.jobs import Executor
from unaudit.engine.local import LocalProcesses
from unaudit.errors import UsageError
from unaudit.registry import did_you_mean
from unaudit.text import quote

ENGINES = ("local", "ray")


def engine_from(spec: str, workers: int | None = None) -> Executor:
    """The executor that ``spec`` names.

    A cluster is asked for here and connected to with the first job.

    Args:
        spec: ``local``; ``ray``, a cluster of our own on this machine; ``ray:HOST:PORT``, or
            ``ray:auto`` for the address in ``RAY_ADDRESS``, one that is there.
        workers: jobs at a time; None: one per core, on a cluster as many as it takes.

    Raises:
        UsageError: there is no such engine, Ray is not installed, or nobody answers at the address.
    """
    name, colon, address = spec.partition(":")
    if name not in ENGINES:
        raise UsageError(f"--engine {quote(name)}: no such engine{did_you_mean(name, ENGINES)}")
    here = LocalProcesses.for_machine(workers)
    if name == "local":
        if colon:
            raise UsageError("--engine local takes no address")
        return here
    from unaudit.engine.ray_address import require, resolved
    from unaudit.engine.ray_cluster import RayCluster

    require()
    if not colon:
        return RayCluster(None, here.workers, here.threads)
    return RayCluster(resolved(address), workers)
