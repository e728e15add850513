"""Addresses of Ray clusters, as said on the command line; nothing here needs Ray itself."""

from __future__ import annotations

import importlib.util
import os
import socket

from unaudit.errors import UsageError
from unaudit.text import plain

AUTO = "auto"
"""Stands for the address in ``RAY_ADDRESS``. Ray itself would take any cluster on this machine,
whoever started it, and show it the token."""
REACH = 5.0
"""Seconds to wait for an address to answer."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def require() -> None:
    """
    Raises:
        UsageError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("the engine 'ray' needs Ray: pip install 'unaudit[ray]'")


def resolved(address: str) -> str:
    """``HOST:PORT`` of a cluster where somebody listens.

    Raises:
        UsageError: nobody does, or it is no address of a cluster.
    """
    shown = plain(address)
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS", "")
        if not address:
            raise UsageError("--engine ray:auto: RAY_ADDRESS is not set; give ray:HOST:PORT")
        shown = f"auto: RAY_ADDRESS={plain(address)}"
    if "://" in address:
        raise UsageError(
            f"--engine ray:{shown}: unaudit runs on a node of the cluster; give HOST:PORT there"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"--engine ray:{shown}: not an address; give HOST:PORT")
    complaint = _complaint(host.strip("[]"), int(port))
    if complaint:
        raise UsageError(
            f"--engine ray:{shown}: nobody answers there ({complaint}); is the cluster up?"
        )
    return address


def _complaint(host: str, port: int) -> str:
    """Why nobody can be reached; empty where somebody can."""
    # Ray takes a loopback address for that of the machine, and may listen there alone
    hosts = (host, socket.gethostname()) if host in _LOOPBACK else (host,)
    complaints = [_tried(name, port) for name in hosts]
    return "" if "" in complaints else complaints[0]


def _tried(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=REACH).close()
    except (OSError, UnicodeError) as error:  # the latter: no name of a host
        return str(getattr(error, "strerror", None) or error)
    return ""
