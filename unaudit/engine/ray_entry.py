"""The first code that a job runs on a node: it makes sure that the node has this very unaudit.

It travels with the job instead of being imported there, so that a node without unaudit, or with
another version of it, can say so. Nothing of unaudit may be imported at the top of this module.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any


def execute(
    order: str, expected: Mapping[str, str], places: Mapping[str, Any]
) -> bytes | dict[str, Any]:
    """The result of a job, or what went wrong; see :mod:`unaudit.engine.ray_node`.

    Args:
        order: the job as JSON.
        expected: what :func:`identity` gives on the machine that ordered the job.
        places: the data of the job.
    """
    node = socket.gethostname()
    try:
        found = identity()
        from unaudit.engine.ray_node import serve
    except ImportError as error:
        return _refusal(
            f"node {node} of the Ray cluster cannot import unaudit ({error}); install the version "
            f"of this machine there: unaudit {expected['version']}"
        )
    if found != dict(expected):
        return _refusal(
            f"node {node} of the Ray cluster has unaudit {found['version']} (code "
            f"{found['code'][:12]}), this machine {expected['version']} (code "
            f"{expected['code'][:12]}); install the same on every node"
        )
    return serve(json.loads(order), places)


def identity() -> dict[str, str]:
    """Version of the installed unaudit, and digest of its source.

    Raises:
        ImportError: it is not installed, or too old to tell.
    """
    from importlib.metadata import PackageNotFoundError, version

    from unaudit.engine.answers import code_digest

    try:
        installed = version("unaudit")
    except PackageNotFoundError:  # imported from a source folder
        installed = "of no version"
    return {"version": installed, "code": code_digest("unaudit")}


def _refusal(message: str) -> dict[str, Any]:
    return {"kind": "unaudit", "type": "UsageError", "error": message}
