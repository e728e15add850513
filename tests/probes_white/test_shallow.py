"""The shallow-change detector on models of known make."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unaudit.loading.networks import resnet
from unaudit.shallow import ShallowChange, shallow_change, weight_distances
from unaudit.training import initialize

from .known import InMemory, known, make_views


def compare(name: str) -> ShallowChange:
    views = known("class").views
    return shallow_change(views[name], views["original"])


def test_the_original_itself() -> None:
    found = compare("original")
    assert found.kind == "identical weights"
    assert found.identical_share == 1.0
    assert found.activation_difference == 0.0
    assert not found.head_differs
    assert [layer.layer for layer in found.layers] == ["linear1", "linear2", "head"]
    assert all(layer.distance == 0.0 for layer in found.layers)


def test_the_head_distilled_fake() -> None:
    found = compare("fake")
    assert found.kind == "encoder weights identical"
    assert found.head_differs
    encoder = 64 * 32 + 32 + 32 * 12 + 12
    assert found.identical_share == pytest.approx(encoder / (encoder + 12 * 10 + 10), abs=0.01)
    by_layer = {layer.layer: layer for layer in found.layers}
    assert by_layer["linear1"].distance == 0.0
    networks = known("class").networks
    pairs = [(networks[name].get_submodule("head")) for name in ("fake", "original")]
    expected = [
        torch.cat([tensor.detach().flatten() for tensor in head.parameters()]).double()
        for head in pairs
    ]
    apart = float((expected[0] - expected[1]).norm())
    assert by_layer["head"].distance == pytest.approx(apart, rel=1e-5)
    assert by_layer["head"].relative == pytest.approx(apart / float(expected[1].norm()), rel=1e-5)


@pytest.mark.parametrize("name", ["retrained-1", "random", "ascended"])
def test_changed_encoders(name: str) -> None:
    found = compare(name)
    assert found.kind == "none"
    assert found.head_differs
    assert found.activation_difference is not None
    assert found.activation_difference > 0.1
    assert found.identical_share is not None
    # pixels that are always blank give their weights no gradient
    assert found.identical_share < 0.5


def rounded(network: nn.Module) -> None:
    """As if stored in half precision."""
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()


def moved_statistics(network: nn.Module) -> None:
    """What a 'frozen' encoder in train mode does."""
    for key, buffer in network.named_buffers():
        if key.endswith("running_mean"):
            buffer += 0.5


def new_head(network: nn.Module) -> None:
    initialize(network.get_submodule("head"), torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("change", "kind", "head_differs"),
    [
        (rounded, "encoder activations identical", True),
        (moved_statistics, "none", False),
        (new_head, "encoder weights identical", True),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_changes_of_a_residual_network(
    change: Callable[[nn.Module], None], kind: str, head_differs: bool, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    original = initialize(resnet(8, 4, 3, 2), generator).eval()
    subject = copy.deepcopy(original)
    change(subject)
    split = np.arange(90, dtype=np.int64)
    views = make_views(
        {"subject": subject, "original": original},
        InMemory(torch.randn((90, 2, 8, 8), generator=generator), split % 3),
        {"forget": split[:30], "retain": split[30:60], "unseen": split[60:]},
        "sample",
        tmp_path,
    )
    found = shallow_change(views["subject"], views["original"])
    assert found.kind == kind
    assert found.head_differs == head_differs


def test_networks_of_other_shapes_are_compared_by_what_they_share(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    networks = {
        "subject": initialize(resnet(8, 4, 3, 2), generator),
        "original": initialize(resnet(14, 4, 3, 2), generator),
    }
    split = np.arange(90, dtype=np.int64)
    views = make_views(
        networks,
        InMemory(torch.randn((90, 2, 8, 8), generator=generator), split % 3),
        {"forget": split[:30], "retain": split[30:60], "unseen": split[60:]},
        "sample",
        tmp_path,
    )
    found = shallow_change(views["subject"], views["original"])
    assert found.kind == "none"
    assert found.identical_share is None
    assert found.activation_difference is not None
    assert found.layers == ()
    assert weight_distances(views["subject"], views["original"]) == ()
