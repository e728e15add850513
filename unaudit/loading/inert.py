"""The inert reader: takes the tensors out of a pickle without running a line of what it names.

Three ideas. ``find_class`` never imports: it knows a closed list of names, for which it returns
stand-ins of our own, and gives every other name an :class:`Opaque` class that only records what is
done to it. The stand-ins are immutable, so that the BUILD instruction, which sets attributes, has
nothing to hold on to. Tensors stay descriptions (:class:`LazyTensor`) until somebody asks for their
numbers, and a description that does not fit its storage is refused when it is made.

What :func:`unaudit.loading.pickle_scan.scan` has not passed must not come here.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unaudit.errors import InputError, UnauditError, UnsafeModelError
from unaudit.loading.denied import canonical
from unaudit.loading.limits import Limits
from unaudit.loading.pickle_scan import DAMAGED
from unaudit.loading.stand_ins import (
    DTYPES,
    STORAGE_DTYPES,
    Call,
    InertDict,
    LazyStorage,
    LazyTensor,
    Opaque,
    StorageKind,
)
from unaudit.text import plain


@dataclass(frozen=True)
class InertResult:
    """What a pickle describes."""

    root: Any
    """Plain containers and atoms, :class:`LazyTensor` and :class:`Opaque`."""
    opaque: Mapping[str, int]
    """How many objects of each foreign class were met; 0 for one that was mentioned only."""


def read_inert(data: bytes, storages: Mapping[str, int], limits: Limits) -> InertResult:
    """Interpret the pickle ``data``, which :func:`scan` has passed.

    Args:
        storages: Size in bytes of each storage that the archive holds, by key.

    Raises:
        InputError: the pickle is damaged or refers to what the archive does not hold.
        UnsafeModelError: a tensor does not fit its storage.
    """
    reader = _InertUnpickler(data, storages, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in strings of protocol 0
        try:
            root = reader.load()
        except UnauditError:
            raise
        except Exception:  # misuse of a stand-in raises whatever Python raises there
            raise InputError(DAMAGED) from None
    counts = Counter({kind.qualified: kind.created for kind in reader.foreign.values()})
    return InertResult(root, counts)


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storages: Mapping[str, int], limits: Limits) -> None:
        super().__init__(io.BytesIO(data), encoding="latin-1")
        self.foreign: dict[str, type[Opaque]] = {}
        self._storages = storages
        self._limits = limits
        self._known = self._closed_list()

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        full = canonical(module_name, global_name)
        if full in self._known:
            return self._known[full]
        if full not in self.foreign:
            self.foreign[full] = type("Opaque", (Opaque,), {"__slots__": (), "qualified": full})
        return self.foreign[full]

    def persistent_load(self, pid: Any) -> LazyStorage:
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise InputError(DAMAGED)
        kind, key, numel = pid[1], pid[2], pid[4]
        if isinstance(kind, type) and issubclass(kind, Opaque):
            raise InputError(
                f"holds a tensor of the unknown type '{plain(kind.qualified)}' (quantized?); "
                "save float weights"
            )
        if type(kind) is not StorageKind or type(key) is not str or type(numel) is not int:
            raise InputError(DAMAGED)
        if key not in self._storages:
            raise InputError(f"lacks its storage '{plain(key)}'; download or save it again")
        if not 0 <= numel * kind.dtype.itemsize <= self._storages[key]:
            raise UnsafeModelError(
                f"its storage '{plain(key)}' claims {numel:,} numbers but has "
                f"{self._storages[key]:,} bytes; save it again"
            )
        return LazyStorage(key, kind.dtype, numel)

    def _closed_list(self) -> dict[str, Any]:
        known: dict[str, Any] = {
            "collections.OrderedDict": InertDict,
            "torch.Size": Call(_size),
            "torch._utils._rebuild_tensor": Call(self._tensor),
            "torch._utils._rebuild_tensor_v2": Call(self._tensor),
            "torch._utils._rebuild_tensor_v3": Call(self._tensor_v3),
            "torch._utils._rebuild_parameter": Call(_parameter),
            "torch._utils._rebuild_parameter_with_state": Call(_parameter),
            "torch._tensor._rebuild_from_type_v2": Call(_from_type),
            # Untyped storages count bytes
            "torch.storage.UntypedStorage": StorageKind(torch.uint8),
            "copyreg._reconstructor": Call(_reconstructor),
        }
        for name, dtype in STORAGE_DTYPES.items():
            known[f"torch.{name}"] = known[f"torch.cuda.{name}"] = StorageKind(dtype)
        known.update({f"torch.{name}": dtype for name, dtype in DTYPES.items()})
        return known

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> LazyTensor:
        if type(storage) is not LazyStorage:
            raise InputError(DAMAGED)
        return self._view(storage, storage.dtype, offset, size, stride)

    def _tensor_v3(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        *_: Any,
    ) -> LazyTensor:
        if type(storage) is not LazyStorage or type(dtype) is not torch.dtype:
            raise InputError(DAMAGED)
        return self._view(storage, dtype, offset, size, stride)

    def _view(
        self, storage: LazyStorage, dtype: torch.dtype, offset: Any, size: Any, stride: Any
    ) -> LazyTensor:
        size, stride = _size(size), _size(stride)
        if type(offset) is not int or offset < 0 or len(size) != len(stride):
            raise InputError(DAMAGED)
        if len(size) > self._limits.dimensions:
            raise UnsafeModelError(f"holds a tensor with {len(size)} axes; save the weights alone")
        numel = math.prod(size)
        available = storage.numel * storage.dtype.itemsize // dtype.itemsize
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        repeats = any(n > 1 and step == 0 for n, step in zip(size, stride, strict=True))
        if numel and (last >= available or numel > available or repeats):
            raise UnsafeModelError(
                f"holds a tensor of shape {plain(str(size))} that its storage of {available:,} "
                "numbers cannot fill; save contiguous tensors"
            )
        return LazyTensor(storage, dtype, offset, size, stride)


def _size(numbers: Any) -> tuple[int, ...]:
    if type(numbers) not in (tuple, list) or len(numbers) > 64:
        raise InputError(DAMAGED)
    if any(type(number) is not int or not 0 <= number < 1 << 62 for number in numbers):
        raise InputError(DAMAGED)
    return tuple(numbers)


def _parameter(data: Any, *_: Any) -> LazyTensor:
    if type(data) is not LazyTensor:
        raise InputError(DAMAGED)
    return data


def _from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor subclass: the subclass is dropped, its numbers stay."""
    if type(arguments) is not tuple or not isinstance(function, (Call, type)):
        raise InputError(DAMAGED)
    if type(function) is Call and function.function is _from_type:
        raise InputError(DAMAGED)
    if isinstance(function, type) and not issubclass(function, Opaque):
        raise InputError(DAMAGED)
    return function(*arguments)


def _reconstructor(kind: Any, *_: Any) -> Opaque:
    """How protocols 0 and 1 make an object before they set its state."""
    if not (isinstance(kind, type) and issubclass(kind, Opaque)):
        raise InputError(DAMAGED)
    return kind()
