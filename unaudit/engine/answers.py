"""Remembered answers of expensive probes: what one probe said of one model, under the digest of
everything that decided it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from unaudit.engine.store import Store, content_key
from unaudit.evidence import Evidence, Probe, Scalar, Scores, Skipped

_GROUPS = ("forget", "unseen", "retain")


class AnswerCache:
    """Answers by probe, models and data."""

    def __init__(self, store: Store, **setting: Any) -> None:
        """
        Args:
            store: where answers are kept.
            setting: what all answers of one audit share: data, scenario, seed, device, versions.
        """
        self.store = store
        self.setting = setting

    def recall(
        self, probe: Probe, models: tuple[str, ...], compute: Callable[[], Evidence]
    ) -> Evidence:
        """What ``probe`` says of the models with these digests; computed on first use."""
        key = content_key(
            "answer",
            probe=f"{probe.card.name}:{probe!r}",
            code=code_digest("unaudit", type(probe).__module__.partition(".")[0]),
            models=models,
            **self.setting,
        )
        # decoded also when it was computed just now: the same bits on the first run and later
        return decode(self.store.blob(key, lambda: encode(compute())))


def encode(evidence: Evidence) -> bytes:
    """Evidence as an npz file: arrays, and the rest as JSON; no pickle."""
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"kind": type(evidence).__name__}
    if isinstance(evidence, Skipped):
        about["reason"] = evidence.reason
    elif isinstance(evidence, Scalar):
        about |= {"value": evidence.value, "stderr": evidence.stderr}
        about["detail"] = dict(evidence.detail)
        arrays |= {f"influence_{name}": phi for name, phi in evidence.influences.items()}
        arrays |= {f"rows_{name}": rows for name, rows in evidence.rows.items()}
    else:
        about |= {"statistic": evidence.statistic, "detail": dict(evidence.detail)}
        for name in _GROUPS:
            scores = getattr(evidence, name)
            if scores is not None:
                arrays[name] = scores
        arrays |= {f"rows_{name}": rows for name, rows in evidence.rows.items()}
    text = json.dumps(about).encode()
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(text, np.uint8), **arrays)
    return buffer.getvalue()


def decode(stored: bytes) -> Evidence:
    """The evidence that :func:`encode` wrote."""
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        about: Mapping[str, Any] = json.loads(arrays["about"].tobytes())
        if about["kind"] == "Skipped":
            return Skipped(about["reason"])
        rows = _named(arrays, "rows_")
        if about["kind"] == "Scalar":
            influences = _named(arrays, "influence_")
            return Scalar(about["value"], about["stderr"], about["detail"], influences, rows)
        groups = {name: arrays[name] for name in _GROUPS if name in arrays}
        return Scores(**groups, statistic=about["statistic"], rows=rows, detail=about["detail"])


def _named(arrays: Any, prefix: str) -> dict[Any, Any]:
    """Arrays whose names start with ``prefix``, by the rest of the name."""
    found = [name for name in arrays.files if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays[name] for name in found}


@cache
def code_digest(*packages: str) -> str:
    """Digest of every source file of these packages, wherever they are installed."""
    digest = hashlib.sha256()
    for name in sorted(set(packages)):
        spec = importlib.util.find_spec(name)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        alone = [Path(spec.origin)] if spec is not None and spec.origin and not folders else []
        files = [(path.name, path) for path in alone]
        for folder in folders:
            found = Path(folder).rglob("*.py")
            files += [(path.relative_to(folder).as_posix(), path) for path in found]
        for inside, path in sorted(files):
            digest.update(f"{name}:{inside}".encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
