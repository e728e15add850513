"""Stand-ins for what a pickle names: immutable, inert, and never imported from where it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch

STORAGE_DTYPES: Mapping[str, torch.dtype] = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
"""By the name of torch's storage class."""
DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *STORAGE_DTYPES.values(),
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    )
}
"""By their names in torch."""


class LazyStorage(NamedTuple):
    """A member ``data/KEY`` of the archive that has not been read."""

    key: str
    dtype: torch.dtype
    numel: int


class LazyTensor(NamedTuple):
    """A strided view of a storage; it was checked to lie inside."""

    storage: LazyStorage
    dtype: torch.dtype
    offset: int
    """In elements of ``dtype``, like ``stride``."""
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.size)


class Opaque:
    """An object of a class that was never imported; using it only records."""

    __slots__ = ("arguments", "state")
    arguments: tuple[Any, ...]
    state: Any
    qualified: ClassVar[str] = ""
    """The name that the file gives its class or function."""
    created: ClassVar[int] = 0

    def __new__(cls, *arguments: Any, **_: Any) -> Opaque:
        cls.created += 1
        self = super().__new__(cls)
        self.arguments = arguments
        self.state = None
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **_: Any) -> Opaque:
        return type(self)(*arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, item: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class InertDict(dict[Any, Any]):
    """Stands for ``collections.OrderedDict``; filled item by item, attributes are dropped."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


class StorageKind(NamedTuple):
    """Stands for ``torch.FloatStorage`` and its kin; not callable."""

    dtype: torch.dtype


class Call(NamedTuple):
    """Stands for a function of torch that rebuilds a tensor."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)
