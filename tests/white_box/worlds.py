"""Cases of networks and arrays in memory, for tests of white-box views."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unaudit.case import Candidate, Case
from unaudit.data import Dataset
from unaudit.engine.store import Store
from unaudit.evidence import IntArray, Scenario, SplitName
from unaudit.forward import ForwardPass
from unaudit.loading import LoadedModel, Provenance, RecordedModel, RecordedSplit, TextInput
from unaudit.splits import Split
from unaudit.tokens import predicts_tokens


class Arrays(Dataset):
    """Examples in memory; remembers how many were read, and in what batches."""

    default_id_type = "index"

    def __init__(self, inputs: Tensor, labels: IntArray, name: str = "arrays.npz") -> None:
        self.inputs = inputs
        self.labels = labels
        self.ids = None
        self.name = name
        self.input_shape = tuple(inputs.shape[1:])
        content = hashlib.sha256(inputs.numpy().tobytes())
        content.update(labels.tobytes())
        self.digest = content.hexdigest()
        self.read: list[int] = []

    def batches(self, rows: IntArray, size: int) -> Iterator[Tensor]:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            self.read.append(len(part))
            yield self.inputs[torch.from_numpy(part)].clone()

    def fingerprints(self) -> npt.NDArray[np.uint8]:
        raise NotImplementedError


def provenance(name: str) -> Provenance:
    return Provenance(name, sha256="0" * 64, size_bytes=1, format="safetensors", tier="T0")


def digest(network: nn.Module) -> str:
    """Of every weight and buffer."""
    content = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        content.update(name.encode() + value.contiguous().numpy().tobytes())
    return content.hexdigest()


def candidate(network: nn.Module, label: str = "subject") -> Candidate:
    role = {"subject": "subject", "original": "original"}.get(label, "retrained")
    text = TextInput(b"", 1, None, None, causal=True) if predicts_tokens(network) else None
    model = LoadedModel(network, provenance(f"{label}.safetensors"), digest(network), text=text)
    return Candidate(role, label, model)  # type: ignore[arg-type]


def recorded(logits: npt.NDArray[np.float32], labels: IntArray, label: str) -> Candidate:
    ids = tuple(str(row) for row in range(len(labels)))
    splits = {"train": RecordedSplit(logits, labels, ids)}
    return Candidate("retrained", label, RecordedModel(splits, provenance("api.npz"), "digest"))


def case_of(
    networks: Mapping[str, nn.Module | Candidate],
    data: Mapping[SplitName, Arrays],
    scenario: Scenario = "sample",
) -> Case:
    """A case of models by label: ``subject``, ``original``, and any other names for retrained."""
    candidates = {
        label: given if isinstance(given, Candidate) else candidate(given, label)
        for label, given in networks.items()
    }
    splits = {
        name: Split(name, own, np.arange(len(own), dtype=np.int64)) for name, own in data.items()
    }
    references = [label for label in candidates if label not in ("subject", "original")]
    return Case(
        subject=candidates["subject"],
        original=candidates.get("original"),
        retrained=tuple(candidates[label] for label in references),
        splits=splits,
        scenario=scenario,
        scenario_source="stated",
        id_type="index",
        ids_hmac="0" * 64,
        copies=None,
        mix_differs=False,
    )


def forward_of(
    case: Case, folder: Path, *, batch_size: int = 8, record_features: bool = True
) -> ForwardPass:
    return ForwardPass(
        case,
        Store(folder),
        batch_size=batch_size,
        device="cpu",
        record_features=record_features,
    )
