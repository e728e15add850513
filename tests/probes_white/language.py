"""White-box views of small language models about which the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from tests.white_box.causal import VOCABULARY, Causal, Texts, causal
from tests.white_box.worlds import case_of, forward_of
from unaudit.evidence import IntArray, Scenario, SplitName
from unaudit.forward import ForwardPass
from unaudit.tokens import PADDING
from unaudit.white_box import WhiteBox

Labels = dict[SplitName, IntArray]
SIZES: Mapping[SplitName, int] = {"forget": 60, "retain": 120, "unseen": 60}
LONGEST = 18
"""Tokens; the networks read twelve at once."""


def topical(labels: IntArray, rng: np.random.Generator) -> Tensor:
    """Texts of unlike length whose tokens are drawn at random, half of them of their topic's."""
    ids = torch.full((len(labels), LONGEST), PADDING)
    for row, label in enumerate(labels):
        size = rng.integers(4, LONGEST + 1)
        own = 3 * label + rng.integers(0, 3, size)
        drawn = np.where(rng.random(size) < 0.5, own, rng.integers(0, VOCABULARY, size))
        ids[row, :size] = torch.from_numpy(drawn)
    return ids


def trained(ids: Tensor, seed: int, epochs: int, lr: float = 1e-2) -> Causal:
    """A language model that has seen some texts often."""
    network = causal(seed, tied=True)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(ids), generator=generator).split(30):
            loss = nn.functional.cross_entropy(network(ids[rows]), network.targets(ids[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@dataclass(frozen=True, eq=False)
class Known:
    """Views of models about which the truth is known."""

    networks: Mapping[str, Causal]
    data: Mapping[SplitName, Texts]
    forward: ForwardPass
    views: Mapping[str, WhiteBox]
    """``original`` and two retrained models."""


@cache
def _trained(scenario: Scenario) -> tuple[dict[str, Causal], dict[SplitName, Tensor], Labels]:
    """Networks, texts and their topics. Those of the class scenario have hardly been trained."""
    rng = np.random.default_rng(0)
    labels = {split: rng.integers(0, 3, size) for split, size in SIZES.items()}
    if scenario != "sample":
        labels["forget"][:] = 0
    if scenario == "class":
        labels["retain"] = rng.integers(1, 3, SIZES["retain"])
    ids = {split: topical(own, rng) for split, own in labels.items()}
    epochs = 20 if scenario == "sample" else 2
    everything = torch.cat([ids["forget"], ids["retain"]])
    networks = {"original": trained(everything, 0, epochs)}
    for seed in (1, 2):
        networks[f"retrained-{seed}"] = trained(ids["retain"], seed, epochs)
    return networks, ids, labels


@cache
def known(scenario: Scenario, labeled: bool = True) -> Known:
    """Train them on one thread, about a second each."""
    networks, ids, labels = _trained(scenario)
    data = {split: Texts(ids[split], own if labeled else 0 * own) for split, own in labels.items()}
    folder = TemporaryDirectory(prefix="known-")
    _FOLDERS.append(folder)
    named = {"subject": networks["original"]}
    named |= {name: one for name, one in networks.items() if name != "original"}
    case = case_of(named, data, scenario)  # type: ignore[arg-type]
    forward = forward_of(case, Path(folder.name), batch_size=32)
    views = {
        "original" if one is case.subject else one.label: forward.white_view(one)
        for one in case.candidates
    }
    return Known(networks, data, forward, views)


_FOLDERS: list[TemporaryDirectory[str]] = []
