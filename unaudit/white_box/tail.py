"""The rest of a network behind a layer, fed with cached activations.

The network's own code runs, so any architecture will do. What comes before the cut is given one
dummy example, and every module there answers at once with what it gave for that example before:
the prefix costs next to nothing. At the cut the layer's output is replaced by the activations.
Plain sequences of modules are simply entered in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.training import initialize_layer
from unaudit.white_box.anatomy import FEATURES
from unaudit.white_box.trace import Call, Trace, trace, with_main_tensor


class Tail(nn.Module):
    """From activations at a layer to logits, in eval mode at first.

    ``train()`` and ``eval()`` switch what lies behind the cut. In train mode batch normalization
    behind the cut uses the statistics of the batch and updates its running ones, and dropout is
    active, as in ordinary training. What lies before the cut stays in eval mode; it computes
    nothing that reaches the logits.
    """

    def __init__(self, network: nn.Module, layer: str, head: str, dummy: Tensor) -> None:
        """
        Args:
            network: a private copy in eval mode; it is changed by training the tail.
            layer: a cut, or :data:`FEATURES` for the head alone.
            head: name of the head.
            dummy: (1, …) an input, on the network's device.
        """
        super().__init__()
        self.module = network
        """The whole network; before the cut its parameters are frozen."""
        self.layer = layer
        self.batched = False
        """Whether the dummy is repeated to the batch's size, for code that reads the batch's size
        off the network's input and needs it behind the cut."""
        self._head = head
        self._dummy = dummy
        with torch.no_grad():
            seen = self._watch(dummy)
        call = seen.calls[head if layer == FEATURES else layer][0]
        end = call.start if layer == FEATURES else call.end
        self._output = call.output
        self._before = _names(seen, lambda run: run.end < call.start)
        self._behind = frozenset(seen.calls) - _names(seen, lambda run: run.start < end)
        self._prefix = [
            (network.get_submodule(name), seen.calls[name][0].output)
            for name in _largest(seen, self._before)
        ]
        self._chain = _sequence(network, head if layer == FEATURES else layer, layer == FEATURES)
        self._trained = frozenset(name for name, _ in network.named_parameters())
        self.eval()

    def forward(self, activations: Tensor) -> Tensor:
        """Logits (b, C) for activations (b, …), differentiable; the argument is not changed."""
        return self._replay(activations)[0]

    def features(self, activations: Tensor) -> Tensor:
        """What the head is given, (b, d), instead of the logits."""
        return self._replay(activations)[1].flatten(1)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters behind the cut only, and so with ``parameters()``."""
        start = f"{prefix}." if prefix else ""
        if recurse:
            for name, parameter in self.module.named_parameters(remove_duplicate=remove_duplicate):
                if name in self._trained:
                    yield f"{start}module.{name}", parameter

    def train(self, mode: bool = True) -> Tail:
        """Set the mode of what lies behind the cut."""
        super().train(mode)
        for name in self._before:
            self.module.get_submodule(name).eval()
        return self

    def reinitialize(self, generator: torch.Generator) -> None:
        """Draw every weight behind the cut anew; before it, everything stays bit for bit.

        Layers are drawn by :func:`unaudit.training.initialize`. Weights of any other module (class
        tokens, position tables, layer scales) are shuffled: how they are distributed stays, what
        they say is gone.

        Args:
            generator: on the CPU, so that every device gets the same weights.
        """
        for name, layer in self.module.named_modules():
            own = [key for key, _ in layer.named_parameters(name, recurse=False)]
            # a layer without weights may still keep running statistics
            if self._trained.intersection(own) or (not own and name in self._behind):
                layer.to("cpu")
                try:
                    initialize_layer(layer, generator)
                except InputError:
                    _shuffle(layer, generator)
                layer.to(self._dummy.device)

    def _watch(self, inputs: Tensor) -> Trace:
        """What the network does with inputs, up to where the tail ends."""
        return trace(self.module, inputs, self._run)

    def _run(self, inputs: Tensor) -> Tensor:
        """The network up to where the tail ends."""
        logits: Tensor = self.module(inputs)
        return logits

    def _replay(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and what the head was given."""
        given: list[Tensor] = []
        head = self.module.get_submodule(self._head)
        # a copy: code behind the cut may change it in place
        value = activations if self.layer == FEATURES else activations.clone()
        if self._chain is not None:
            for module in self._chain:
                if module is head:
                    given.append(value)
                value = module(value)
            return value, given[-1]
        size = len(activations) if self.batched else 1
        with self._standing_in(value, size, head, given):
            logits = self._run(self._dummy.expand(size, *self._dummy.shape[1:]))
        return logits, given[-1]

    @contextmanager
    def _standing_in(
        self, value: Tensor, size: int, head: nn.Module, given: list[Tensor]
    ) -> Iterator[None]:
        """Let the prefix answer at once, and the cut with ``value``."""
        stand_ins: dict[nn.Module, Callable[..., Any]] = {
            module: partial(_answer, output, size) for module, output in self._prefix
        }
        run_head = head.forward

        def hear(features: Tensor) -> Any:
            given.append(value if self.layer == FEATURES else features)
            return run_head(given[-1])

        stand_ins[head] = hear
        if self.layer != FEATURES:
            output = with_main_tensor(self._output, value)
            stand_ins[self.module.get_submodule(self.layer)] = lambda *_, **__: output
        own = {module: module.__dict__.get("forward") for module in stand_ins}
        for module, stand_in in stand_ins.items():
            module.__dict__["forward"] = stand_in
        try:
            yield
        finally:
            for module, forward in own.items():
                del module.__dict__["forward"]
                if forward is not None:
                    module.__dict__["forward"] = forward

    def restrict(self, activations: Tensor) -> None:
        """Keep those parameters trainable that the logits depend on through the cut.

        Raises:
            InputError: there are none.
        """
        named = dict(self.module.named_parameters())
        for parameter in named.values():
            parameter.requires_grad_(True)
        with torch.enable_grad():
            end = self._end(activations)
            gradients = (
                torch.autograd.grad(end, list(named.values()), allow_unused=True)
                if end.requires_grad
                else [None] * len(named)
            )
        reached = zip(named, gradients, strict=True)
        self._trained = frozenset(name for name, gradient in reached if gradient is not None)
        for name, parameter in named.items():
            parameter.requires_grad_(name in self._trained)
        if not self._trained:
            raise InputError(f"no gradients reach what is behind '{self.layer}'")

    def _end(self, activations: Tensor) -> Tensor:
        """A number to which everything behind the cut leads."""
        return torch.as_tensor(self(activations).sum())


def _names(seen: Trace, condition: Callable[[Call], bool]) -> frozenset[str]:
    """Modules of whose runs each meets a condition."""
    return frozenset(name for name, runs in seen.calls.items() if all(map(condition, runs)))


def _largest(seen: Trace, names: frozenset[str]) -> list[str]:
    """Those that can answer with what they gave before, without those inside another."""
    able = [name for name in names if (run := seen.once(name)) and _is_plain(run.output)]
    return [name for name in able if not any(name.startswith(f"{other}.") for other in able)]


def _shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    for weight in layer.parameters(recurse=False):
        order = torch.randperm(weight.numel(), generator=generator)
        with torch.no_grad():
            weight.copy_(weight.flatten()[order].view_as(weight))


def _sequence(network: nn.Module, start: str, inclusive: bool) -> list[nn.Module] | None:
    """The modules behind (or from) ``start``, if the network is a plain sequence of modules."""
    if type(network) is not nn.Sequential:
        return None
    steps = list(_steps("", network))
    found = [
        at for at, (name, _) in enumerate(steps) if name == start or name.startswith(f"{start}.")
    ]
    if not found:
        return None
    return [module for _, module in steps[found[0] if inclusive else found[-1] + 1 :]]


def _steps(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for key, inner in module._modules.items():
        if inner is not None:
            yield from _steps(f"{name}.{key}" if name else key, inner)


def _is_plain(output: Any) -> bool:
    if type(output) in (tuple, list):
        return all(_is_plain(item) for item in output)
    return output is None or isinstance(output, Tensor)


def _answer(output: Any, size: int, *_: Any, **__: Any) -> Any:
    """A fresh copy of what a module gave for one example, repeated for ``size``."""
    if isinstance(output, Tensor):
        if size > 1 and output.ndim and len(output) == 1:
            output = output.expand(size, *output.shape[1:])
        return output.clone()
    return None if output is None else type(output)(_answer(item, size) for item in output)
