"""Folders in Hugging Face layout: as models, as LoRA adapters, and as architectures (``hf:DIR``).

Of a folder only ``config.json``, ``tokenizer.json``, the safetensors files and, for an adapter, its
two files are read, each from a private copy or a copy in memory. transformers gets a checked
configuration and gives an empty network; it opens no file and resolves no name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from unaudit.errors import InputError, UnauditError, UnsafeModelError, UsageError
from unaudit.loading.architectures import ARCHITECTURES, ArchitectureSpec, Argument, Built
from unaudit.loading.fit import Fitted, digest_of, fit
from unaudit.loading.hugging_face_causal import CausalNetwork
from unaudit.loading.hugging_face_config import Config, config_of_spec, read_config
from unaudit.loading.hugging_face_folder import (
    ADAPTER,
    ADAPTER_CONFIG,
    CONFIG,
    MAX_LISTED,
    TOKENIZER,
    Folder,
)
from unaudit.loading.hugging_face_lora import merge, read_adapter
from unaudit.loading.hugging_face_network import (
    are_equal,
    build_network,
    context_of,
    fitting_names,
)
from unaudit.loading.limits import Limits
from unaudit.loading.model import LoadedModel, Provenance, TextInput, Trust
from unaudit.loading.wording import naming
from unaudit.text import plain

PREFIX = "hf"
TOKENIZER_BYTES = 64 << 20
TOKENIZER_CONFIG = "tokenizer_config.json"


def load_folder(path: Path, arch: ArchitectureSpec | None, limits: Limits) -> LoadedModel:
    """The model in a folder.

    Args:
        path: the folder.
        arch: what ``--arch`` says; an adapter needs it to name its base model.
        limits: what may be opened and built.

    Raises:
        UsageError: the folder holds another kind of model, or --arch contradicts it.
        InputError: a file is missing, damaged or does not fit the others.
        UnsafeModelError: it asks for code, leads out of the folder, or exceeds the limits.
    """
    label = plain(path, 300)
    with naming(label):
        folder = Folder(path, limits)
        adapts = folder.holds(ADAPTER_CONFIG)
        if not adapts and not folder.holds(CONFIG):
            raise _no_model(path)
        if adapts and folder.holds(CONFIG):
            raise UsageError(
                "holds a model and a LoRA adapter; put the adapter into a folder of its own and "
                "name the base model with --arch hf:DIR"
            )
        if arch is not None and arch.prefix != PREFIX:
            raise UsageError("is a Hugging Face folder, which says what network it is; drop --arch")
        if adapts and arch is None:
            raise UsageError("is a LoRA adapter; name its base model with --arch hf:DIR")
    if adapts:
        assert arch is not None
        return _load_adapter(folder, Folder(Path(arch.name), limits), label)
    with naming(label):
        tensors = folder.tensors()
        built = build_folder(folder)
        fitted, ignored = fit_network(built.module, tensors, built.text)
    return _loaded(folder, built, fitted, ignored, ())


def build_folder(folder: Folder) -> Built:
    """The network of a folder with random weights, and what its texts go through.

    Raises:
        UsageError, InputError, UnsafeModelError: see :func:`load_folder`.
    """
    config = read_config(folder.read_json(CONFIG))
    folder.ignored += [f"setting {plain(key, 60)}" for key in config.ignored]
    if not folder.holds(TOKENIZER):
        raise InputError(
            f"holds no {TOKENIZER}; save the fast tokenizer there: "
            "AutoTokenizer.from_pretrained(…).save_pretrained(DIR)"
        )
    if folder.holds(TOKENIZER_CONFIG) and folder.read_json(TOKENIZER_CONFIG).get("auto_map"):
        raise UnsafeModelError(
            f"asks for a tokenizer of its own code to be run (auto_map in {TOKENIZER_CONFIG}), "
            "which is never done; save a tokenizer that transformers brings"
        )
    tokenizer = folder.read(TOKENIZER, TOKENIZER_BYTES)
    return _built(config, folder.limits, tokenizer)


def fit_network(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], text: TextInput | None
) -> tuple[Fitted, tuple[str, ...]]:
    """Load tensors under the names that files of transformers give them.

    Returns how they went in, and what of them was passed over.

    Raises:
        InputError: they do not fit.
    """
    named, ignored = fitting_names(network, tensors)
    notes: tuple[str, ...] = ()
    if isinstance(network, CausalNetwork):
        notes = _untied(network, named)
    else:
        _check_labels(network, named, text)
    try:
        fitted = fit(network, named)
        return replace(fitted, notes=(*fitted.notes, *notes)), ignored
    except InputError as error:
        # that a whole axis is longer means other sizes here, not another number of classes
        said = str(error).partition("; it looks like a model of")[0]
        raise InputError(
            said.replace("check --arch", "correct it").replace("--arch", CONFIG)
        ) from None


@ARCHITECTURES.register(PREFIX)
def build_hugging_face(name: str, arguments: Mapping[str, Argument], trust: Trust | None) -> Built:
    """``hf:DIR``: the network that a folder's configuration describes; its weights are left."""
    _refuse_arguments(f"hf:{name}", arguments)
    path = Path(name)
    with naming(f"--arch hf:{plain(name, 300)}"):
        if not path.is_dir():
            raise UsageError("is no folder; give one with config.json and tokenizer.json")
        folder = Folder(path, Limits())
        if not folder.holds(CONFIG):
            raise UsageError(f"holds no {CONFIG}; give the folder of a model")
        return build_folder(folder)


@ARCHITECTURES.register("hf-config")
def build_from_spec(name: str, arguments: Mapping[str, Argument], trust: Trust | None) -> Built:
    """The same from the configuration itself: what jobs are told, wherever they run."""
    _refuse_arguments("hf-config", arguments)
    with naming("--arch hf-config"):
        return _built(config_of_spec(name), Limits(), None)


def _built(config: Config, limits: Limits, tokenizer: bytes | None) -> Built:
    with torch.random.fork_rng(devices=[]):
        network = build_network(config, limits)
    text = None
    if tokenizer is not None:
        text = TextInput(
            tokenizer=tokenizer,
            vocabulary=network.token_embedding.num_embeddings,
            context=context_of(network),
            labels=config.labels if config.names_labels else None,
            causal=config.causal,
        )
    return Built(network, spec=config.spec(), text=text)


def _load_adapter(folder: Folder, base: Folder, label: str) -> LoadedModel:
    with naming(label):
        adapter = read_adapter(folder.read_json(ADAPTER_CONFIG))
        if not folder.holds(ADAPTER):
            raise InputError(f"holds no {ADAPTER}; save the adapter with save_pretrained")
        parts = folder.read_weights(ADAPTER)
    with naming(f"--arch hf:{plain(base.path, 300)}"):
        if not base.holds(CONFIG):
            raise UsageError(f"holds no {CONFIG}; give the folder of the adapter's base model")
        built = build_folder(base)
        tensors, _ = fitting_names(built.module, base.tensors())
        if isinstance(built.module, CausalNetwork):
            tensors = built.module.with_both_names(tensors)
    with naming(label):
        merged = merge(built.module, tensors, adapter, parts)
        fitted, ignored = fit_network(built.module, merged, built.text)
    digests = {f"base {name}": value for name, value in base.digests.items()}
    note = (
        f"LoRA adapter of rank {adapter.rank} merged, scale {adapter.scale:g}",
        f"base model from {plain(base.path.name)}",
    )
    return _loaded(folder, built, fitted, ignored, note, digests)


def _loaded(
    folder: Folder,
    built: Built,
    fitted: Fitted,
    ignored: tuple[str, ...],
    notes: tuple[str, ...],
    more: Mapping[str, tuple[str, int]] | None = None,
) -> LoadedModel:
    assert built.spec is not None
    files = {**folder.digests, **(more or {})}
    lines = [f"{sha256}  {name}" for name, (sha256, _) in sorted(files.items())]
    listing = "".join(f"{line}\n" for line in lines).encode()
    name = plain(folder.path.resolve().name)
    provenance = Provenance(
        name=name,
        sha256=hashlib.sha256(listing).hexdigest(),
        size_bytes=sum(count for _, count in files.values()),
        format="Hugging Face folder",
        tier="T0",
        arch=f"{PREFIX}:{name}",
        parameters=fitted.parameters,
        ignored=folder.passed_over(ignored),
        notes=(
            *notes,
            *fitted.notes,
            "its sha256 is of the list of its files, as sha256sum prints it"
            + "".join(f"; {line}" for line in lines[:MAX_LISTED])
            + (f"; and {len(lines) - MAX_LISTED} more" if len(lines) > MAX_LISTED else ""),
        ),
    )
    digest = digest_of(built.module, built.spec, "")
    return LoadedModel(built.module, provenance, digest, built.spec, built.text)


def _check_labels(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], text: TextInput | None
) -> None:
    """Say it in words where the weights have another number of classes than the configuration."""
    wanted = network.state_dict()
    labels = int(network.config.num_labels)  # type: ignore[union-attr, arg-type]
    for name, tensor in tensors.items():
        own = wanted.get(name)
        if own is None or own.shape == tensor.shape or own.shape[1:] != tensor.shape[1:]:
            continue
        if own.shape[:1] == (labels,) and name.rpartition(".")[0].endswith(
            ("classifier", "score", "out_proj")
        ):
            raise InputError(
                f"{CONFIG} names {labels} labels (id2label), but the weights '{plain(name)}' are "
                f"of {len(tensor)}; correct id2label"
            )


def _untied(network: CausalNetwork, tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Untie a network whose weights differ between the two names of its embedding, and say so."""
    given = [
        [tensor for name, tensor in tensors.items() if f".{name}".endswith(f".{own}")]
        for own in network.tied_names
    ]
    if not network.tied or not all(given) or are_equal(given[0][0], given[1][0]):
        return ()
    network.untie()
    return (
        f"the embeddings of inputs and outputs, which {CONFIG} ties, differ in the weights, and "
        "are two",
    )


def _no_model(path: Path) -> UnauditError:
    if next(path.glob("*.safetensors"), None) is not None:
        return InputError(f"holds weights but no {CONFIG}; save the model with save_pretrained")
    return InputError("is a folder; give the model file in it")


def _refuse_arguments(where: str, arguments: Mapping[str, Argument]) -> None:
    if arguments:
        raise UsageError(f"--arch {plain(where, 300)} takes no arguments; drop what follows '?'")
