"""The connection of this process to Ray: a cluster of its own, or one that is there already.

Whoever reaches Ray's ports can run code as the user who started it. So a cluster of our own listens
on loopback only and asks for a token, and so does no other cluster get connected to without one
unless ``RAY_AUTH_MODE`` says that it has none. Ray reads its settings from the environment when it
is first imported; they are put there for as long as it takes and then taken back.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from unaudit.engine.ray_address import AUTO, require, resolved
from unaudit.engine.ray_depot import Depot
from unaudit.errors import UsageError
from unaudit.text import plain

LOOPBACK = "127.0.0.1"
TRIES = "6"
"""Ray tries to connect once a second."""

_MODE, _TOKEN, _TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
# Without this, Ray replaces a loopback address by the machine's and listens on every interface:
# `_node_ip_address` alone changes nothing. Its name tells of the systems where it is the default.
_BEYOND = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_AT_IMPORT = (_MODE, _BEYOND)
# Ray tells of lost workers on stdout, which is for results; the executor tells of them as well
_QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}

_seen: dict[str, str | None] = {}
"""What Ray found in the environment when it was imported."""


_current: Session | None = None
"""A process has one connection, whatever the number of executors that use it."""


@dataclass
class Session:
    """A connection."""

    ray: Any
    """The module."""
    own: bool
    """Whether the cluster was started here: it has this node only."""
    connected: bool
    """Whether the connection was made here, and is to be ended here."""
    address: str | None = None
    """As it was given."""
    folder: Path | None = None
    """Sockets and logs of a cluster of our own; an empty folder for workers in any case."""
    users: int = 1
    depot: Depot = field(init=False)

    def __post_init__(self) -> None:
        self.depot = Depot(self.ray)

    def leave(self) -> None:
        """The last user removes the data, stops what was started here and leaves the rest alone."""
        global _current
        self.users -= 1
        if self.users:
            return
        if _current is self:  # else somebody else has ended it, and may have begun another
            _current = None
            self.depot.clear()
            if self.connected:
                self.ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def connect(address: str | None, cpus: int, threads: int, object_store: int | None) -> Session:
    """A connection to the cluster at ``address``, or to one that is started here.

    A process that is connected already stays so.

    Args:
        address: ``HOST:PORT``, ``auto``, or None for a cluster of our own.
        cpus: how many a cluster of our own offers.
        threads: of each worker.
        object_store: bytes of shared memory of a cluster of our own; None: as Ray chooses.

    Raises:
        UsageError: there is no Ray or no cluster, or it does not let us in.
    """
    global _current
    require()
    ray = importlib.import_module("ray") if "ray" in sys.modules else None
    if ray is not None and ray.is_initialized():
        known = (None, AUTO, ray.get_runtime_context().gcs_address, _current and _current.address)
        if address not in known:
            raise UsageError(
                f"--engine ray:{plain(address)}: this process is connected to another cluster"
            )
        if _current is not None:
            _current.users += 1
            return _current
        _current = Session(ray, own=False, connected=False)
    elif address is None:
        _current = _started(cpus, threads, object_store)
    else:
        _current = _joined(resolved(address), threads)
    return _current


def _started(cpus: int, threads: int, object_store: int | None) -> Session:
    settings = {
        _MODE: "token",
        _TOKEN: os.environ.get(_TOKEN) or _own_token(),
        _BEYOND: "0",
        **_QUIET,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    _check_import(settings)
    # Ray opens its own folders to everybody; and a socket's path must be short
    root = "/tmp" if os.access("/tmp", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="unaudit-ray-", dir=root))
    try:
        with _environment(settings), _own_sigterm():
            ray = importlib.import_module("ray")
            ray.init(
                "local",
                num_cpus=cpus,
                object_store_memory=object_store,
                include_dashboard=False,
                runtime_env=_worker_environment(folder, threads),
                _node_ip_address=LOOPBACK,
                _temp_dir=str(folder),
                **_quiet(),
            )
        addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
        if addresses != {LOOPBACK}:  # a Ray that knows the setting no more
            ray.shutdown()
            raise RuntimeError(f"Ray listens on {', '.join(sorted(addresses))}, not on loopback")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Session(ray, own=True, connected=True, folder=folder)


def _joined(address: str, threads: int) -> Session:
    mode = os.environ.get(_MODE) or "token"
    shown = plain(address)
    if mode == "token" and not _has_token():
        raise UsageError(
            f"--engine ray:{shown}: no token for the cluster; set {_TOKEN_FILE} or {_TOKEN}, "
            f"or {_MODE}=disabled if it asks for none"
        )
    settings = {_MODE: mode, **_QUIET, "RAY_NUM_REDIS_GET_RETRIES": TRIES}
    _check_import(settings)
    folder = Path(tempfile.mkdtemp(prefix="unaudit-ray-"))
    try:
        with _environment(settings), _own_sigterm():
            ray = importlib.import_module("ray")
            # `ray job submit` may have set a working directory, which cannot be set twice
            given = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
            environment = None if given else _worker_environment(folder, threads)
            ray.init(address, runtime_env=environment, **_quiet())
    except ConnectionError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(
            f"--engine ray:{shown}: {_first_line(error)}; is this a node of the cluster, and the "
            "token the cluster's?"
        ) from None
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(f"--engine ray:{shown}: {_first_line(error)}") from None
    return Session(ray, own=False, connected=True, address=address, folder=folder)


def _worker_environment(folder: Path, threads: int) -> dict[str, Any]:
    """Workers start in an empty folder: else Ray lets them import modules from the folder in which
    unaudit was called, and a model's folder may hold a ``torch.py``."""
    empty = folder / "empty"
    empty.mkdir()
    # Ray leaves out a folder without any file
    (empty / "README").write_text("unaudit: workers find no modules here\n", encoding="ascii")
    return {"working_dir": str(empty), "env_vars": {"OMP_NUM_THREADS": str(threads)}}


def _quiet() -> dict[str, Any]:
    return {"logging_level": "ERROR", "log_to_driver": False}


@cache
def _own_token() -> str:
    """One per process: Ray keeps the first that it sees."""
    return secrets.token_hex(32)


def _has_token() -> bool:
    default = Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get(_TOKEN) or os.environ.get(_TOKEN_FILE)) or default.is_file()


def _check_import(settings: Mapping[str, str]) -> None:
    """
    Raises:
        UsageError: Ray was imported with other settings, which it keeps.
    """
    if "ray" not in sys.modules:
        _seen.update({name: settings.get(name, os.environ.get(name)) for name in _AT_IMPORT})
        return
    if not _seen:
        _seen.update({name: os.environ.get(name) for name in _AT_IMPORT})
    for name, value in settings.items():
        if name in _AT_IMPORT and _seen[name] != value:
            raise UsageError(
                f"Ray was imported without {name}={value}, which cannot be set later; set it "
                "before Python starts, or use the engine in a process of its own"
            )


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in {*os.environ, *before}:  # Ray adds some of its own
            if name not in before:
                del os.environ[name]
            elif os.environ.get(name) != before[name]:
                os.environ[name] = before[name]


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray ends the process in good order on SIGTERM; who has a better handler keeps it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and before not in (signal.SIG_DFL, None):
        signal.signal(signal.SIGTERM, before)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return plain(lines[0].rstrip(". "), 300)
