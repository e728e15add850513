"""Files of the machine that orders jobs, in the shared memory of a Ray cluster."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unaudit.engine import ray_node
from unaudit.engine.ray_node import Place

PART = 32 << 20
"""Bytes of a file that are put into shared memory at a time: a file may be larger than that."""
FAREWELL = 5.0
"""Seconds that nodes get to remove the data of a run; a dead one may still count as alive."""


class Depot:
    """Each content is put once, whatever the number of jobs, nodes and paths."""

    def __init__(self, ray: Any) -> None:
        """
        Args:
            ray: the module, connected.
        """
        self._ray = ray
        self.run = secrets.token_hex(16)
        self._digests: dict[tuple[str, int, int, int], str] = {}
        self._parts: dict[str, list[Any]] = {}

    def place(self, path: str, *, shipped: bool) -> Place:
        """What a node needs to have the file.

        Args:
            path: of a file here.
            shipped: whether there may be nodes that do not see it.

        Raises:
            ValueError: it is not a file.
        """
        file = Path(path).absolute()
        if not file.is_file():
            raise ValueError(f"a place of a job must be a file, and this is none: {path}")
        if not shipped:
            return Place(path=str(file), digest="", parts=[])
        state = file.stat()
        form = (str(file), state.st_size, state.st_mtime_ns, state.st_ino)
        if form not in self._digests:
            self._digests[form] = _digest(file)
        digest = self._digests[form]
        if digest not in self._parts:
            with file.open("rb") as stream:
                self._parts[digest] = list(self._put(stream))
        return Place(path=str(file), digest=digest, parts=self._parts[digest])

    def clear(self) -> None:
        """Remove the files from shared memory and from every node that may have written them."""
        if not self._parts:
            return
        self._digests.clear()
        self._parts.clear()
        with contextlib.suppress(Exception):  # the cluster may be gone
            self._drop()

    def _drop(self) -> None:
        ray = self._ray
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        task = ray.remote(ray_node.drop)
        home = ray.get_runtime_context().get_node_id()
        others = [x["NodeID"] for x in ray.nodes() if x["Alive"] and x["NodeID"] != home]
        there = [strategies.NodeAffinitySchedulingStrategy(node, soft=False) for node in others]
        dropped = [
            task.options(num_cpus=0, max_retries=0, scheduling_strategy=node).remote(self.run)
            for node in there
        ]
        if dropped:
            ray.wait(dropped, num_returns=len(dropped), timeout=FAREWELL)

    def _put(self, stream: BinaryIO) -> Iterator[Any]:
        while block := stream.read(PART):
            yield self._ray.put(np.frombuffer(block, np.uint8))  # read on nodes without a copy


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
