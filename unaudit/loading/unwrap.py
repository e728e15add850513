"""Which of the things in a checkpoint are the weights.

Leaves are tensors, read or lazy; this module only picks and names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from unaudit.errors import InputError, UnsafeModelError
from unaudit.loading.limits import Limits
from unaudit.loading.stand_ins import LazyTensor, Opaque
from unaudit.text import listed, plain

Leaf: TypeAlias = "torch.Tensor | LazyTensor"

_WRAPPER_WORDS = """
    state_dict model_state_dict model model_state model_dict model_weights net net_state_dict
    network params parameters weights module state
"""
WRAPPERS = frozenset(_WRAPPER_WORDS.split())
"""Keys under which checkpoints keep the weights."""
_NOT_WEIGHTS = re.compile(r"optim|sched|scaler|grad|mask|^init|^amp$|loss|criterion|rng|momentum")
"""Keys of other things that hold tensors."""
MAX_NAME_LENGTH = 512
MAX_WRAPPERS = 4
MAX_SETS = 100


@dataclass(frozen=True)
class Weights:
    """The weights of one model, by name."""

    tensors: Mapping[str, Leaf]
    path: tuple[str, ...]
    """Keys that led to them."""
    claimed_class: str | None
    """What a pickled module says it is; unverified."""
    left_out: tuple[str, ...]
    """Keys that were passed over."""
    modules: frozenset[str] = frozenset()
    """Classes of the pickled modules that the tensors were taken from."""


def find_weights(root: Any, limits: Limits) -> Weights:
    """The one set of weights that ``root`` holds.

    Raises:
        InputError: there is none, or more than one.
        UnsafeModelError: there are absurdly many tensors or levels.
    """
    path: list[str] = []
    left_out: list[str] = []
    for _ in range(MAX_WRAPPERS):
        if _is_module(root):
            flat = _Flattener(limits)
            flat.add(root, "", 0)
            return Weights(
                _checked(flat.tensors, limits),
                tuple(path),
                root.qualified,
                tuple(left_out),
                frozenset(flat.modules),
            )
        if not isinstance(root, dict):
            break
        _refuse_foreign_tensors(root)
        key = _wrapper(root)
        if key is None:
            tensors = {name: leaf for name, leaf in root.items() if _is_named_tensor(name, leaf)}
            left_out += [_label(name) for name in root if name not in tensors]
            return Weights(_checked(tensors, limits), tuple(path), None, tuple(left_out))
        path.append(key)
        left_out += [_label(name) for name in root if name != key]
        root = root[key]
    raise InputError(
        "holds no weights; give a state dict, a checkpoint with one, or a saved module"
    )


def _wrapper(root: Mapping[Any, Any]) -> str | None:
    """The key to descend into, or None where ``root`` is the state dict itself."""
    direct = any(_is_named_tensor(name, leaf) for name, leaf in root.items())
    verdicts: dict[int, bool] = {}
    sets = [
        name
        for name, value in root.items()
        if type(name) is str and not _NOT_WEIGHTS.search(name) and _holds_weights(value, verdicts)
    ]
    known = [name for name in sets if name in WRAPPERS]
    if len(known) == 1:
        if len(sets) > MAX_SETS:
            raise _ambiguous(sets)
        rivals = [name for name in sets if _could_replace(root[name], root[known[0]])]
        if len(rivals) > 1:
            raise _ambiguous(rivals)
        return known[0]
    if len(sets) > 1 or (sets and direct):
        raise _ambiguous(sets if len(sets) > 1 else [*sets, "the top level"])
    if sets:
        return sets[0]
    if direct:
        return None
    nested = [name for name, value in root.items() if name in WRAPPERS and isinstance(value, dict)]
    if len(nested) == 1:
        return str(nested[0])
    keys = [_label(name) for name in root]
    raise InputError(f"holds no weights (its keys: {listed(keys) or 'none'}); give the checkpoint")


def _ambiguous(names: list[str]) -> InputError:
    return InputError(
        f"holds several sets of weights ({listed(names, 5)}); save the one to audit alone"
    )


def _label(key: Any) -> str:
    """A key for people; one that is neither text nor a number is named by its kind."""
    return str(key) if type(key) in (str, int, float, bool) else f"a {type(key).__name__} key"


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, LazyTensor))


def _is_named_tensor(name: Any, value: Any) -> bool:
    return type(name) is str and _is_leaf(value)


def _is_module(value: Any) -> bool:
    if not isinstance(value, Opaque):
        return False
    fields = _fields(value)
    return isinstance(fields.get("_modules"), dict) and isinstance(fields.get("_parameters"), dict)


def _fields(value: Opaque) -> dict[Any, Any]:
    return value.state if isinstance(value.state, dict) else {}


def _holds_weights(value: Any, verdicts: dict[int, bool]) -> bool:
    """A module, or a mapping from strings to tensors (and oddities, but no further mapping)."""
    if _is_module(value):
        return True
    if not isinstance(value, dict):
        return False
    # Many keys may share one huge mapping
    if id(value) not in verdicts:
        verdicts[id(value)] = (
            any(_is_leaf(item) for item in value.values())
            and all(type(name) is str for name in value)
            and not any(isinstance(item, dict) and item for item in value.values())
        )
    return verdicts[id(value)]


def _could_replace(other: Any, chosen: Any) -> bool:
    """Whether ``other`` would load in place of ``chosen``: modules always, mappings by names."""
    if isinstance(other, dict) and isinstance(chosen, dict):
        return {_bare(name) for name in other} == {_bare(name) for name in chosen}
    return True


def _bare(name: str) -> str:
    return re.sub(r"^(?:module\.|model\.|_orig_mod\.)+", "", name)


def _refuse_foreign_tensors(state: Mapping[Any, Any]) -> None:
    for name, value in state.items():
        if isinstance(value, Opaque) and value.qualified.startswith("torch._utils._rebuild"):
            raise InputError(
                f"its weight '{plain(str(name))}' is sparse, quantized or of a special kind; "
                "save dense float weights"
            )


def _checked(tensors: dict[str, Leaf], limits: Limits) -> dict[str, Leaf]:
    if not tensors:
        raise InputError("holds no weights; give a state dict, or a checkpoint with one")
    if len(tensors) > limits.tensors:
        raise UnsafeModelError(f"holds more than {limits.tensors:,} tensors; save weights alone")
    total = sum(
        leaf.numel if isinstance(leaf, LazyTensor) else leaf.numel() for leaf in tensors.values()
    )
    if total > limits.parameters:
        raise UnsafeModelError(f"holds {total:,} numbers; the limit is {limits.parameters:,}")
    for name in tensors:
        if len(name) > MAX_NAME_LENGTH:
            raise UnsafeModelError(f"a tensor's name has {len(name):,} characters; save it again")
    return tensors


class _Flattener:
    """Names the tensors of a pickled module as ``nn.Module.state_dict`` does."""

    def __init__(self, limits: Limits) -> None:
        self.tensors: dict[str, Leaf] = {}
        self.modules: set[str] = set()
        self._limits = limits
        self._visits = 0

    def add(self, module: Opaque, prefix: str, depth: int) -> None:
        self._visits += 1
        if (
            depth > self._limits.nesting
            or self._visits > self._limits.tensors
            or len(prefix) > MAX_NAME_LENGTH
        ):
            raise UnsafeModelError(
                "its modules contain each other without end; save the state dict"
            )
        self.modules.add(module.qualified)
        fields = _fields(module)
        transient = _strings(fields.get("_non_persistent_buffers_set"))
        for kind in ("_parameters", "_buffers"):
            members = fields.get(kind)
            if not isinstance(members, dict):
                continue
            _refuse_foreign_tensors(members)
            for name, leaf in members.items():
                if _is_named_tensor(name, leaf) and (
                    kind == "_parameters" or name not in transient
                ):
                    self.tensors[prefix + name] = leaf
        if len(self.tensors) > self._limits.tensors:
            raise UnsafeModelError(f"holds more than {self._limits.tensors:,} tensors")
        for name, child in fields["_modules"].items():
            if type(name) is str and _is_module(child):
                self.add(child, f"{prefix}{name}.", depth + 1)


def _strings(value: Any) -> frozenset[str]:
    """The strings of a pickled set; protocols below 4 call ``builtins.set`` with a list."""
    if isinstance(value, Opaque) and value.qualified == "builtins.set" and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, (list, set, frozenset)):
        return frozenset()
    return frozenset(item for item in value if type(item) is str)
