"""Writes a store in processes that are killed, again and again; run as a program of its own.

A child is a fork, which costs milliseconds. It counts the lines of the store's code that it runs
and kills itself at one that was drawn, so that every place between two lines can be hit and a seed
hits the same ones every time. After each death the store is looked over. The program prints what it
found as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from unaudit.engine import store as module
from unaudit.engine.housekeeping import damaged_entries, entries_of, unfinished
from unaudit.engine.store import Store, content_key

CODE = str(Path(module.__file__).parent)
VISIBLE = re.compile(r"auditor\.key|locks|[0-9a-f]{2}/[0-9a-f]{64}\.(npy|blob)")
PRIVATE = re.compile(r"([0-9a-f]{2}/)?\.part-[^/]*")


def write(root: Path) -> None:
    """Everything that the finished store holds."""

    def fill(missing: Mapping[str, npt.NDArray[Any]]) -> None:
        for key, array in missing.items():
            array[:] = int(key[:4], 16)

    store = Store(root)
    store.secret()
    for number in range(3):
        store.blob(content_key("blob", number=number), lambda n=number: bytes([n]) * 5000)  # type: ignore[misc]
        pair = [content_key("array", number=number, part=part) for part in "ab"]
        store.arrays(dict.fromkeys(pair, ((50, 7), np.float32)), fill)


def child(root: Path, kill_at: int | None) -> tuple[int, bool]:
    """Run :func:`write`, killed at this line; how many lines it ran, and whether it was killed."""
    read, send = os.pipe()
    pid = os.fork()
    if not pid:
        lines = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal lines
            if not frame.f_code.co_filename.startswith(CODE):
                return None
            if event == "line":
                lines += 1
                if lines == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            write(root)
            sys.settrace(None)
            os.write(send, str(lines).encode())
        finally:
            os._exit(0)
    os.close(send)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(read) as told:
        return int(told.read() or 0), os.WIFSIGNALED(status)


def contents(root: Path) -> dict[str, str]:
    """What entries hold, by name; when they were made is no part of it."""
    found = {}
    for entry in entries_of(root):
        if entry.path.suffix == ".blob":
            found[entry.path.name] = repr(Store(root).find(entry.key))
        else:
            found[entry.path.name] = repr(np.load(entry.path).tolist())
    return found


def strange(root: Path) -> list[str]:
    """Files that are neither visible entries nor private."""
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return [name for name in files if not VISIBLE.fullmatch(name) and not PRIVATE.fullmatch(name)]


def main(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    random_line = random.Random(seed)
    lines, _ = child(folder / "whole", None)
    whole = contents(folder / "whole")
    told: dict[str, Any] = {"kills": 0, "rounds": 0, "private": 0, "faults": []}
    while told["kills"] < kills:
        root = folder / str(told["rounds"])
        told["rounds"] += 1
        now: dict[str, str] = {}
        while now != whole:
            kill_at = random_line.randint(1, lines) if told["kills"] < kills else None
            _, killed = child(root, kill_at)
            told["kills"] += killed
            told["faults"] += [damage.reason for damage in damaged_entries(root)]
            told["faults"] += strange(root) if root.exists() else []
            now = contents(root)
            wrong = [name for name, content in now.items() if whole.get(name) != content]
            if wrong or (not killed and now != whole):
                told["faults"].append(f"other contents: {wrong}")
                break
        told["private"] += len(list(unfinished(root)))
        with contextlib.suppress(FileNotFoundError):
            (root / "damaged").rmdir()
            told["faults"].append("something was set aside")
    told["entries"] = len(whole)
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
