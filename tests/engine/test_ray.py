"""Jobs on Ray: what they give elsewhere, on loopback, behind a token, whatever dies."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from unaudit.engine import ray_entry, ray_node, ray_session
from unaudit.engine.choose import engine_from
from unaudit.engine.jobs import InProcess, Job
from unaudit.engine.local import LocalProcesses
from unaudit.engine.ray_cluster import RayCluster
from unaudit.engine.ray_depot import Depot
from unaudit.errors import InputError, UsageError
from unaudit.training.model_job import WORK as MAKE
from unaudit.training.recipe import Recipe

ECHO = "unaudit.engine.worker:echo"
STORE = 80 << 20
"""Bytes; Ray takes no less."""
# looked for, not imported: Ray reads its settings when it is imported
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray installed")
needs_proc = pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="no /proc/net")


def echo(value: object, **changes: object) -> Job:
    return Job(ECHO, {"value": value, **changes})


def eventually(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What ``look`` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    """Jobs that train and unlearn small networks."""
    folder, rng = tmp_path_factory.mktemp("places"), np.random.default_rng(0)
    labels = rng.integers(0, 3, 240)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "inputs": (rng.normal(size=(240, 8)) + labels[:, None]).astype(np.float32),
        "labels": labels,
        "forget": np.arange(240) < 40,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    shared: dict[str, Any] = {
        "parameters": {},
        "arch": "unaudit:mlp?widths=8-16-3",
        "trusted": False,
        "recipe": dataclasses.asdict(Recipe(lr=0.05, epochs=5, batch=32)),
        "augment": "none",
        "scenario": "sample",
        "n_classes": 3,
        "head": None,
        "device": "cpu",
    }
    places = {name: str(folder / f"{name}.npy") for name in arrays}
    train, retrain, finetune = (
        Job(MAKE, {**shared, "method": method, "seed": seed}, places, method)
        for seed, method in enumerate(("train", "retrain", "finetune"))
    )
    np.save(folder / "original.npy", np.frombuffer(train.run(), np.uint8))
    unlearns = {**places, "original": str(folder / "original.npy")}
    return [train, retrain, dataclasses.replace(finetune, places=unlearns)]


# -- what is said on the command line


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rai", "no such engine .did you mean 'ray'"),
        ("local:2", "takes no address"),
        ("ray:", "give HOST:PORT"),
        ("ray:node-1", "give HOST:PORT"),
        ("ray:node-1:99999", "give HOST:PORT"),
        ("ray:ray://node-1:10001", "on a node of the cluster"),
        ("ray:auto", "RAY_ADDRESS=http://127.0.0.1:8265: unaudit runs on a node"),
        ("ray:127.0.0.1:{free}", "nobody answers there"),
        ("ray:no-such-host.invalid:6379", "nobody answers there"),
        ("ray:..:6379", "nobody answers there"),
    ],
)
@needs_ray
def test_a_bad_engine_is_a_line(spec: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(UsageError, match=message) as caught:
        engine_from(spec.format(free=free))
    assert "\n" not in str(caught.value)


@needs_ray
def test_auto_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="RAY_ADDRESS is not set"):
        engine_from("ray:auto")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        executor = engine_from("ray:auto", 3)
        assert isinstance(executor, RayCluster)
        assert (executor.address, executor.workers) == (address, 3)


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'unaudit\[ray\]'"):
        engine_from("ray")
    assert isinstance(engine_from("local", 2), LocalProcesses)


@needs_ray
def test_a_cluster_without_a_token_is_not_joined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(UsageError, match="no token for the cluster; set RAY_AUTH_TOKEN_PATH"),
    ):
        ray_session._joined(f"127.0.0.1:{server.getsockname()[1]}", threads=1)


# -- what a node checks


@needs_ray
def test_a_node_without_unaudit_says_so() -> None:
    script = (
        "import sys; sys.modules['unaudit'] = None\n"
        "import ray.cloudpickle as pickle\n"
        "run = pickle.loads(sys.stdin.buffer.read())\n"
        "print(run('{}', {'version': '1.2', 'code': ''}, {})['error'])\n"
    )
    pickler = (
        "import sys, ray.cloudpickle as pickle; from unaudit.engine import ray_entry\n"
        "pickle.register_pickle_by_value(ray_entry)\n"
        "sys.stdout.buffer.write(pickle.dumps(ray_entry.execute))\n"
    )
    sent = subprocess.run([sys.executable, "-c", pickler], capture_output=True, check=True).stdout
    said = subprocess.run([sys.executable, "-c", script], input=sent, capture_output=True)
    text = said.stdout.decode()
    assert f"node {socket.gethostname()} of the Ray cluster cannot import unaudit" in text
    assert text.endswith("there: unaudit 1.2\n")


def test_a_node_with_other_code_says_so() -> None:
    here = ray_entry.identity()
    answer = ray_entry.execute("{}", {"version": "0.0.1", "code": "abc"}, {})
    assert isinstance(answer, dict)
    assert (answer["kind"], answer["type"]) == ("unaudit", "UsageError")
    expected = f"has unaudit {here['version']} (code {here['code'][:12]}), this machine 0.0.1"
    assert expected in answer["error"]


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"torch": "2.10.0"}, "has torch .*, this machine 2.10.0; install"),
        ({"my-unlearners": "1.0"}, "has my-unlearners none, this machine 1.0; install"),
    ],
)
def test_a_node_with_other_software_says_so(there: dict[str, str], message: str) -> None:
    ray_node._compare(ray_node.surroundings())
    with pytest.raises(UsageError, match=message):
        ray_node._compare({**ray_node.surroundings(), **there})


@pytest.mark.parametrize(("gpus", "said"), [(0, True), (1, False)])
def test_what_jobs_wait_for_is_said(
    gpus: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": gpus}},
        {"Alive": False, "Resources": {"CPU": 4.0, "GPU": 1.0}},
    ]
    session = cast(ray_session.Session, SimpleNamespace(ray=SimpleNamespace(nodes=lambda: nodes)))
    jobs = [echo(0), echo(1, device="cuda")]
    assert RayCluster()._say_what_is_lacking(session, jobs, [0, 1]) is said
    assert ("no node of the Ray cluster has 1 CPU and 1 GPU for a job" in caplog.text) is said


# -- how data travel


class Memory:
    """Shared memory without a cluster."""

    def __init__(self) -> None:
        self.put_in: list[Any] = []

    def put(self, array: Any) -> int:
        self.put_in.append(array)
        return len(self.put_in) - 1

    def get(self, reference: int) -> Any:
        return self.put_in[reference]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr("unaudit.engine.ray_depot.PART", 1000)
    real = importlib.import_module
    monkeypatch.setattr(
        importlib, "import_module", lambda name: memory if name == "ray" else real(name)
    )
    return memory


def test_each_content_is_put_and_written_once(memory: Memory, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(2500)
    for name in ("one.npy", "same.npy"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty.npy").touch()
    depot = Depot(memory)
    one, again, same, empty = (
        depot.place(str(tmp_path / name), shipped=True)
        for name in ("one.npy", "one.npy", "same.npy", "empty.npy")
    )
    assert len(memory.put_in) == 3
    assert one == again
    assert (one["digest"], one["parts"]) == (same["digest"], same["parts"])
    folder = tmp_path / "node"
    written = ray_node.brought(one, folder)
    before = written.stat().st_mtime_ns
    assert written.read_bytes() == content
    assert ray_node.brought(same, folder) == written
    assert written.stat().st_mtime_ns == before
    assert ray_node.brought(empty, folder).read_bytes() == b""
    assert folder.stat().st_mode & 0o777 == 0o700
    assert written.stat().st_mode & 0o777 == 0o600
    (tmp_path / "one.npy").write_bytes(content[::-1])
    assert depot.place(str(tmp_path / "one.npy"), shipped=True)["digest"] != one["digest"]


def test_what_is_not_shipped_is_not_read(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "one.npy").write_bytes(b"x")
    place = Depot(memory).place(str(tmp_path / "one.npy"), shipped=False)
    assert (place["path"], place["parts"]) == (str(tmp_path / "one.npy"), [])
    assert memory.put_in == []


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_place_is_a_file(memory: Memory, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be a file"):
        Depot(memory).place(str(tmp_path / name), shipped=True)


def test_what_arrives_damaged_is_not_used(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "one.npy").write_bytes(b"whole")
    place = Depot(memory).place(str(tmp_path / "one.npy"), shipped=True)
    memory.put_in[0] = np.frombuffer(b"whale", np.uint8)
    with pytest.raises(RuntimeError, match="not what was sent"):
        ray_node.brought(place, tmp_path / "node")
    assert {path.suffix for path in (tmp_path / "node").iterdir()} == {".lock"}


def test_what_killed_runs_left_is_swept(memory: Memory, tmp_path: Path) -> None:
    left, young = (tmp_path / f"{ray_node.FOLDER}{name}" for name in ("left", "young"))
    for folder in (left, young):
        folder.mkdir()
        (folder / "data").write_bytes(b"x")
    long_ago = time.time() - 2 * ray_node.STALE
    os.utime(left, (long_ago, long_ago))
    (tmp_path / "one.npy").write_bytes(b"x")
    place = Depot(memory).place(str(tmp_path / "one.npy"), shipped=True)
    ray_node.brought(place, tmp_path / f"{ray_node.FOLDER}new")
    assert not left.exists()
    assert (young / "data").exists()


# -- a cluster of our own


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Called in a folder with a module that must not be taken for torch."""
    hostile = tmp_path_factory.mktemp("hostile")
    (hostile / "torch.py").write_text("raise SystemExit('imported')\n")
    before, back = dict(os.environ), os.getcwd()
    with RayCluster(workers=2, object_store=STORE) as cluster:
        os.chdir(hostile)
        try:
            assert dict(cluster.run([echo(0)])) == {0: b'{"value": 0}'}
        finally:
            os.chdir(back)
        assert dict(os.environ) == before  # the token is in nobody else's environment
        yield cluster


@needs_ray
def test_a_cluster_gives_what_one_process_gives(own: RayCluster, models: list[Job]) -> None:
    jobs = [*models, echo("x")]
    assert dict(own.run(jobs)) == dict(InProcess().run(jobs))
    assert list(own.run([])) == []


@needs_ray
def test_failures_keep_their_kind(own: RayCluster) -> None:
    with pytest.raises(InputError, match="the file is bad"):
        list(own.run([echo(1, fail="the file is bad"), echo(2)]))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(own.run([echo(1, fail="")]))
    with pytest.raises(UsageError, match="no GPU on this machine"):
        list(own.run([echo(1, device="cuda")]))
    with pytest.raises(ValueError, match="must be a file"):
        list(own.run([Job(ECHO, {}, {"store": str(Path.cwd())})]))


@needs_ray
@needs_proc
def test_nothing_listens_beyond_loopback(own: RayCluster) -> None:
    list(own.run([echo(1)]))
    listening = list(_listening(_family(os.getpid())))
    assert len(listening) > 3  # head, node, workers, this process
    assert set(listening) <= {
        "0100007F",  # 127.0.0.1
        "0000000000000000FFFF00000100007F",  # the same, mapped
        "00000000000000000000000001000000",  # ::1
    }


def _family(root: int) -> set[int]:
    """A process and all that descend from it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with_parent = status.read_text().rpartition(")")[2].split()
        parents[int(status.parent.name)] = int(with_parent[1])
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _listening(processes: set[int]) -> Iterator[str]:
    """Addresses, as the kernel writes them, on which the processes listen."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                sockets[f"socket:[{words[9]}]"] = words[1].partition(":")[0]
    for process in processes:
        for handle in Path(f"/proc/{process}/fd").iterdir():
            try:
                name = os.readlink(handle)
            except OSError:
                continue
            if name in sockets:
                yield sockets[name]


@needs_ray
def test_workers_import_nothing_from_where_unaudit_is_called(own: RayCluster) -> None:
    session = own._connected()
    path = session.ray.get(session.ray.remote(lambda: sys.path).remote())
    assert "" not in path
    assert not [folder for folder in path if "hostile" in folder]


@needs_ray
def test_jobs_nobody_waits_for_are_cancelled(own: RayCluster, tmp_path: Path) -> None:
    marks = tmp_path / "pids"
    run = own.run([echo(0), echo(1, sleep=600, mark=str(marks)), echo(2, sleep=600)])
    assert next(run) == (0, b'{"value": 0}')
    eventually(lambda: marks.exists() and marks.read_text())
    run.close()  # type: ignore[attr-defined]
    assert len(list(own.run([echo(number) for number in range(4)]))) == 4


@needs_ray
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_worker_is_replaced_but_not_forever(
    own: RayCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marks = tmp_path / "pids"

    def run_killing(most: int) -> Iterator[tuple[int, bytes]]:
        """A run whose workers are killed, at most so many of them."""
        marks.unlink(missing_ok=True)
        stop, killed = threading.Event(), set[str]()

        def kill() -> None:
            while not stop.wait(0.02) and len(killed) < most:
                started = marks.read_text().split() if marks.exists() else []
                for pid in [pid for pid in started if pid not in killed]:
                    killed.add(pid)
                    os.kill(int(pid), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield from own.run([echo(7, mark=str(marks), sleep=1.0)])
        finally:
            stop.set()
            killer.join()

    ((_, result),) = run_killing(1)
    assert json.loads(result)["value"] == 7
    assert len(marks.read_text().split()) == 2
    monkeypatch.setattr("unaudit.engine.ray_cluster.ATTEMPTS", 2)
    with pytest.raises(RuntimeError, match="its worker was lost 2 times"):
        list(run_killing(99))
    assert capsys.readouterr().out == ""  # it is for results


@needs_ray
def test_a_stranger_is_not_let_in(own: RayCluster) -> None:
    script = (
        "import sys\n"
        "from unaudit.engine.jobs import Job\n"
        "from unaudit.engine.ray_cluster import RayCluster\n"
        f"print(list(RayCluster(sys.argv[1]).run([Job({ECHO!r}, {{}})])))\n"
    )
    address = own._connected().ray.get_runtime_context().gcs_address
    strange = {
        **os.environ,
        "RAY_AUTH_TOKEN": "0" * 64,
        "RAY_AUTH_MODE": "token",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    command = [sys.executable, "-c", script, address]
    said = subprocess.run(command, env=strange, capture_output=True, text=True, timeout=60)
    assert said.returncode != 0
    assert said.stdout == ""
    assert "is this a node of the cluster, and the token the cluster's?" in said.stderr


# -- a cluster of two nodes


@pytest.fixture
def two_nodes(
    own: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[Any, Any]]:
    """A cluster that others started, and its second node."""
    own.close()
    short = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # it holds sockets
    (short / "ray").mkdir()
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": ray_session._own_token(),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_TMPDIR": str(short),
        "TMPDIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    node = {"num_cpus": 1, "object_store_memory": STORE, "node_ip_address": "127.0.0.1"}
    cluster_utils = importlib.import_module("ray.cluster_utils")
    head = {**node, "include_dashboard": False, "num_gpus": 1}  # as it is told
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, cluster.add_node(**node)
    finally:
        cluster.shutdown()
        shutil.rmtree(short, ignore_errors=True)


@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="Ray has clusters on Linux only")
def test_a_run_survives_the_death_of_a_node(
    two_nodes: tuple[Any, Any],
    models: list[Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, second = two_nodes
    alone = dict(InProcess().run(models))
    marks = tmp_path / "pids"

    def brought() -> list[Path]:
        return list(tmp_path.glob(f"{ray_node.FOLDER}*/*.npy"))

    def kill_second() -> None:
        eventually(lambda: marks.exists() and len(marks.read_text().split()) == 2)
        cluster.remove_node(second, allow_graceful=False)

    with RayCluster(cluster.address) as executor:
        assert dict(executor.run([*models, *models])) == {at: alone[at % 3] for at in range(6)}
        assert len(brought()) in (3, 4)  # on the second node, once; not all jobs read the original
        with RayCluster(cluster.address) as other:
            assert other._connected() is executor._connected()
        executor._connected().depot.clear()
        assert brought() == []
        killer = threading.Thread(target=kill_second)
        killer.start()
        # one long job on each node, so the second node is at work when it dies
        long = [echo(number, mark=str(marks), sleep=2.0) for number in range(2)]
        found = dict(executor.run([*long, *models]))
        killer.join()
        monkeypatch.setattr("unaudit.engine.ray_depot.FAREWELL", 0.1)  # the dead do not answer
    assert {at - 2: result for at, result in found.items() if at > 1} == alone
    assert [json.loads(found[at])["value"] for at in (0, 1)] == [0, 1]
    assert len(marks.read_text().split()) == 3


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Ray has clusters on Linux only")
def test_a_process_uses_one_gpu_only(two_nodes: tuple[Any, Any], tmp_path: Path) -> None:
    marks = tmp_path / "pids"
    with RayCluster(two_nodes[0].address) as executor:
        jobs = [echo(number, device="cuda", mark=str(marks)) for number in range(2)]
        assert len(list(executor.run(jobs))) == 2
    assert len(set(marks.read_text().split())) == 2
