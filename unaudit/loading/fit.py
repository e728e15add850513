"""Weights into a network: every key, every shape, every number."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from unaudit.errors import InputError
from unaudit.text import listed, plain

PREFIXES = ("module.", "model.", "_orig_mod.")
"""Added by DataParallel, by training wrappers and by torch.compile."""
_CHECK = "check --arch"


@dataclass(frozen=True)
class Fitted:
    """How the weights went in."""

    parameters: int
    """Numbers in trainable tensors, shared ones counted once."""
    notes: tuple[str, ...]


def fit(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Fitted:
    """Load ``tensors`` into ``network``, all of them and nothing else.

    Raises:
        InputError: keys are missing, unexpected or of another shape; numbers are not finite or not
            of a kind that a network computes with.
    """
    wanted = _wanted(network)
    prefix, named = _strip(tensors, wanted)
    _check_keys(wanted, named)
    converted = {key: _convert(key, tensor, wanted[key]) for key, tensor in named.items()}
    _check_tied(wanted, converted)
    _check_finite(converted)
    try:
        network.load_state_dict(
            converted, strict=False
        )  # strictness was checked above, tied keys too
    except Exception as error:  # hooks of a network may object in any way
        raise InputError(f"does not load: {plain(str(error), 160)}; {_CHECK}") from None
    notes = [f"prefix '{prefix}' removed from its keys"] if prefix else []
    kinds = {
        str(t.dtype).removeprefix("torch.") for k, t in named.items() if _widened(t, wanted[k])
    }
    notes += [f"{kind} weights converted to float32" for kind in sorted(kinds)]
    return Fitted(sum(parameter.numel() for parameter in network.parameters()), tuple(notes))


def digest_of(network: nn.Module, *parts: str) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers, and ``parts``."""
    whole = hashlib.sha256()
    state = itertools.chain(
        network.named_parameters(remove_duplicate=False),
        network.named_buffers(remove_duplicate=False),
    )
    for name, tensor in sorted(state, key=lambda item: item[0]):
        _feed(whole, f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        _feed(whole, memoryview(flat.view(torch.uint8).numpy().data))
    for part in parts:
        _feed(whole, part.encode())
    return whole.hexdigest()


def _feed(whole: hashlib._Hash, data: bytes | memoryview) -> None:
    # The length in front: otherwise two different sequences of parts could join to the same bytes
    whole.update(len(data).to_bytes(8, "little"))
    whole.update(data)


def _wanted(network: nn.Module) -> dict[str, torch.Tensor]:
    """The live tensors of ``network`` by key; tied keys share one object."""
    state = network.state_dict(keep_vars=True)
    wanted = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if any(is_lazy(value) for value in wanted.values()):
        raise InputError("--arch has lazy layers without a shape; run an example through it first")
    return wanted


def _strip(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> tuple[str, dict[str, torch.Tensor]]:
    """Take off the prefix that makes the most keys fit; none where that does not help."""
    candidates = [
        "".join(parts) for n in range(4) for parts in itertools.product(PREFIXES, repeat=n)
    ]

    def fitting(prefix: str) -> int:
        if not all(key.startswith(prefix) for key in tensors):
            return 0
        return sum(key[len(prefix) :] in wanted for key in tensors)

    # max takes the first of equals, and no prefix comes first
    best = max(candidates, key=fitting)
    if not fitting(best):
        best = ""
    return best, {key[len(best) :]: tensor for key, tensor in tensors.items()}


def _check_keys(wanted: Mapping[str, torch.Tensor], named: Mapping[str, torch.Tensor]) -> None:
    provided = {id(wanted[key]) for key in named if key in wanted}
    missing = [
        key for key, value in wanted.items() if key not in named and id(value) not in provided
    ]
    unexpected = [key for key in named if key not in wanted]
    shaped = {
        key: (tuple(tensor.shape), tuple(wanted[key].shape))
        for key, tensor in named.items()
        if key in wanted and tensor.shape != wanted[key].shape
    }
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing ({listed(missing)})")
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected ({listed(unexpected)})")
    if shaped:
        key, (has, needs) = next(iter(shaped.items()))
        first = f"'{plain(key)}' is {plain(str(has))}, --arch needs {needs}"
        more = f" and {len(shaped) - 1} more" if len(shaped) > 1 else ""
        faults.append(f"{len(shaped)} of another shape ({first}{more})")
    if faults:
        remedy = _CHECK if missing or unexpected else _remedy(shaped.values())
        raise InputError(f"its weights do not fit --arch: {'; '.join(faults)}; {remedy}")


def _remedy(shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """Only the outputs of the last layer differ: the class count is wrong."""
    counts = {
        (has[0], needs[0]) if has[1:] == needs[1:] and has and needs else None
        for has, needs in shapes
    }
    pair = next(iter(counts)) if len(counts) == 1 else None
    if pair is None:
        return _CHECK
    return (
        f"it looks like a model of {pair[0]} classes, not {pair[1]}: "
        f"set num_classes={pair[0]} (or the last width) in --arch"
    )


def _widened(tensor: torch.Tensor, target: torch.Tensor) -> bool:
    return (
        tensor.dtype != target.dtype and tensor.is_floating_point() and target.is_floating_point()
    )


def _convert(key: str, tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``tensor`` in the dtype of ``target``, where that loses no meaning."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise InputError(
            f"its weight '{plain(key)}' is sparse or quantized; save dense float weights"
        )
    if target.is_complex() != tensor.is_complex():
        raise InputError(
            f"its weight '{plain(key)}' is {kind}, --arch needs {target.dtype}; {_CHECK}"
        )
    if target.is_floating_point() and not tensor.is_floating_point():
        raise InputError(
            f"its weight '{plain(key)}' is {kind} (quantized?); save the float weights instead"
        )
    try:
        converted = tensor.to(target.dtype)
        lossless = target.is_floating_point() or bool((converted.to(tensor.dtype) == tensor).all())
    except RuntimeError:  # packed dtypes that torch cannot convert
        raise InputError(f"its weight '{plain(key)}' is {kind}; save it as float32") from None
    if not lossless:
        raise InputError(
            f"its buffer '{plain(key)}' holds {kind} where whole numbers belong; {_CHECK}"
        )
    return converted


def _check_tied(wanted: Mapping[str, torch.Tensor], named: Mapping[str, torch.Tensor]) -> None:
    first: dict[int, str] = {}
    for key, tensor in named.items():
        other = first.setdefault(id(wanted[key]), key)
        if other != key and not torch.equal(named[other], tensor):
            raise InputError(
                f"'{plain(other)}' and '{plain(key)}' are one weight in --arch but differ; {_CHECK}"
            )


def _check_finite(named: Mapping[str, torch.Tensor]) -> None:
    for key, tensor in named.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        bad = int(tensor.numel() - torch.isfinite(tensor).sum())
        if bad:
            raise InputError(
                f"its weight '{plain(key)}' holds {bad:,} NaN or infinite numbers; "
                "a diverged model cannot be audited"
            )
