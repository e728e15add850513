"""Networks that had to memorize: digits of which a share carry a wrong label."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from tests.probes_white.known import Known, make_views
from tests.white_box.worlds import Arrays
from unaudit.demo import LAYOUTS, load_digits, train_model
from unaudit.evidence import SplitName

WRONG = 0.25
"""Share of examples, trained on or not, that are given a label drawn at random."""
TRAIN = 1000
FORGET = 200


@cache
def mislabeled(retrained: int = 4, seed: int = 0) -> Known:
    """``original``, an ``untrained`` network and ``retrained-1`` …, half a second each."""
    layout = replace(LAYOUTS["sample"], train=TRAIN, forget=FORGET)
    digits = load_digits(layout, seed)
    rng = np.random.default_rng([seed, 2])
    wrong = rng.random(len(digits.labels)) < WRONG
    labels = digits.labels.clone()
    labels[wrong] = torch.from_numpy(rng.integers(0, 10, int(wrong.sum())))
    digits = replace(digits, labels=labels)
    networks = {"original": train_model(digits, digits.train, layout.widths, seed, 0)}
    for number in range(1, retrained + 1):
        networks[f"retrained-{number}"] = train_model(
            digits, digits.retain, layout.widths, seed, number
        )
    rows: dict[SplitName, np.ndarray] = {
        "forget": digits.forget,
        "retain": digits.retain,
        "unseen": digits.unseen,
    }
    folder = TemporaryDirectory(prefix="mislabeled-")
    _FOLDERS.append(folder)
    data = Arrays(digits.inputs, labels.numpy(), f"mislabeled-{seed}")
    return Known(digits, networks, make_views(networks, data, rows, "sample", Path(folder.name)))


_FOLDERS: list[TemporaryDirectory[str]] = []
