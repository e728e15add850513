"""The demo's digits, laid out as jobs of shadow models read them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from unaudit.demo import LAYOUTS, N_CLASSES, RECIPE, load_digits
from unaudit.engine.jobs import Job
from unaudit.engine.store import Store
from unaudit.shadows.design import Design, make_design
from unaudit.shadows.train import shadow_jobs

SIDE = 8
"""Pixels of a digit."""
LAYOUT = LAYOUTS["sample"]
DEMO = "unaudit:mlp?widths=" + "-".join(map(str, LAYOUT.widths))


class World:
    """The demo's digits as images, laid out as jobs read them."""

    def __init__(self, folder: Path) -> None:
        digits = load_digits(LAYOUT, seed=0)
        self.store = Store(folder / "store")
        self.places = {}
        images = digits.inputs.unflatten(1, (1, SIDE, SIDE)).numpy()
        for prefix, at in (("", digits.train), ("unseen_", digits.unseen)):
            for what, array in (("inputs", images), ("labels", digits.labels.numpy())):
                self.places[prefix + what] = str(folder / f"{prefix}{what}.npy")
                np.save(self.places[prefix + what], array[at])
        self.rows = {
            "forget": np.searchsorted(digits.train, digits.forget),
            "retain": np.searchsorted(digits.train, digits.retain),
            "unseen": np.arange(len(digits.unseen)),
        }
        self.labels = {name: digits.labels[getattr(digits, name)].numpy() for name in self.rows}

    def design(self, models: int, *, seed: int = 0, unlearning: bool = False) -> Design:
        return make_design(self.labels, models, seed, scenario="sample", unlearning=unlearning)

    def jobs(
        self, design: Design, arch: str = DEMO, epochs: int | None = None, **more: Any
    ) -> list[Job]:
        recipe = RECIPE if epochs is None else dataclasses.replace(RECIPE, epochs=epochs)
        given = {
            "arch": arch,
            "trusted": True,
            "recipe": dataclasses.asdict(recipe),
            "augment": "none",
            "seed": 0,
            "n_classes": N_CLASSES,
            "scenario": "sample",
            "head": None,
            "device": "cpu",
            "data": "digits",
        }
        sizes = tuple(len(np.load(self.places[f"{prefix}labels"])) for prefix in ("", "unseen_"))
        shape = (1, SIDE, SIDE)
        jobs = shadow_jobs(
            design, self.rows, self.store, shape=shape, sizes=sizes, **{**given, **more}
        )
        return [dataclasses.replace(job, places={**self.places, **job.places}) for job in jobs]
