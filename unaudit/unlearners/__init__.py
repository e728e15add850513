"""Reference unlearners: models whose truth is known, made from the original. One file each."""

from __future__ import annotations

import importlib

from unaudit.registry import Registry
from unaudit.unlearners.contract import (
    UNLEARNERS,
    Task,
    Unlearner,
    UnlearnerCard,
    check_kind,
    check_task,
)

MODULES = (
    "retrain",
    "finetune",
    "finetune_head",
    "random_labels",
    "gradient_ascent",
    "neggrad_plus",
    "bad_teacher",
    "cf_k",
    "eu_k",
    "scrub",
    "l1_sparse",
    "salun",
    "boundary_shrink",
    "boundary_expand",
    "fisher",
    "ssd",
    "cola",
    "cola_plus",
    "head_distillation",
    "sure",
    "muda",
    "tmu",
    "rfa_lora",
)
"""In the order of lists and tables; importing one registers it."""

for _name in MODULES:
    importlib.import_module(f"unaudit.unlearners.{_name}")


def load_unlearners() -> Registry[type[Unlearner]]:
    """The bundled unlearners and those of third parties."""
    UNLEARNERS.load_entry_points()
    return UNLEARNERS


__all__ = [
    "UNLEARNERS",
    "Task",
    "Unlearner",
    "UnlearnerCard",
    "check_kind",
    "check_task",
    "load_unlearners",
]
