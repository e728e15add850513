"""What a network did during one forward pass: which modules ran, in what order, on which path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

Port: TypeAlias = tuple[Any, int]
"""One output of one node of the autograd graph: a value, even after it was changed in place."""


@dataclass(frozen=True, eq=False)
class Call:
    """One run of a module."""

    start: int
    """When it was entered; entries and exits share one clock."""
    end: int
    output: Any
    """What it returned, detached; the values may since have been changed in place."""
    shape: tuple[int, ...] | None
    """Of its tensor output; None if it returns none, or several."""
    port: Port | None
    """Where its output stands in the autograd graph; None without gradients."""
    passed_on: bool
    """Whether it returned its input as it was, like a dropout layer in eval mode."""


@dataclass(frozen=True, eq=False)
class Trace:
    """One forward pass."""

    calls: Mapping[str, tuple[Call, ...]]
    """By module name, the network itself under ``""``; modules that did not run are left out."""
    inputs: Mapping[str, tuple[Any, ...]]
    """Positional arguments of each module's last run, detached."""

    def once(self, name: str) -> Call | None:
        """The call of a module that ran exactly once; None for every other."""
        calls = self.calls.get(name, ())
        return calls[0] if len(calls) == 1 else None


def trace(
    network: nn.Module, inputs: Tensor, run: Callable[[Tensor], object] | None = None
) -> Trace:
    """Run ``network`` on ``inputs`` as it is (mode, gradients) and write down every call.

    Args:
        network: whose modules are watched.
        inputs: (n, …).
        run: a part of the network to run; default: the network itself.
    """
    clock = iter(range(1 << 62))
    entered: dict[str, list[tuple[int, tuple[Port | None, ...]]]] = {}
    calls: dict[str, list[Call]] = {}
    arguments: dict[str, tuple[Any, ...]] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            ports = tuple(_port(value) for value in (*args, *kwargs.values()))
            entered.setdefault(name, []).append((next(clock), ports))
            arguments[name] = tuple(_detached(value) for value in args)

        def after(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            start, ports = entered[name].pop()
            tensor = main_tensor(output)
            port = _port(tensor)
            calls.setdefault(name, []).append(
                Call(
                    start=start,
                    end=next(clock),
                    output=_detached(output),
                    shape=None if tensor is None else tuple(tensor.shape),
                    port=port,
                    passed_on=port is not None and port in ports,
                )
            )

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))

    for name, module in network.named_modules():
        watch(name, module)
    try:
        # a copy: networks that change their input in place must not meet a leaf
        (run or network)(inputs.clone())
    finally:
        for handle in handles:
            handle.remove()
    return Trace({name: tuple(runs) for name, runs in calls.items()}, arguments)


def on_every_path(target: Port, inputs: Tensor) -> Callable[[Port | None], bool]:
    """Tells of a value whether everything that ``target`` owes to ``inputs`` went through it.

    Counts paths in the autograd graph: a value lies on every path from the inputs to the target if
    (paths from the inputs to it) × (paths from it to the target) is the number of all paths.

    Args:
        target: of the logits.
        inputs: a leaf that requires gradients.
    """
    order = _children_first(target[0])
    from_inputs: dict[Any, int] = {}
    for node in order:
        own = getattr(node, "variable", None) is inputs
        from_inputs[node] = int(own) + sum(from_inputs[child] for child, _ in _edges(node))
    to_target: dict[Port, int] = {target: 1}
    through: dict[Any, int] = {target[0]: 1}
    for node in reversed(order):
        for child, number in _edges(node):
            to_target[child, number] = to_target.get((child, number), 0) + through[node]
            through[child] = through.get(child, 0) + through[node]
    total = from_inputs[target[0]]

    def separates(port: Port | None) -> bool:
        if port is None or total == 0:
            return False
        return from_inputs.get(port[0], 0) * to_target.get(port, 0) == total

    return separates


def main_tensor(output: Any) -> Tensor | None:
    """The tensor that a module returns, also where it stands first in a tuple without others."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        others = output[1:]
        if not any(isinstance(other, (Tensor, tuple, list, dict)) for other in others):
            return output[0]
    return None


def with_main_tensor(output: Any, tensor: Tensor) -> Any:
    """``output`` with another main tensor."""
    return tensor if isinstance(output, Tensor) else (tensor, *output[1:])


@contextmanager
def listening(
    network: nn.Module,
    outputs: Mapping[str, Callable[[Tensor], None]],
    inputs: Mapping[str, Callable[[Tensor], None]],
) -> Iterator[None]:
    """Hand outputs and inputs of modules over as they pass; what is not copied at once may change.

    Args:
        network: whose modules are meant.
        outputs: by module name, who is given its output.
        inputs: by module name, who is given its first argument.
    """
    handles = []

    def hear_output(name: str, sink: Callable[[Tensor], None]) -> None:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            tensor = main_tensor(output)
            assert tensor is not None, name
            sink(tensor)

        handles.append(network.get_submodule(name).register_forward_hook(hook))

    def hear_input(name: str, sink: Callable[[Tensor], None]) -> None:
        def hook(_: nn.Module, args: Any) -> None:
            sink(args[0])

        handles.append(network.get_submodule(name).register_forward_pre_hook(hook))

    for name, sink in outputs.items():
        hear_output(name, sink)
    for name, sink in inputs.items():
        hear_input(name, sink)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _port(value: Any) -> Port | None:
    if not isinstance(value, Tensor) or value.grad_fn is None:
        return None
    return value.grad_fn, value.output_nr


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if type(value) in (tuple, list):
        return type(value)(_detached(item) for item in value)
    return value


def _edges(node: Any) -> list[Port]:
    return [(child, number) for child, number in node.next_functions if child is not None]


def _children_first(root: Any) -> list[Any]:
    """Every node of the graph behind ``root``, each after all that it was computed from."""
    order: list[Any] = []
    seen = {root}
    stack = [(root, iter(_edges(root)))]
    while stack:
        node, edges = stack[-1]
        for child, _ in edges:
            if child not in seen:
                seen.add(child)
                stack.append((child, iter(_edges(child))))
                break
        else:
            order.append(node)
            stack.pop()
    return order
