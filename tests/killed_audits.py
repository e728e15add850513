"""Audits with shadow models in processes that are killed, again and again; a program of its own.

A child is a fork of a process that has imported everything; the parent kills it after a time that
was drawn. When an audit gets through, the next one starts with an empty store, until there were as
many kills as asked for. The program prints what it found as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from unaudit.engine.housekeeping import damaged_entries
from unaudit.pipeline import audit
from unaudit.plan import AuditPlan

SHADOWS = 6
OFF = ("confidence", "entropy", "modified-entropy", "loss", "margin", "train-vs-test", "zrf")


def plan_of(config: Path, store: Path) -> AuditPlan:
    """A small audit of the world at ``config``; bf16 keeps its shadow models out of a stack, so
    that each is a job of its own."""
    return AuditPlan.from_toml(
        config,
        {
            "policy": {"access": "black-box"},
            "recipe": {"lr": 0.1, "epochs": 1, "batch": 64, "precision": "bf16"},
            "calibration": {"unlearners": [], "workers": 1},
            "shadows": {
                "count": SHADOWS,
                "unlearner": "finetune",
                "parameters": {"epochs": 1},
            },
            "probes": {name: {"enabled": False} for name in OFF},
            "run": {"store": str(store), "bootstrap": 200},
        },
    )


def child(config: Path, store: Path, patience: float | None) -> tuple[str, bool, float]:
    """Run an audit, killed after ``patience`` seconds; what its record says, whether it was killed,
    and seconds."""
    begin = time.perf_counter()
    read, send = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            record = audit(plan_of(config, store))
            os.write(send, record.report_id.encode())
        finally:
            os._exit(0)
    os.close(send)
    if patience is not None:
        while time.perf_counter() - begin < patience and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # it ended while it was watched
        os.waitpid(pid, 0)
    with os.fdopen(read) as told:
        said = told.read()
    return said, not said, time.perf_counter() - begin


def shadows_in(store: Path) -> int:
    """Shadow models that the store holds."""
    return len([path for path in store.rglob("*.blob") if b"make_shadow" in path.read_bytes()])


def main(config: Path, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    whole = audit(plan_of(config, folder / "whole")).report_id  # here: children find all imported
    key = (folder / "whole" / "auditor.key").read_bytes()  # decides how ids are printed
    _, _, seconds = child(config, folder / "timed", None)
    told: dict[str, Any] = {"kills": 0, "kept": 0, "ends": 0, "same": True, "damaged": 0}
    while told["kills"] < kills:
        store = folder / str(told["ends"])
        store.mkdir()
        (store / "auditor.key").write_bytes(key)
        said, held = "", 0
        while not said:
            patience = draw.uniform(0.0, seconds) if told["kills"] < kills else None
            said, killed, _ = child(config, store, patience)
            told["kills"] += killed
            told["damaged"] += len(list(damaged_entries(store)))
            now = shadows_in(store)
            told["same"] &= now >= held
            told["kept"] += killed and now > 0
            held = now
        told["same"] &= said == whole
        told["ends"] += 1
    return told


if __name__ == "__main__":
    print(
        json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    )
