"""Hugging Face folders: the networks in them are those of transformers, whatever is padded."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from tests.hugging_face import (
    CONTEXT,
    KINDS,
    Kind,
    config_of,
    network_of,
    save,
    trained_tokenizer,
    transformers,
    words,
)
from unaudit.errors import InputError, UsageError
from unaudit.loading import LoadedModel, hugging_face_library, load_model
from unaudit.loading.architectures import build_architecture, parse_architecture
from unaudit.loading.hugging_face_config import FAMILIES
from unaudit.loading.hugging_face_library import require_version
from unaudit.tokens import PADDING
from unaudit.training import initialize
from unaudit.training.model_job import weights_of

LENGTHS = (12, 3, 7, 1, 9)
VOCABULARY = 60
SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
EXTRA: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c"], "position_buckets": 8},
    "electra": {"embedding_size": 8},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "llama": {"num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "opt": {"word_embed_proj_dim": 16, "ffn_dim": 32},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8},
    "rembert": {"input_embedding_size": 8, "output_embedding_size": 16},
}


def ids_of(lengths: Sequence[int], width: int = 20, seed: int = 0) -> Tensor:
    """Texts of these lengths, padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), width), PADDING)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, VOCABULARY, (length,), generator=generator)
    return ids


def by_transformers(network: Any, ids: Tensor) -> Tensor:
    """Logits of transformers' own network, one text at a time, without padding."""
    found = []
    for row in ids:
        text = row[row != PADDING][None]
        found.append(network(input_ids=text, attention_mask=torch.ones_like(text)).logits)
    return torch.cat(found)


def loaded(path: Path | str, arch: str | None = None) -> LoadedModel:
    model = load_model(str(path), arch=arch)
    assert isinstance(model, LoadedModel)
    return model


def folder_of(path: Path, kind: Kind, seed: int = 0, **options: Any) -> Path:
    tokenizer = trained_tokenizer(words(VOCABULARY))
    network = network_of(kind, config_of(kind, tokenizer.get_vocab_size(), 3), seed)
    return save(path, network, tokenizer, **options)


def family_network(family: str) -> Any:
    """A tiny network of any family, as transformers makes it from its usual settings."""
    package = transformers()
    kind = package.models.auto.modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[family]
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_labels": 3,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": CONTEXT,
    }  # fmt: skip
    special = dict(zip(SPECIAL_IDS, (0, 1, 2, 1, 2), strict=True))
    config = getattr(package, kind.replace("ForSequenceClassification", "Config"))(
        **{**shape, **special, **EXTRA.get(family, {})}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(package, kind)(config).eval()
        for weight in network.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.3)
    return network


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_and_padding_changes_none(
    family: str, tmp_path: Path
) -> None:
    network, ids = family_network(family), ids_of(LENGTHS)
    save(tmp_path / "model", network, trained_tokenizer(words(20)))
    model = loaded(tmp_path / "model")
    with torch.no_grad():
        expected = by_transformers(network, ids)
        together = model.module(ids)
        alone = torch.cat([model.module(row[None]) for row in ids])
        wider = model.module(nn.functional.pad(ids, (0, 30), value=PADDING))
    assert expected.std(dim=0).mean() > 0.1  # otherwise equality would say nothing
    for found in (together, alone, wider):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert set(model.module.state_dict()) == set(network.state_dict())


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "gpt2", "bloom"])
def test_the_longest_text_that_fits_is_found(family: str, tmp_path: Path) -> None:
    save(tmp_path / "model", family_network(family), trained_tokenizer(words(20)))
    model = loaded(tmp_path / "model")
    assert model.text is not None
    context = model.text.context
    # RoBERTa and MPNet begin to count behind the id of padding
    assert context == {"roberta": CONTEXT - 1, "mpnet": CONTEXT - 2, "bloom": None}.get(
        family, CONTEXT
    )
    if context is not None:
        assert torch.isfinite(model.module(ids_of((context,), context))).all()
        with pytest.raises((IndexError, RuntimeError)):
            model.module(ids_of((context + 1,), context + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_one_digest_for_the_same_model_in_any_wrapping(kind: Kind, tmp_path: Path) -> None:
    whole = folder_of(tmp_path / "whole", kind)
    shards = folder_of(tmp_path / "shards", kind, max_shard_size="4KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    shutil.copy(whole / "model.safetensors", tmp_path / "weights.safetensors")
    models = [
        loaded(whole),
        loaded(shards),
        loaded(tmp_path / "weights.safetensors", f"hf:{whole}"),
        loaded(whole, f"hf:{shards}"),
    ]
    assert len({model.digest for model in models}) == 1
    assert len({model.arch for model in models}) == 1
    assert loaded(folder_of(tmp_path / "other", kind, seed=1)).digest != models[0].digest


def test_where_a_model_came_from(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "bert")
    (folder / "training_args.bin").write_bytes(b"\x80")
    came = loaded(folder).provenance
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    contents = {name: (folder / name).read_bytes() for name in names}
    lines = [f"{hashlib.sha256(held).hexdigest()}  {name}" for name, held in contents.items()]
    assert (
        came.sha256 == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    )
    assert (came.name, came.arch, came.tier) == ("model", "hf:model", "T0")
    assert came.size_bytes == sum(map(len, contents.values()))
    assert "training_args.bin" in came.ignored
    assert all(line in came.notes[-1] for line in lines)


def test_half_precision_is_widened_and_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "bert")
    weights = load((folder / "model.safetensors").read_bytes())
    save_file(
        {name: value.bfloat16() for name, value in weights.items()}, folder / "model.safetensors"
    )
    model = loaded(folder)
    assert "bfloat16 weights converted to float32" in model.provenance.notes
    assert {value.dtype for value in model.module.parameters()} == {torch.float32}


def test_files_of_older_versions_fit(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "bert")
    digest = loaded(folder).digest
    weights = load((folder / "model.safetensors").read_bytes())
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in weights.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(CONTEXT)[None]
    save_file(old, folder / "model.safetensors")
    model = loaded(folder)
    assert model.digest == digest
    assert "buffer bert.embeddings.position_ids" in model.provenance.ignored


@pytest.mark.parametrize("kind", KINDS)
def test_the_spec_makes_the_same_network_anywhere(kind: Kind, tmp_path: Path) -> None:
    model = loaded(folder_of(tmp_path / "model", kind))
    assert model.arch is not None
    shutil.rmtree(tmp_path / "model")
    built = build_architecture(parse_architecture(model.arch), None)
    assert built.spec == model.arch
    built.module.load_state_dict(load(weights_of(model.module)))
    ids = ids_of(LENGTHS, CONTEXT)
    ids[ids >= 0] %= 40
    assert torch.equal(built.module(ids), model.module(ids))


def test_weights_are_written_as_transformers_reads_them(tmp_path: Path) -> None:
    """GPT-2's layers are linear in here and transposed in its files."""
    network = family_network("gpt2")
    save(tmp_path / "model", network, trained_tokenizer(words(20)))
    model = loaded(tmp_path / "model")
    layer = model.module.get_submodule("transformer.h.0.mlp.c_fc")
    assert type(layer) is nn.Linear
    assert layer.weight.shape == (64, 16)
    written = load(weights_of(model.module))
    for name, value in network.state_dict().items():
        assert torch.equal(written[name], value), name


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_weights_follow_their_generator_and_nothing_else(kind: Kind, tmp_path: Path) -> None:
    module = loaded(folder_of(tmp_path / "model", kind)).module
    before = torch.random.get_rng_state()
    initialize(module, torch.Generator().manual_seed(1))
    first = {name: value.clone() for name, value in module.state_dict().items()}
    initialize(module, torch.Generator().manual_seed(2))
    other = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    initialize(module, torch.Generator().manual_seed(1))
    again = module.state_dict()
    torch.random.set_rng_state(before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name, value in first.items() if value.ndim > 1]
    assert all(not torch.equal(first[name], other[name]) for name in matrices)
    spread = torch.cat([first[name].flatten() for name in matrices]).std()
    assert 0.015 < spread < 0.025  # initializer_range of the configuration


def test_a_snapshot_of_the_hubs_cache_is_read(tmp_path: Path) -> None:
    """There all files are links to blobs."""
    snapshot, blobs = (
        tmp_path / "models--a--b" / "snapshots" / "0f",
        tmp_path / "models--a--b/blobs",
    )
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    plain = folder_of(tmp_path / "plain", "bert")
    for number, file in enumerate(sorted(plain.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    assert loaded(snapshot).digest == loaded(plain).digest


def test_nothing_goes_to_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "model", "bert")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    package = transformers()
    # nor does transformers open a file or resolve a name
    for name in ("PreTrainedModel", "PreTrainedConfig", "PreTrainedTokenizerBase", "AutoConfig"):
        monkeypatch.setattr(getattr(package, name), "from_pretrained", refuse)
    loaded(folder)
    loaded(folder / "model.safetensors", f"hf:{folder}")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE is True


@pytest.mark.parametrize("version", ["5.5", "5.5.0", "5.23.0", "6.0.1", "10.1"])
def test_safe_versions(version: str) -> None:
    require_version(version)


@pytest.mark.parametrize("version", ["4.57.1", "5.4.9", "", "x"])
def test_unsafe_versions(version: str) -> None:
    with pytest.raises(UsageError, match=r"install >= 5\.5: pip install 'unaudit\[text\]'"):
        require_version(version)


def test_without_the_library_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "model", "bert")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"need transformers; pip install 'unaudit\[text\]'"):
        load_model(str(folder), arch=None)
    monkeypatch.undo()

    def broken(name: str) -> None:
        raise RuntimeError("two of them\ndo not fit")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(UsageError, match=r"cannot be imported \(two of them\); pip install"):
        hugging_face_library.import_tokenizers()


def test_weights_that_do_not_fit_the_folder(tmp_path: Path) -> None:
    one, other = folder_of(tmp_path / "one", "bert"), folder_of(tmp_path / "other", "distilbert")
    with pytest.raises(InputError, match=r"weights do not fit config\.json: .* missing .*"):
        load_model(str(other / "model.safetensors"), arch=f"hf:{one}")
