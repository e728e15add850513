"""Folders that are hostile, broken or of another kind: one line, the right exit code, no harm."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from tests.hugging_face import causal_folder, network_of, save, trained_tokenizer, words
from tests.hugging_face import config_of as settings_of
from unaudit.errors import ExitCode, InputError, UnauditError, UnsafeModelError, UsageError
from unaudit.loading import load_model

INDEX = "model.safetensors.index.json"
Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Bad:
    """A folder that was good before it was spoiled."""

    id: str
    spoil: Spoil
    error: type[UnauditError]
    says: str


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """In memory: the file itself may be written over."""
    return load((folder / "model.safetensors").read_bytes())


def config(**changes: Any) -> Spoil:
    """Other settings; ``None`` takes one out."""

    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        settings = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: v for key, v in settings.items() if v is not None}))

    return spoil


def text(name: str, content: str | bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def without(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def shards(where: Callable[[dict[str, str]], Any], *, keep: bool = False) -> Spoil:
    """Weights in two files, and an index that ``where`` changes."""

    def spoil(folder: Path) -> None:
        weights = weights_in(folder)
        if not keep:
            (folder / "model.safetensors").unlink()
        names = sorted(weights)
        index: dict[str, str] = {}
        for number, own in enumerate((names[::2], names[1::2])):
            save_file({key: weights[key] for key in own}, folder / f"{number}.safetensors")
            index |= dict.fromkeys(own, f"{number}.safetensors")
        changed = where(index)
        content = changed if isinstance(changed, str) else json.dumps({"weight_map": changed})
        (folder / INDEX).write_text(content)

    return spoil


def pointing(name: Any) -> Spoil:
    """An index one of whose entries names another file."""
    return shards(lambda index: index | {min(index): name})


def link(name: str, target: str) -> Spoil:
    """A file that is a link to a copy of it elsewhere."""

    def spoil(folder: Path) -> None:
        place = folder / target
        place.parent.mkdir(exist_ok=True)
        shutil.move(folder / name, place)
        (folder / name).symlink_to(target)

    return spoil


def one_class_less(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = weights_in(folder)
    weights["classifier.weight"] = weights["classifier.weight"][:2].clone()
    weights["classifier.bias"] = weights["classifier.bias"][:2].clone()
    save_file(weights, path)


def pickled(folder: Path) -> None:
    torch.save(weights_in(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def renamed_pickle(folder: Path) -> None:
    torch.save(weights_in(folder), folder / "model.safetensors")


def pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def nested(depth: int) -> str:
    return '{"model_type": ' + "[" * depth + "]" * depth + "}"


LABELS = {"0": "a", "1": "b", "2": "c"}
BAD: tuple[Bad, ...] = (
    # Code
    Bad("auto-map", config(auto_map={"AutoModel": "m.Net"}), UnsafeModelError, "code of its own"),
    Bad(
        "tokenizer-code",
        text("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["t.T", null]}}'),
        UnsafeModelError,
        "tokenizer of its own code",
    ),
    Bad("pickled", pickled, InputError, r"pickled weights only .* save it as safetensors"),
    Bad("renamed-pickle", renamed_pickle, InputError, "not safetensors; save it with"),
    # Other kinds of models
    Bad(
        "causal",
        config(architectures=["BertForCausalLM"]),
        UsageError,
        r"BertForCausalLM; only sequence classifiers are audited .BertForSequenceClassification",
    ),
    Bad(
        "gpt2",
        config(architectures=["GPT2Model"], model_type="gpt2"),
        UsageError,
        r"sequence classifiers .GPT2For.* and language models .GPT2LMHeadModel. are audited",
    ),
    Bad(
        "other-causal",
        config(architectures=["GPT2LMHeadModel"]),
        UsageError,
        r"is a GPT2LMHeadModel; only sequence classifiers are audited",
    ),
    Bad("masked", config(architectures=["BertForMaskedLM"]), UsageError, "only sequence class"),
    Bad("base", config(architectures=["BertModel"]), UsageError, "BertForSequenceClassification"),
    Bad("other-family", config(model_type="berd"), UsageError, "not read yet .did you mean 'bert'"),
    Bad("no-family", config(model_type=None), InputError, "no model_type"),
    Bad("no-class", config(architectures=None), InputError, "model's class .architectures"),
    Bad("two-classes", config(architectures=["A", "B"]), InputError, "model's class"),
    Bad("odd-class", config(architectures="BertModel"), InputError, "model's class"),
    Bad("multi-label", config(problem_type="multi_label_classification"), UsageError, "one label"),
    Bad("quantized", config(quantization_config={"bits": 4}), InputError, "float weights"),
    # Labels
    Bad("fewer-weights", one_class_less, InputError, r"names 3 labels .*of 2; correct id2label"),
    Bad("fewer-labels", config(id2label={"0": "a", "1": "b"}), InputError, "names 2 labels"),
    Bad("two-counts", config(id2label=LABELS, num_labels=4), InputError, "id2label names 3"),
    Bad("odd-numbers", config(id2label={"1": "a", "2": "b"}), InputError, "number its labels"),
    Bad("same-name", config(id2label=LABELS | {"2": "a"}), InputError, "two labels one name"),
    Bad("long-name", config(id2label=LABELS | {"2": "c" * 999}), InputError, "beyond any length"),
    Bad("no-labels", config(id2label=[]), InputError, "maps no numbers to names"),
    # Sizes
    Bad("layers", config(num_hidden_layers=10**9), UnsafeModelError, "'num_hidden_layers'"),
    Bad("some-layers", config(num_hidden_layers=1025), UnsafeModelError, "'num_hidden_layers'"),
    Bad("alias", config(num_hidden_layers=None, n_layer=10**9), InputError, "weights|layer"),
    Bad("width", config(hidden_size=10**6), UnsafeModelError, "numbers"),
    Bad("huge-width", config(hidden_size=10**15), UnsafeModelError, "'hidden_size'"),
    Bad("vocabulary", config(vocab_size=10**9), UnsafeModelError, "'vocab_size'"),
    Bad("label-count", config(num_labels=10**9, id2label=None), UnsafeModelError, "num_labels"),
    Bad("negative", config(num_hidden_layers=-(10**9)), UnsafeModelError, "'num_hidden_layers'"),
    Bad("other-vocabulary", config(vocab_size=45), InputError, r"needs \(45, 16\)\)$"),
    Bad("heads", config(num_attention_heads=3), InputError, "does not make a Bert"),
    Bad("zero", config(hidden_size=0), InputError, "config.json"),
    Bad("text-size", config(hidden_size="16"), InputError, "does not make a Bert"),
    Bad("long-word", config(hidden_act="x" * 999), InputError, "text of 999 characters"),
    Bad("no-such-act", config(hidden_act="nothing"), InputError, "does not make a Bert"),
    Bad("nan", text("config.json", '{"model_type": "bert", "architectures": '
        '["BertForSequenceClassification"], "layer_norm_eps": NaN}'), InputError, "give a number"),
    Bad("long-list", config(eos_token_id=[0] * 2000), UnsafeModelError, "endless 'eos_token_id'"),
    # Files
    Bad("no-config", without("config.json"), InputError, "no config.json; save the model with"),
    Bad("no-tokenizer", without("tokenizer.json"), InputError, "no tokenizer.json; save the fast"),
    Bad("no-weights", without("model.safetensors"), InputError, "no model.safetensors; save"),
    Bad("nothing", without("model.safetensors", "config.json"), InputError, "give the model file"),
    Bad("no-json", text("config.json", "{"), InputError, "config.json: is not JSON"),
    Bad("list", text("config.json", "[]"), InputError, "not a JSON object"),
    Bad("deep", text("config.json", nested(100_000)), InputError, "config.json: is not JSON"),
    Bad("twice", text("config.json", '{"a": 1, "a": 2}'), UnsafeModelError, "one key twice"),
    Bad("bytes", text("config.json", b"\xff\xfe{}"), InputError, "config.json: is not"),
    Bad("long", text("config.json", " " * (5 << 20)), UnsafeModelError, "is larger than"),
    Bad("pipe", pipe, InputError, "not a regular file"),
    Bad("truncated", text("model.safetensors", b"\x10\0\0\0\0\0\0\0{"), InputError, "model.safet"),
    # Names that lead elsewhere
    Bad("up", pointing("../../x.safetensors"), UnsafeModelError, "no name of a safetensors file"),
    Bad("absolute", pointing("/etc/x.safetensors"), UnsafeModelError, "no name of a safetensors"),
    Bad("backslash", pointing("..\\x.safetensors"), UnsafeModelError, "no name of a safetensors"),
    Bad("drive", pointing("c:x.safetensors"), UnsafeModelError, "no name of a safetensors"),
    Bad("hidden", pointing(".x.safetensors"), UnsafeModelError, "no name of a safetensors"),
    Bad("nul", pointing("x\0.safetensors"), UnsafeModelError, "no name of a safetensors"),
    Bad("other-kind", pointing("config.json"), UnsafeModelError, "no name of a safetensors"),
    Bad("no-name", pointing(7), UnsafeModelError, "no name of a safetensors"),
    Bad("missing-shard", pointing("2.safetensors"), InputError, "not there .'2.safetensors'"),
    Bad("other-shard", pointing("1.safetensors"), InputError, "other tensors than"),
    Bad("empty-index", shards(lambda _: {}), InputError, "no weight_map"),
    Bad("list-index", shards(lambda _: "[]"), InputError, "not a JSON object"),
    Bad("both", shards(lambda index: index, keep=True), UsageError, "leave one of them"),
    Bad("link-out", link("model.safetensors", "../out/m"), UnsafeModelError, "link out of the fol"),
    Bad("config-out", link("config.json", "../out/c"), UnsafeModelError, "link out of the folder"),
    Bad("tokens-out", link("tokenizer.json", "../out/t"), UnsafeModelError, "link out of the fol"),
    Bad("link-below", link("model.safetensors", "sub/m"), UnsafeModelError, "link out of the fol"),
    # A model and something else
    Bad("two-models", text("adapter_config.json", "{}"), UsageError, "a model and a LoRA adapter"),
)  # fmt: skip


CAUSAL: tuple[Bad, ...] = (
    # Code
    Bad("auto-map", config(auto_map={"AutoModel": "m.Net"}), UnsafeModelError, "code of its own"),
    Bad(
        "tokenizer-code",
        text("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["t.T", null]}}'),
        UnsafeModelError,
        "tokenizer of its own code",
    ),
    Bad("pickled", pickled, InputError, r"pickled weights only .* save it as safetensors"),
    Bad("renamed-pickle", renamed_pickle, InputError, "not safetensors; save it with"),
    # Other kinds of models
    Bad("llama", config(architectures=["LlamaForCausalLM"]), UsageError, "is a LlamaForCausalLM"),
    Bad("heads-two", config(architectures=["GPT2DoubleHeadsModel"]), UsageError, "GPT2LMHeadModel"),
    Bad("family", config(model_type="llama"), UsageError, "language models .LlamaForCausalLM"),
    Bad("quantized", config(quantization_config={"bits": 4}), InputError, "float weights"),
    # Sizes
    Bad("layers", config(n_layer=10**9), UnsafeModelError, "'n_layer'"),
    Bad("alias", config(num_hidden_layers=10**9), UnsafeModelError, "'num_hidden_layers'"),
    Bad("width", config(n_embd=10**6), UnsafeModelError, "numbers"),
    Bad("huge-width", config(n_embd=10**15), UnsafeModelError, "'n_embd'"),
    Bad("vocabulary", config(vocab_size=10**9), UnsafeModelError, "'vocab_size'"),
    Bad("other-vocabulary", config(vocab_size=45), InputError, r"needs \(45, 32\)"),
    Bad("context", config(n_positions=10**9), UnsafeModelError, "'n_positions'"),
    Bad("no-context", config(n_positions=0), InputError, "config.json"),
    Bad("other-context", config(n_positions=64), InputError, r"needs \(64, 32\)"),
    Bad("heads", config(n_head=3), InputError, "does not make a GPT2LMHeadModel"),
    Bad("tied-what", config(tie_word_embeddings="no"), InputError, "give true or false"),
    Bad("tied-list", config(tie_word_embeddings=[0] * 9999), InputError, "give true or false"),
    # Weights
    Bad("untied", config(tie_word_embeddings=False), InputError, "missing .'lm_head.weight'"),
    # Files and names that lead elsewhere
    Bad("no-tokenizer", without("tokenizer.json"), InputError, "no tokenizer.json; save the fast"),
    Bad("no-weights", without("model.safetensors"), InputError, "no model.safetensors; save"),
    Bad("up", pointing("../../x.safetensors"), UnsafeModelError, "no name of a safetensors file"),
    Bad("absolute", pointing("/etc/x.safetensors"), UnsafeModelError, "no name of a safetensors"),
    Bad("hidden", pointing(".x.safetensors"), UnsafeModelError, "no name of a safetensors"),
    Bad("missing-shard", pointing("2.safetensors"), InputError, "not there .'2.safetensors'"),
    Bad("link-out", link("model.safetensors", "../out/m"), UnsafeModelError, "link out of the fol"),
)  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = trained_tokenizer(words())
    network = network_of("bert", settings_of("bert", tokenizer.get_vocab_size(), 3))
    return save(tmp_path_factory.mktemp("good") / "model", network, tokenizer)


@pytest.fixture(scope="module")
def good_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("good") / "causal")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(good, tmp_path / "a" / "model"))


def complaint(path: Path, arch: str | None, error: type[UnauditError]) -> str:
    begin = time.perf_counter()
    with pytest.raises(UnauditError) as caught:
        load_model(str(path), arch=arch)
    assert time.perf_counter() - begin < 5
    message = str(caught.value)
    assert type(caught.value) is error, message
    unsafe = error is UnsafeModelError
    assert caught.value.exit_code == (ExitCode.UNSAFE_MODEL if unsafe else ExitCode.BAD_INPUT)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 600
    return message


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.id)
def test_refused_in_one_line(bad: Bad, folder: Path) -> None:
    bad.spoil(folder)
    message = complaint(folder, None, bad.error)
    assert message.startswith(f"{folder}: ")
    assert re.search(bad.says, message), message


@pytest.mark.parametrize("bad", CAUSAL, ids=lambda bad: bad.id)
def test_language_models_are_refused_in_one_line(
    bad: Bad, good_causal: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(good_causal, tmp_path / "a" / "model"))
    bad.spoil(folder)
    message = complaint(folder, None, bad.error)
    assert message.startswith(f"{folder}: ")
    assert re.search(bad.says, message), message


def test_the_folder_was_good_before(folder: Path) -> None:
    load_model(str(folder), arch=None)
    shards(lambda index: index)(folder)
    load_model(str(folder), arch=None)


def test_a_linked_shard_is_refused(folder: Path) -> None:
    shards(lambda index: index)(folder)
    link("1.safetensors", "../out/one")(folder)
    message = complaint(folder, None, UnsafeModelError)
    assert "'1.safetensors' is a link out of the folder" in message


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("unaudit:mlp?widths=4-3", "says what network it is; drop --arch"),
        ("torchvision:resnet18", "says what network it is; drop --arch"),
    ],
)
def test_another_architecture_contradicts_a_folder(folder: Path, arch: str, says: str) -> None:
    assert says in complaint(folder, arch, UsageError)


def test_architectures_that_are_no_folders(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    assert "is no folder" in complaint(weights, f"hf:{weights}", UsageError)
    assert "no config.json" in complaint(weights, f"hf:{tmp_path}", UsageError)
    assert "takes no arguments" in complaint(weights, f"hf:{folder}?labels=3", UsageError)
    for forged in ("AAAA", "W10", "eyJ0eXBlIjoiYmVydCIsInZhbHVlcyI6W10sImxhYmVscyI6W119"):
        assert "unaudit's own use" in complaint(weights, f"hf-config:{forged}", UsageError)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "m.Net"}}')
    assert "code of its own" in complaint(weights, f"hf:{folder}", UnsafeModelError)


def test_a_forged_spec_is_checked_like_a_folder(folder: Path) -> None:
    def said(error: type[UnauditError], **content: Any) -> str:
        spec = urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        return complaint(folder / "model.safetensors", f"hf-config:{spec}", error)

    many: dict[str, Any] = {"values": {"num_hidden_layers": 10**9}}
    for kind in ({"type": "bert", "labels": ["a", "b"]}, {"type": "gpt2", "causal": True}):
        assert "'num_hidden_layers'" in said(UnsafeModelError, **many, **kind)
    assert "unaudit's own use" in said(UsageError, type="bert", causal=True, values={})
    assert "unaudit's own use" in said(UsageError, type=[], causal=True, values={})
    assert "unaudit's own use" in said(UsageError, type="gpt2", causal=True)
