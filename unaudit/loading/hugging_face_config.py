"""``config.json`` of a Hugging Face model: what kind of network it is, and of what size.

Nothing in it is believed. Networks come from a closed list, and of the keys only those reach
transformers that are settings of the network's own family, as plain numbers, words and lists of
them: no code of the model's side (``auto_map``), no quantizer, no kernel, no file to fetch. Numbers
that are counts, of which each would be a module or an entry, are bounded before anything is built.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unaudit.errors import InputError, UnsafeModelError, UsageError
from unaudit.loading.hugging_face_library import import_transformers
from unaudit.registry import did_you_mean
from unaudit.text import plain, quote

MOST = 1024
"""Of layers, heads, groups, labels in a list: of whatever is made one by one."""
WIDEST = 1 << 24
"""Numbers that are the length of an axis, or a token's id."""
MOST_LABELS = 1 << 16
LONGEST_WORD = 256

_TASK = "ForSequenceClassification"
_ENCODERS: Mapping[str, str] = {
    "albert": "Albert",
    "bert": "Bert",
    "camembert": "Camembert",
    "deberta": "Deberta",
    "deberta-v2": "DebertaV2",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "ernie": "Ernie",
    "modernbert": "ModernBert",
    "mpnet": "MPNet",
    "rembert": "RemBert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
}
_DECODERS: Mapping[str, str] = {
    "bloom": "Bloom",
    "gemma": "Gemma",
    "gpt2": "GPT2",
    "gpt_neo": "GPTNeo",
    "gpt_neox": "GPTNeoX",
    "llama": "Llama",
    "mistral": "Mistral",
    "opt": "OPT",
    "phi": "Phi",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
}
FAMILIES = tuple(sorted((*_ENCODERS, *_DECODERS)))
"""Values of ``model_type`` that are read; padding was seen to change none of them."""
CAUSAL_FAMILIES = tuple(sorted(_DECODERS))
"""Those of which language models are read."""
_TIED = "tie_word_embeddings"

# such numbers are lengths of axes, ids or angles; every other one counts what is made one by one
_LENGTHS = (
    "_size", "_dim", "_embd", "_positions", "_embeddings", "_inner", "_ctx", "_theta", "_id",
    "_buckets", "_attention", "_window", "_distance", "_offset", "_embed", "_base", "window", "dim",
)  # fmt: skip
_ROTARY = frozenset({"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"})
# read by networks, though no configuration declares them
_UNDECLARED = frozenset(
    {
        "attention_head_size", "cls_dropout", "conv_act", "conv_groups", "conv_kernel_size",
        "embedding_size", "head_dim", "norm_rel_ebd", "pooler_hidden_size", "position_buckets",
        "share_att_key", "talking_head", "pad_token_id", "bos_token_id", "eos_token_id",
        "global_attn_every_n_layers", "global_rope_theta", "local_rope_theta", "n_embed",
        "rotary_emb_base", "rotary_pct",
    }
)  # fmt: skip
_NEVER = frozenset({"use_cache", _TIED, "per_layer_config"})
# said elsewhere, or nothing that changes what a network computes
_ELSEWHERE = frozenset(
    {
        "_name_or_path", "model_type", "num_labels", "torch_dtype", "gradient_checkpointing",
        "output_attentions", "finetuning_task", "task_specific_params",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What decides a network, checked."""

    network: str
    """Its class in transformers."""
    settings: str
    """The class of its configuration."""
    last_token: bool
    """Whether it classifies by the last token, as networks that read from left to right do."""
    values: Mapping[str, Any]
    """Arguments of the configuration, labels aside."""
    labels: tuple[str, ...]
    """Names of its outputs, in order."""
    family: str
    """``model_type``."""
    causal: bool = False
    """Whether it predicts the next token of texts; it has no labels then."""
    ignored: tuple[str, ...] = ()
    """Keys that mean nothing to such a network."""

    @property
    def names_labels(self) -> bool:
        """Whether somebody named the outputs; else they are called LABEL_0, LABEL_1, …"""
        return any(name != f"LABEL_{index}" for index, name in enumerate(self.labels))

    def spec(self) -> str:
        """An architecture spec that makes the same network on any machine."""
        content: dict[str, Any] = {"type": self.family, "values": self.values}
        content |= {"causal": True} if self.causal else {"labels": self.labels}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return f"hf-config:{urlsafe_b64encode(text.encode()).decode().rstrip('=')}"


def read_config(content: Mapping[str, Any]) -> Config:
    """What a ``config.json`` describes.

    Raises:
        UsageError: a kind of model that is not audited (yet).
        InputError: it contradicts itself or is no configuration.
        UnsafeModelError: it asks for code to be run, or for absurdly much.
    """
    if content.get("auto_map"):
        raise UnsafeModelError(
            "asks for code of its own to be run (auto_map in config.json), which is never done; "
            "hand in a model of a class that transformers brings"
        )
    if content.get("quantization_config"):
        raise InputError(
            "is quantized (quantization_config in config.json); save it with float weights"
        )
    family = content.get("model_type")
    if not isinstance(family, str):
        raise InputError("config.json names no model_type; save the model with save_pretrained")
    network = _network(content.get("architectures"), family)
    if network == _causal_class(family):
        return _config(family, network, content, ())
    if content.get("problem_type") not in (None, "single_label_classification"):
        raise UsageError(
            f"is trained for {quote(content['problem_type'])}; unaudit audits classifiers of "
            "exactly one label per example"
        )
    return _config(family, network, content, _labels(content))


def config_of_spec(text: str) -> Config:
    """The configuration in the spec of :meth:`Config.spec`, checked like any other.

    Raises:
        UsageError: it is none.
    """
    try:
        content = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        family = content["type"]
        if content.get("causal") is True and _causal_class(family) is not None:
            return _config(family, str(_causal_class(family)), content["values"], ())
        labels = tuple(map(str, content["labels"]))
        return _config(family, _class_of(family), content["values"], labels)
    except (BadBase64, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(
            "--arch hf-config: is for unaudit's own use; give the model's folder as hf:DIR"
        ) from None


def _class_of(family: str) -> str:
    stem = _ENCODERS.get(family) or _DECODERS.get(family)
    if stem is None:
        raise UsageError(
            f"is a {plain(family, 60)} model, which is not read yet{did_you_mean(family, FAMILIES)}"
        )
    return f"{stem}{_TASK}"


def _causal_class(family: str) -> str | None:
    """The language model of a family; None where it has none that is read."""
    stem = _DECODERS.get(family)
    return None if stem is None else f"{stem}{'LMHeadModel' if stem == 'GPT2' else 'ForCausalLM'}"


def _network(architectures: object, family: str) -> str:
    """The class that the configuration names: its family's classifier or language model."""
    if not isinstance(architectures, list) or len(architectures) != 1:
        raise InputError(
            "config.json does not name the model's class (architectures); save the model with "
            "save_pretrained"
        )
    named = str(architectures[0])
    expected, causal = _class_of(family), _causal_class(family)
    if named not in (expected, causal):
        kinds = f"sequence classifiers are audited ({expected})"
        if causal is not None:
            kinds = f"sequence classifiers ({expected}) and language models ({causal}) are audited"
        raise UsageError(f"is a {plain(named, 80)}; only {kinds}")
    return named


def _labels(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the outputs, which may be given as a mapping, as a number, or not at all."""
    names, count = content.get("id2label"), content.get("num_labels")
    if count is not None and (type(count) is not int or not 0 < count <= MOST_LABELS):
        raise UnsafeModelError(f"asks for num_labels {quote(count)} (config.json); check it")
    if names is None:
        return tuple(f"LABEL_{index}" for index in range(count or 2))
    if not isinstance(names, dict) or not names:
        raise InputError("id2label in config.json maps no numbers to names; check it")
    if len(names) > MOST_LABELS:
        raise UnsafeModelError(f"names {len(names):,} labels (config.json); check it")
    if count not in (None, len(names)):
        raise InputError(
            f"config.json says num_labels {count}, but id2label names {len(names)}; correct one"
        )
    if set(names) != {str(index) for index in range(len(names))}:
        raise InputError("id2label in config.json does not number its labels 0, 1, …; correct it")
    found = tuple(str(names[str(index)]) for index in range(len(names)))
    if max(map(len, found)) > LONGEST_WORD:
        raise InputError("id2label in config.json has a name beyond any length; shorten it")
    if len(set(found)) < len(found):
        raise InputError("id2label in config.json gives two labels one name; correct it")
    return found


def _config(
    family: str, network: str, content: Mapping[str, Any], labels: tuple[str, ...]
) -> Config:
    settings = f"{_class_of(family).removesuffix(_TASK)}Config"
    known, common = _keys_of(settings)
    causal = network == _causal_class(family)
    if causal:
        known |= {_TIED}
        if content.get(_TIED) not in (None, True, False):
            raise InputError(f"config.json: {_TIED} is {quote(content[_TIED])}; give true or false")
    values = {key: value for key, value in content.items() if key in known and value is not None}
    for key, value in values.items():
        _check(key, value)
    ignored = sorted(set(content) - known - common - _NEVER - _ELSEWHERE)
    last = family in _DECODERS and not causal
    return Config(network, settings, last, values, labels, family, causal, tuple(ignored))


def _keys_of(settings: str) -> tuple[frozenset[str], frozenset[str]]:
    """Keys that are settings of a family, and those that every configuration has."""
    transformers = import_transformers()
    kind = getattr(transformers, settings)
    common = _arguments(transformers.PreTrainedConfig)
    names = _arguments(kind) - common
    if names & _ROTARY:
        names |= _ROTARY
    short_forms = frozenset(getattr(kind, "attribute_map", {}))
    return (names | short_forms | _UNDECLARED) - _NEVER, common


def _arguments(kind: type) -> frozenset[str]:
    names = set(inspect.signature(kind.__init__).parameters) - {"self", "args", "kwargs"}  # type: ignore[misc]
    if dataclasses.is_dataclass(kind):
        names |= {field.name for field in dataclasses.fields(kind)}
    return frozenset(names)


def _check(key: str, value: Any, depth: int = 0) -> None:
    """Refuse what is no plain setting, or would make transformers count for ever.

    Raises:
        InputError: not a number, word, list or mapping.
        UnsafeModelError: too large a number, too long a list.
    """
    if isinstance(value, (dict, list)):
        if depth > 3 or len(value) > MOST:
            raise UnsafeModelError(f"has an endless {quote(key)} in config.json; check it")
        inner = value.items() if isinstance(value, dict) else ((key, item) for item in value)
        for name, item in inner:
            _check(str(name), item, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"config.json: {quote(key)} is {value}; give a number")
    elif isinstance(value, str):
        if len(value) > LONGEST_WORD:
            raise InputError(f"config.json: {quote(key)} is a text of {len(value)} characters")
    elif type(value) is int:
        most = WIDEST if key.endswith(_LENGTHS) else MOST
        if abs(value) > most:
            raise UnsafeModelError(
                f"asks for {quote(key)} {value:,} (config.json), more than the {most:,} that are "
                "built; check it"
            )
