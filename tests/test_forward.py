"""Logits: one pass, cached, never stale, refused when they make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.test_case import folder, plan_of, write_model
from unaudit.case import Candidate, build_case
from unaudit.devices import choose_device
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.forward import ForwardPass
from unaudit.loading.networks import mlp
from unaudit.logits import AskLogits, network_logits

__all__ = ["folder"]


def forward_in(place: Path, **sections: dict[str, Any]) -> ForwardPass:
    store = Store(place / "store")
    case = build_case(plan_of(place, **sections), store)
    return ForwardPass(case, store, batch_size=16, device="cpu")


@pytest.fixture
def batches_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that networks are really asked about."""
    sizes: list[int] = []
    put = AskLogits.put

    def counting(self: AskLogits, module: Any, inputs: Any, positions: Any) -> Any:
        sizes.append(len(inputs))
        return put(self, module, inputs, positions)

    monkeypatch.setattr(AskLogits, "put", counting)
    return sizes


def entries(place: Path) -> set[str]:
    return {path.name for path in (place / "store").rglob("*.npy")}


def test_logits_are_those_of_the_network(folder: Path) -> None:
    forward = forward_in(folder)
    outputs = forward.view(forward.case.subject).outputs("unseen")
    network = mlp((4, 8, 3))
    network.load_state_dict(load_file(folder / "subject.safetensors"))
    with np.load(folder / "unseen.npz") as data:
        expected = network(torch.from_numpy(data["x"])).detach().numpy()
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-6)
    assert outputs.labels.tolist() == [i % 3 for i in range(30)]


def test_a_second_audit_runs_no_network(folder: Path, batches_run: list[int]) -> None:
    for expected in ("cold", "warm"):
        forward = forward_in(folder)
        batches_run.clear()
        for candidate in forward.case.candidates:
            for split in forward.case.splits:
                forward.view(candidate).outputs(split)
        assert bool(batches_run) == (expected == "cold")


@pytest.mark.parametrize("changed", ["model", "data", "preprocessing"])
def test_a_changed_input_misses_the_cache(folder: Path, changed: str) -> None:
    forward = forward_in(folder)
    forward.view(forward.case.subject).outputs("unseen")
    before = entries(folder)
    sections: dict[str, dict[str, Any]] = {}
    if changed == "model":
        state = load_file(folder / "subject.safetensors")
        state["head.bias"][0] += 1e-3
        save_file(state, folder / "subject.safetensors")
    elif changed == "data":
        with np.load(folder / "unseen.npz") as data:
            arrays = dict(data)
        arrays["x"][-1, -1] += 1e-3
        np.savez(folder / "unseen.npz", **arrays)
    else:
        sections = {"preprocess": {"scale": 1.001}}
    forward = forward_in(folder, **sections)
    forward.view(forward.case.subject).outputs("unseen")
    assert len(entries(folder) - before) >= 1


def test_models_must_agree_on_the_classes(folder: Path) -> None:
    model = mlp((4, 8, 2))
    save_file(model.state_dict(), folder / "r2.safetensors")
    with pytest.raises(InputError, match=r"r2.safetensors"):
        forward_in(folder)


def test_labels_beyond_the_logits_are_refused(folder: Path) -> None:
    with np.load(folder / "train.npz") as data:
        arrays = dict(data)
    arrays["y"][5] = 7
    np.savez(folder / "train.npz", **arrays)
    with pytest.raises(InputError, match=r"label 7 in forget, but the models give 3 logits"):
        forward_in(folder)


def test_inputs_that_do_not_fit_name_the_remedy(folder: Path) -> None:
    for name in ("train", "unseen"):
        with np.load(folder / f"{name}.npz") as data:
            arrays = dict(data)
        arrays["x"] = np.hstack([arrays["x"], arrays["x"][:, :1]])
        np.savez(folder / f"{name}.npz", **arrays)
    with pytest.raises(InputError, match=r"does not accept inputs of shape 5 .*check --arch"):
        forward_in(folder)


def test_infinite_logits_name_model_and_example(folder: Path) -> None:
    with np.load(folder / "unseen.npz") as data:
        arrays = dict(data)
    arrays["x"][4] = 1e30
    np.savez(folder / "unseen.npz", **arrays)
    state = load_file(folder / "subject.safetensors")
    state["head.weight"] *= 1e12
    save_file(state, folder / "subject.safetensors")
    forward = forward_in(folder)
    with pytest.raises(InputError, match=r"subject.safetensors: NaN or infinite .* 'e1004'"):
        forward.view(forward.case.subject).outputs("unseen")
    assert not any("part" in name for name in entries(folder))


def test_one_logit_is_refused(folder: Path) -> None:
    for name in ("subject", "original", "r1", "r2"):
        save_file(mlp((4, 8, 1)).state_dict(), folder / f"{name}.safetensors")
        write = folder / f"{name}.safetensors"
        state = load_file(write)
        state["head.bias"] += ord(name[-1])
        save_file(state, write)
    with pytest.raises(InputError, match="one logit per class"):
        forward_in(folder, model={"arch": "unaudit:mlp?widths=4-8-1"})


def test_logits_have_one_row_per_example(folder: Path) -> None:
    forward = forward_in(folder)

    class Halved(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs[::2, :3]

    with pytest.raises(InputError, match=r"shape \(batch, classes\), got \(4, 3\); wrap it"):
        network_logits(Halved(), torch.zeros(8, 4), forward.case.subject)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="--device cpu"):
        choose_device("warp-drive")
    assert choose_device("auto").type in ("cpu", "cuda")


def test_the_module_stays_as_it_was(folder: Path) -> None:
    forward = forward_in(folder)
    candidate: Candidate = forward.case.subject
    before = candidate.model.digest
    for split in forward.case.splits:
        forward.view(candidate).outputs(split)
    write_model(folder / "again.safetensors", 0)
    assert forward.case.subject.model.digest == before
