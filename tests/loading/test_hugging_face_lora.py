"""LoRA adapters: merged into what they adapt, or refused with a remedy."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.hugging_face import KINDS, Kind, causal_folder
from tests.loading.test_hugging_face import LENGTHS, folder_of, ids_of, loaded
from tests.loading.test_hugging_face_causal import small
from tests.loading.test_hugging_face_hostile import complaint
from unaudit.errors import InputError, UnauditError, UsageError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("base") / "model", "bert")


def adapter_folder(path: Path, parts: dict[str, Tensor], **settings: Any) -> Path:
    path.mkdir(exist_ok=True)
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "use_dora": False}
    (path / "adapter_config.json").write_text(json.dumps({**plain, **settings}))
    named = {f"base_model.model.{name}": value for name, value in parts.items()}
    save_file(named, path / "adapter_model.safetensors")
    return path


def low_rank(layers: dict[str, tuple[int, int]], seed: int = 0) -> dict[str, Tensor]:
    """Parts of an adapter of rank 2 for layers from so many units to so many."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, (given, out) in layers.items():
        parts[f"{name}.lora_A.weight"] = torch.randn(2, given, generator=generator)
        parts[f"{name}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    return parts


LAYERS: dict[Kind, dict[str, tuple[int, int]]] = {
    "bert": {
        "bert.encoder.layer.0.attention.self.query": (16, 16),
        "bert.encoder.layer.1.intermediate.dense": (16, 32),
    },
    "distilbert": {"distilbert.transformer.layer.1.attention.v_lin": (16, 16)},
    "gpt2": {"transformer.h.0.attn.c_attn": (16, 48), "transformer.h.1.attn.c_proj": (16, 16)},
}


@pytest.mark.parametrize("rank_stabilized", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_merged(kind: Kind, rank_stabilized: bool, tmp_path: Path) -> None:
    """Against the base network with the adapter computed beside each layer, as it was trained."""
    base = folder_of(tmp_path / "base", kind)
    head = "score" if kind == "gpt2" else "classifier"
    saved = {f"{head}.weight": torch.randn(3, 16, generator=torch.Generator().manual_seed(5))}
    parts = low_rank(LAYERS[kind])
    folder = adapter_folder(
        tmp_path / "adapter",
        {**parts, **saved},
        use_rslora=rank_stabilized,
        modules_to_save=["classifier", "score"],
        target_modules=["query"],
        fan_in_fan_out=kind == "gpt2",
    )
    merged = loaded(folder, f"hf:{base}")
    network: Any = loaded(base).module
    scale = 6 / (2**0.5 if rank_stabilized else 2)
    for name in LAYERS[kind]:
        a, b = parts[f"{name}.lora_A.weight"], parts[f"{name}.lora_B.weight"]
        network.get_submodule(name).register_forward_hook(
            lambda _, given, output, a=a, b=b: output + scale * given[0] @ a.T @ b.T
        )
    with torch.no_grad():
        network.get_submodule(head).weight.copy_(saved[f"{head}.weight"])
        ids = ids_of(LENGTHS) % 40
        expected, found = network(ids), merged.module(ids)
        plain = loaded(base).module(ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 0.1
    assert merged.provenance.notes[0] == f"LoRA adapter of rank 2 merged, scale {scale:g}"


QUERY = "bert.encoder.layer.0.attention.self.query"
PARTS = low_rank(LAYERS["bert"])
ADAPTERS: tuple[tuple[str, dict[str, Any], dict[str, Any], type[UnauditError], str], ...] = (
    ("other-type", {"peft_type": "IA3"}, {}, UsageError, "adapter of type 'IA3'"),
    ("dora", {"use_dora": True}, {}, UsageError, r"not plain LoRA \('use_dora'.*merge_and_unload"),
    ("ranks", {"rank_pattern": {"query": 4}}, {}, UsageError, "not plain LoRA .'rank_pattern'"),
    ("unknown", {"lora_of_2031": [1]}, {}, UsageError, "not plain LoRA .'lora_of_2031'"),
    ("rank", {"r": 3}, {}, InputError, "rank 3 and a layer from 16 to 16 need"),
    ("no-rank", {"r": 0}, {}, InputError, "give a rank"),
    ("alpha", {"lora_alpha": "2"}, {}, InputError, "give a number"),
    ("saved", {"modules_to_save": "classifier"}, {}, InputError, "no list of names"),
    (
        "no-layer",
        {},
        low_rank({"bert.encoder.layer.7.output.dense": (16, 16)}),
        InputError,
        "no layer 'bert.encoder.layer.7",
    ),
    ("half", {}, {f"{QUERY}.lora_B.weight": None}, InputError, "has no .*query.lora_B.weight"),
    ("lost-half", {}, {f"{QUERY}.lora_A.weight": None}, UsageError, "no part of plain LoRA"),
    ("extra", {}, {"classifier.weight": torch.zeros(3, 16)}, UsageError, "no part of plain LoRA"),
    (
        "no-such-module",
        {"modules_to_save": ["score"]},
        {"score.weight": torch.zeros(3, 16)},
        InputError,
        "base model has no 'score.weight'",
    ),
    (
        "other-head",
        {"modules_to_save": ["classifier"]},
        {"classifier.weight": torch.zeros(5, 16)},
        InputError,
        "names 3 labels",
    ),
    (
        "embedding",
        {},
        low_rank({"bert.embeddings.word_embeddings": (16, 44)}),
        UsageError,
        "is no linear layer",
    ),
    ("nan", {}, {f"{QUERY}.lora_B.weight": torch.full((16, 2), torch.nan)}, InputError, "NaN"),
)


@pytest.mark.parametrize(
    ("settings", "parts", "error", "says"),
    [case[1:] for case in ADAPTERS],
    ids=[case[0] for case in ADAPTERS],
)
def test_adapters_that_are_not_merged(
    settings: dict[str, Any],
    parts: dict[str, Any],
    error: type[UnauditError],
    says: str,
    base: Path,
    tmp_path: Path,
) -> None:
    whole = {name: value for name, value in (PARTS | parts).items() if value is not None}
    folder = adapter_folder(tmp_path / "adapter", whole, **settings)
    message = complaint(folder, f"hf:{base}", error)
    assert message.startswith(f"{folder}: ")
    assert re.search(says, message), message


def test_adapters_without_what_they_need(base: Path, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "adapter", PARTS)
    assert "name its base model with --arch hf:DIR" in complaint(folder, None, UsageError)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "adapter's base model" in complaint(folder, f"hf:{empty}", UsageError)
    light = shutil.copytree(base, tmp_path / "light")
    (light / "model.safetensors").unlink()
    assert "no model.safetensors" in complaint(folder, f"hf:{light}", InputError)
    (folder / "adapter_model.safetensors").unlink()
    assert "no adapter_model.safetensors" in complaint(folder, f"hf:{base}", InputError)


def test_the_base_that_an_adapter_names_is_never_looked_for(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = adapter_folder(tmp_path / "named", PARTS, base_model_name_or_path="google/bert")
    unnamed = adapter_folder(tmp_path / "unnamed", PARTS)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    assert loaded(named, f"hf:{base}").digest == loaded(unnamed, f"hf:{base}").digest


ATTENTION = {"transformer.h.0.attn.c_attn": (32, 96), "transformer.h.1.mlp.c_proj": (128, 32)}
HEAD = {"lm_head": (32, 44)}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("base") / "causal")


def hooked(folder: Path, parts: dict[str, Tensor]) -> Any:
    """The base with the adapter computed beside each layer, as it was trained."""
    network: Any = loaded(folder).module
    for name in (ATTENTION | HEAD).keys() & {part.partition(".lora")[0] for part in parts}:
        a, b = parts[f"{name}.lora_A.weight"], parts[f"{name}.lora_B.weight"]
        network.get_submodule(name).register_forward_hook(
            lambda _, given, output, a=a, b=b: output + 3 * given[0] @ a.T @ b.T
        )
    return network


@pytest.mark.parametrize("layers", [ATTENTION, HEAD, ATTENTION | HEAD])
def test_an_adapter_of_a_language_model_is_merged(
    layers: dict[str, tuple[int, int]], language_model: Path, tmp_path: Path
) -> None:
    parts = low_rank(layers)
    base = loaded(language_model).module.state_dict()
    # peft saves embeddings beside adapted ones
    held = (
        {"lm_head.base_layer.weight": base["lm_head.weight"].clone()} if "lm_head" in parts else {}
    )
    folder = adapter_folder(
        tmp_path / "adapter", parts | held, task_type="CAUSAL_LM", fan_in_fan_out=True
    )
    merged = loaded(folder, f"hf:{language_model}")
    network: Any = merged.module
    assert network.tied == ("lm_head" not in layers)
    ids = small(ids_of((12, 40, 2), 44))
    with torch.no_grad():
        expected = hooked(language_model, parts)(ids)
        torch.testing.assert_close(network(ids), expected, rtol=1e-4, atol=1e-3)
    own = network.state_dict()["transformer.wte.weight"]
    assert torch.equal(own, base["transformer.wte.weight"])
    told = [note for note in merged.provenance.notes if "embeddings of inputs and outputs" in note]
    assert len(told) == (not network.tied)


@pytest.mark.parametrize("name", ["lm_head", "transformer.wte"])
def test_a_saved_embedding_leaves_the_other_as_it_was(
    name: str, language_model: Path, tmp_path: Path
) -> None:
    table = torch.randn(44, 32, generator=torch.Generator().manual_seed(3))
    folder = adapter_folder(
        tmp_path / "adapter",
        {**low_rank(ATTENTION), f"{name}.weight": table},
        modules_to_save=[name.rpartition(".")[2]],
    )
    network: Any = loaded(folder, f"hf:{language_model}").module
    before = loaded(language_model).module.state_dict()
    after = network.state_dict()
    for own in network.tied_names:
        wanted = table if own == f"{name}.weight" else before[own]
        assert torch.equal(after[own], wanted), own
    assert not network.tied
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["ensure_weight_tying"] = True
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    message = complaint(folder, f"hf:{language_model}", UsageError)
    assert "adapts embeddings that stay one weight; merge it where it was trained" in message


def test_both_embeddings_that_stayed_one(language_model: Path, tmp_path: Path) -> None:
    table = torch.randn(44, 32, generator=torch.Generator().manual_seed(3))
    folder = adapter_folder(
        tmp_path / "adapter",
        {"lm_head.weight": table, "transformer.wte.weight": table.clone()},
        modules_to_save=["lm_head", "wte"],
        ensure_weight_tying=True,
    )
    network: Any = loaded(folder, f"hf:{language_model}").module
    assert network.tied
    assert torch.equal(network.head.weight, table)
