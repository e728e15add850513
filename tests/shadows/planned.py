"""A plan over small files: a subject of random weights, a recipe, nothing else made yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from unaudit.case import build_case
from unaudit.engine.store import Store
from unaudit.loading.networks import mlp
from unaudit.plan import AuditPlan
from unaudit.training import initialize
from unaudit.workshop import Workshop

WIDTHS = (16, 8, 3)
TRAIN, FORGET, UNSEEN = 60, 12, 30
RECIPE = {"lr": 0.1, "epochs": 2, "batch": 16}


def plan_in(folder: Path, **sections: Any) -> AuditPlan:
    """Write the files; ``sections`` are merged into those of the plan."""
    rng = np.random.default_rng(0)
    for name, count in (("train", TRAIN), ("unseen", UNSEEN)):
        labels = rng.integers(3, size=count)
        inputs = rng.normal(size=(count, WIDTHS[0])).astype(np.float32)
        inputs[np.arange(count), labels] += 2
        ids = np.array([f"{name}-{number}" for number in range(count)])
        np.savez(folder / f"{name}.npz", x=inputs, y=labels, id=ids)
    chosen = rng.choice(TRAIN, FORGET, replace=False)
    lines = "\n".join(f"train-{number}" for number in chosen)
    (folder / "forget.txt").write_text(lines, encoding="utf-8")
    subject = initialize(mlp(WIDTHS), torch.Generator().manual_seed(0))
    save_file(subject.state_dict(), folder / "subject.safetensors")
    arch = "unaudit:mlp?widths=" + "-".join(map(str, WIDTHS))
    whole: dict[str, Any] = {
        "model": {"path": str(folder / "subject.safetensors"), "arch": arch},
        "data": {"train": str(folder / "train.npz"), "unseen": str(folder / "unseen.npz")},
        "request": {"forget": str(folder / "forget.txt"), "scenario": "sample"},
        "recipe": RECIPE,
        "calibration": {"retrained": 3, "unlearners": ["finetune"], "workers": 1},
        "run": {"store": str(folder / "store")},
    }
    for name, section in sections.items():
        whole[name] = None if section is None else {**(whole.get(name) or {}), **section}
    return AuditPlan.build({key: value for key, value in whole.items() if value is not None})


def workshop_of(plan: AuditPlan) -> Workshop:
    assert plan.run.store is not None
    store = Store(Path(plan.run.store))
    return Workshop(build_case(plan, store), plan, store)
