"""Imports torchvision also where its compiled operators cannot load.

The usual wheel of torchvision next to a CPU-only torch fails on import with ``operator
torchvision::nms does not exist``. Models, transforms and datasets need none of those operators, so
declaring the missing two is enough.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from unaudit.errors import UsageError

_SCHEMAS = ("nms", "qnms")
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """The package ``torchvision``.

    Raises:
        UsageError: it is not installed or cannot be imported.
    """
    try:
        return _import()
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise _broken(error) from None
        raise UsageError("torchvision is not installed; pip install 'unaudit[vision]'") from None
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise _broken(error) from None
    except ImportError as error:
        raise _broken(error) from None
    _declare_operators()
    try:
        return _import()
    except (ImportError, RuntimeError) as error:
        raise _broken(error) from None


def _import() -> ModuleType:
    return importlib.import_module("torchvision")


def _broken(error: Exception) -> UsageError:
    return UsageError(
        f"torchvision cannot be imported ({str(error).splitlines()[0]}); install the release that "
        f"matches torch {torch.__version__}"
    )


def _declare_operators() -> None:
    global _library
    if _library is not None:
        return
    # Kept for the life of the process: the operators vanish with the library object
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _SCHEMAS:
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
