"""One digest of a nest of JSON-compatible values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from unaudit.report.record import Part


def digest_of(parts: Mapping[str, Any]) -> str:
    """Hex digest of JSON-compatible parts, whatever order they were written in."""

    def plain(value: Any) -> Any:
        if isinstance(value, Part):
            return value.model_dump(mode="json")
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [plain(item) for item in value]
        return value

    text = json.dumps({key: plain(value) for key, value in parts.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
