"""Whether the networks of an architecture can be stacked, found out by stacking two."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unaudit.engine.threads import WORTH_SHARING, threads_for
from unaudit.tokens import predicts_tokens, truth
from unaudit.training._dense import DenseStack, takes
from unaudit.training._stack import Problem, Stack
from unaudit.training._vmapped import VmappedStack
from unaudit.training.draws import unnoticed
from unaudit.training.in_parts import batch_loss
from unaudit.training.initialize import initialize

TOLERANCE = {"float32": 1e-3, "bf16": 5e-2}
"""Relative error of the gradients beyond which a stacked network is not the network itself."""
MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Tensors that an optimizer keeps for each weight."""


@dataclass(frozen=True, eq=False)
class Stacking:
    """How networks of one architecture are stacked."""

    make: Callable[[Sequence[nn.Module]], Stack]
    """From networks in train mode."""
    smallest: int
    """Members from which a stack can gain anything."""
    mixes: bool
    """Whether what a network makes of an example depends on the others of its batch (batch
    normalization): then short batches must not be filled up."""
    sure: bool = False
    """Whether a stack does what the loop does with less around it, so cannot be slower."""


@dataclass(frozen=True)
class NotStackable:
    """Networks that must be trained one by one."""

    reason: str


@dataclass(frozen=True)
class Footprint:
    """What training one network takes."""

    bytes: int
    """Working memory, in a stack."""
    elements: int
    """Of the largest tensor of a step."""


def footprint(build: Callable[[], nn.Module], problem: Problem, rows: Tensor) -> Footprint:
    """Measure a forward pass.

    Args:
        build: makes a network of the architecture.
        problem: which will be learned.
        rows: (b,) a batch of it.
    """
    module = fresh(build, problem.inputs.device, torch.Generator().manual_seed(0)).train()
    own = {weight.data_ptr() for weight in module.parameters()}
    kept, largest = 0, 0

    def keep(tensor: Tensor) -> Tensor:
        # not the tensors themselves: of long texts they are never there together
        nonlocal kept, largest
        if tensor.data_ptr() not in own:
            kept += _bytes([tensor])
            largest = max(largest, tensor.numel())
        return tensor

    with (
        threads_for(0),
        unnoticed(problem.inputs.device),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        _loss(module, problem.inputs[rows], problem.targets[rows], problem)
    # what the backward pass keeps and as much that it makes of it; weights, gradients, moments
    total = 2 * kept + (2 + MOMENTS[problem.recipe.kind]) * _bytes(module.parameters())
    return Footprint(total, largest)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def examine(
    build: Callable[[], nn.Module], problem: Problem, rows: Tensor, size: Footprint
) -> Stacking | NotStackable:
    """Find out how networks are stacked.

    Networks that are not known to be fully connected are tried: two stacked take one step without
    an update, which must have the losses, gradients and buffers of each alone.

    Args:
        build: makes a network of the architecture.
        problem: which will be learned.
        rows: (b,) a batch of it.
        size: of such a network.
    """
    inputs, targets = problem.inputs, problem.targets
    labels = targets.ndim == 1 and targets.dtype == torch.int64
    if not labels and not (targets.ndim == 2 and targets.is_floating_point()):
        return NotStackable("its targets are neither labels nor probabilities")
    generator = torch.Generator().manual_seed(0)
    pair = [fresh(build, inputs.device, generator) for _ in range(2)]
    if predicts_tokens(pair[0]):
        return NotStackable("its texts differ in how many tokens there are to predict")
    if labels and problem.recipe.precision == "float32" and takes(pair[0], inputs):
        # a loop would share the work of larger steps among threads
        small = size.elements < WORTH_SHARING
        return Stacking(make=DenseStack, smallest=1, mixes=False, sure=small)
    with unnoticed(inputs.device), threads_for(2 * size.elements):
        try:
            _compare(pair, problem, rows)
        except _DiffersError as error:
            return NotStackable(str(error))
        mixes = _mixes(pair[0], inputs[rows])
    return Stacking(lambda modules: VmappedStack(modules, problem.recipe), smallest=2, mixes=mixes)


def fresh(
    build: Callable[[], nn.Module],
    device: torch.device,
    generator: torch.Generator,
    base: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A network with fresh weights, drawn from ``generator``, on ``device``; or those of ``base``,
    see :func:`unaudit.training.initialize`."""
    # constructors draw from the global generator what is drawn anew here; nobody must notice
    with torch.random.fork_rng(devices=[]):
        module = build()
    return initialize(module, generator, base).to(device)


class _DiffersError(Exception):
    """A stack is not its networks; the message says why."""


def _compare(pair: Sequence[nn.Module], problem: Problem, rows: Tensor) -> None:
    """Let networks take a step alone and stacked.

    Raises:
        _DiffersError: stacked, they fail, or do something else.
    """
    inputs, targets = problem.inputs[rows], problem.targets[rows]
    alone = [copy.deepcopy(module).train() for module in pair]
    stacked = [copy.deepcopy(module).train() for module in pair]
    losses = [_loss(module, inputs, targets, problem) for module in alone]
    torch.stack(losses).sum().backward()
    try:
        found, gradients = _stacked_step(stacked, inputs, targets, problem)
    except Exception as error:  # whatever vmap or the network's own code raises
        line = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        if "random operation" in line:
            raise _DiffersError("it draws at random in its forward pass, like dropout") from None
        raise _DiffersError(f"it cannot be mapped over its weights ({line})") from None
    tolerance = TOLERANCE[problem.recipe.precision]
    for number, (one, other) in enumerate(zip(alone, stacked, strict=True)):
        same = (
            _close([losses[number]], [found[number]], tolerance)
            and _close([weight.grad for weight in one.parameters()], gradients[number], tolerance)
            and _close(list(one.buffers()), list(other.buffers()), tolerance)
        )
        if not same:
            raise _DiffersError("mapped over its weights, it computes something else")


def _loss(module: nn.Module, inputs: Tensor, targets: Tensor, problem: Problem) -> Tensor:
    with problem.recipe.autocast(inputs.device):
        told = truth(module, inputs, targets)
        return batch_loss(module, inputs, nn.functional.cross_entropy, told)


def _stacked_step(
    modules: Sequence[nn.Module], inputs: Tensor, targets: Tensor, problem: Problem
) -> tuple[Tensor, list[list[Tensor | None]]]:
    """Losses (m,) and, for each network, the gradients of its weights; buffers as they are now."""
    count, batch = len(modules), len(inputs)
    with warnings.catch_warnings():
        # vmap falls back to a loop of its own, slower than ours
        warnings.filterwarnings("error", "There is a performance drop")
        stack = VmappedStack(modules, problem.recipe)
        losses = stack.backward(
            inputs.expand(count, *inputs.shape).contiguous(),
            targets.expand(count, *targets.shape).contiguous(),
            torch.full((count, batch), 1 / batch, device=inputs.device),
        )
    gradients = [weight.grad for weight in stack.parameters]
    stack.unstack(modules)
    each = [[None if g is None else g[number] for g in gradients] for number in range(count)]
    return losses, each


def _close(
    wanted: Sequence[Tensor | None], found: Sequence[Tensor | None], tolerance: float
) -> bool:
    """Whether all numbers together agree: some, as before batch normalization, are all noise."""
    if [one is None for one in wanted] != [one is None for one in found]:
        return False
    one, other = _flat(wanted), _flat(found)
    return bool((one - other).norm() <= tolerance * one.norm())


def _flat(tensors: Sequence[Tensor | None]) -> Tensor:
    known = [tensor.flatten().double() for tensor in tensors if tensor is not None]
    return torch.cat(known) if known else torch.zeros(())


def _mixes(module: nn.Module, inputs: Tensor) -> bool:
    """Whether other neighbors in the batch change an example's outputs, or what is remembered."""
    half = len(inputs) // 2
    if half == 0:
        return True
    one, other = copy.deepcopy(module).train(), copy.deepcopy(module).train()
    neighbors = inputs[:1].expand(len(inputs) - half, *inputs.shape[1:])
    with torch.no_grad():
        outputs = one(inputs)[:half]
        others = other(torch.cat([inputs[:half], neighbors]))[:half]
    tolerance = TOLERANCE["float32"]
    return not (
        _close([outputs], [others], tolerance)
        and _close(list(one.buffers()), list(other.buffers()), tolerance)
    )
