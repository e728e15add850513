"""A worker process: jobs as lines of JSON on stdin, answers as lines of JSON on stdout.

A result is written to the file that the job names. Whatever the job prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unaudit.engine.jobs import Job
from unaudit.errors import InputError, UnauditError


def main(threads: int) -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # nothing that a job prints may be taken for an answer
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch

    torch.set_num_threads(threads)
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    try:
        result = Job(order["work"], order["inputs"], order["places"]).run()
        Path(order["out"]).write_bytes(result)
    except UnauditError as error:
        return {"error": str(error), "type": type(error).__name__, "kind": "unaudit"}
    except Exception as error:  # the driver reports it
        trace = traceback.format_exc()
        return {"error": str(error), "type": type(error).__name__, "kind": "bug", "trace": trace}
    return {"done": True}


def echo(inputs: Mapping[str, Any], places: Mapping[str, str]) -> bytes:
    """A job that gives its inputs back: to try an executor before work is given to it.

    Args:
        inputs: ``fail`` makes it fail with that message, or break if it is empty; ``sleep`` is how
            many seconds it takes; ``mark`` names a file to which the process adds its number.
        places: not used.

    Raises:
        InputError: asked to.
    """
    if inputs.get("mark"):
        with open(inputs["mark"], "a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(inputs.get("sleep", 0.0))
    if "fail" in inputs:
        if inputs["fail"]:
            raise InputError(inputs["fail"])
        raise ZeroDivisionError
    return json.dumps(dict(inputs), sort_keys=True).encode()
