"""The packages that read Hugging Face models, imported when one is met, and never on the network.

Nothing of theirs that opens a file of a model, resolves a name or runs code of a model is called:
they give configurations, networks and tokenizers that are made from what was read here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from typing import Any

from unaudit.errors import UnauditError, UsageError
from unaudit.text import plain

FLOOR = (5, 5)
"""Older versions of transformers let code run without consent (CVE-2026-4372, CVE-2026-5241)."""
INSTALL = "pip install 'unaudit[text]'"

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


def import_transformers() -> Any:
    """The package ``transformers``, quiet and kept off the network.

    Raises:
        UsageError: it is missing, broken or too old.
    """
    for name in _OFFLINE:
        os.environ[name] = "1"
    if importlib.util.find_spec("torchvision") is not None:
        # transformers imports it wherever it is installed, and trips over it where it cannot load
        from unaudit.loading.torchvision_shim import import_torchvision

        import_torchvision()
    package = _import("transformers")
    require_version(str(getattr(package, "__version__", "")))
    package.logging.set_verbosity_error()
    # read once, when it was imported; whoever did that before us may have left it on
    constants: Any = importlib.import_module("huggingface_hub.constants")
    constants.HF_HUB_OFFLINE = True
    return package


def require_version(version: str) -> None:
    """Refuse a transformers that is known to run code of models without consent.

    Raises:
        UsageError: ``version`` is below the floor.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < FLOOR:
        floor = ".".join(map(str, FLOOR))
        raise UsageError(
            f"transformers {plain(version, 40)} is not safe for models of others; "
            f"install >= {floor}: {INSTALL}"
        )


def import_tokenizers() -> Any:
    """The package ``tokenizers``.

    Raises:
        UsageError: it is missing or broken.
    """
    return _import("tokenizers")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise UsageError(f"models of texts need {name}; {INSTALL}") from None
        raise _broken(name, error) from None
    except UnauditError:
        raise
    except Exception as error:  # whatever an installation that does not fit together raises
        raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> UsageError:
    first = plain((str(error).splitlines() or [type(error).__name__])[0])
    return UsageError(f"{name} cannot be imported ({first}); {INSTALL}")
