"""Loading a model that nobody trusts: untrusted files in, a network or recorded outputs out."""

from unaudit.loading.architectures import ARCHITECTURES, Built
from unaudit.loading.limits import Limits
from unaudit.loading.load import load_model
from unaudit.loading.model import (
    LoadedModel,
    Model,
    Provenance,
    RecordedModel,
    RecordedSplit,
    TextInput,
    Tier,
    Trust,
)

__all__ = [
    "ARCHITECTURES",
    "Built",
    "Limits",
    "LoadedModel",
    "Model",
    "Provenance",
    "RecordedModel",
    "RecordedSplit",
    "TextInput",
    "Tier",
    "Trust",
    "load_model",
]
