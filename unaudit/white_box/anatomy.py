"""Which parts of a network can be looked at and cut: its blocks, its features, its head.

Found from one forward pass, so the order is that of execution and names work for any network. A
*cut* is a module through whose output everything passes that the logits owe to the input; a layer
inside a residual branch is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.registry import did_you_mean
from unaudit.text import listed, plain
from unaudit.tokens import are_tokens, predicts_tokens
from unaudit.white_box.blocks import find_blocks
from unaudit.white_box.tokens import by_token, filled, first_window, stretched, trace_tokens
from unaudit.white_box.trace import Trace, on_every_path, trace

FEATURES = "features"
"""The penultimate features: what the head is given, one row per example. A language model's head is
given one row per token; its features are the mean over the tokens of a text."""
STATES = "states"
"""Name of the module through which the last hidden states of a language model pass."""

EXAMPLES = 3
"""Examples that a network is examined on: more than one, so that the batch axis can be told."""
TOKENS = 8
"""Length of the texts that a language model is examined on; each token costs logits of a whole
vocabulary, and more of them show nothing new."""
TOLERANCE = 1e-4
"""How far a head's output may be from the logits, relative to the largest."""


@dataclass(frozen=True)
class Head:
    """The last linear layer: logits = features · weightᵀ + bias, up to a constant per example."""

    name: str
    weight: npt.NDArray[np.float32]
    """(n_classes, d)."""
    bias: npt.NDArray[np.float32]
    """(n_classes,); zeros where the layer has none."""


@dataclass(frozen=True)
class Anatomy:
    """What can be asked of a network."""

    layers: tuple[str, ...]
    """Outputs of its blocks from input to output, without the features and the head."""
    head: str
    shapes: Mapping[str, tuple[int, ...]]
    """Of one example's output, for :data:`FEATURES` and every module that can be recorded."""
    cuts: frozenset[str]
    """Modules behind which the rest of the network can run on its own."""
    ran: Mapping[str, int]
    """How often each module ran in one forward pass."""
    tokenwise: frozenset[str] = frozenset()
    """In networks of texts, modules that give one row per token."""
    states: str | None = None
    """In language models, the module that gives the last hidden states, one row per token."""

    def shape(self, layer: str) -> tuple[int, ...]:
        """Of one example at ``layer``.

        Raises:
            InputError: no such layer, or it cannot be recorded.
        """
        if layer in self.shapes:
            return self.shapes[layer]
        raise InputError(
            f"layer '{plain(layer)}' cannot be looked at: {self._fault(layer)}"
            f"{did_you_mean(layer, self.layers) or '; it has features only'}"
        )

    def check_cut(self, layer: str) -> None:
        """Refuse a layer that information passes around.

        Raises:
            InputError: names the layers that are cuts.
        """
        self.shape(layer)
        if layer == FEATURES and self.states is not None:
            raise InputError(
                "the network cannot be cut at 'features': those of a language model are means over "
                f"the tokens of a text, and nothing follows from them; {self._choice()}"
            )
        if layer != FEATURES and layer not in self.cuts:
            raise InputError(
                f"the network cannot be cut at '{plain(layer)}': information passes around it; "
                f"{self._choice()}"
            )

    def _choice(self) -> str:
        names = self.layers if self.states is not None else (*self.layers, FEATURES)
        return f"choose one of {listed(names, most=20)}" if names else "it has no layers"

    def _fault(self, layer: str) -> str:
        times = self.ran.get(layer)
        if times is None:
            return "the network has no module of that name that runs"
        return f"it runs {times} times" if times > 1 else "it returns no single tensor per example"


def examine(
    network: nn.Module,
    inputs: Tensor,
    *,
    layers: tuple[str, ...] | None = None,
    head: str | None = None,
) -> Anatomy:
    """Find blocks, features and head by running ``network``, which must be in eval mode.

    Args:
        network: not changed.
        inputs: (≥ 1, …) real examples, on the network's device; texts padded as all others are.
        layers: names of modules to take as blocks, in any order; default: found.
        head: name of the linear layer to take as head; default: the last whose output is the
            logits.

    Raises:
        InputError: no linear layer gives the logits, or a name does not fit the network.
    """
    inputs = first_window(network, inputs)
    repeats = -(-EXAMPLES // len(inputs))
    leaf = inputs.repeat(repeats, *[1] * (inputs.ndim - 1))[:EXAMPLES].clone()
    causal = predicts_tokens(network)
    texts = None
    if are_tokens(leaf):
        texts = filled(leaf)
        if causal:
            texts = first_window(network, stretched(texts, TOKENS))
        seen, leaf = trace_tokens(network, texts)
    else:
        with torch.enable_grad():
            seen = trace(network, leaf.requires_grad_())
    root = seen.calls[""][0]
    separates = on_every_path(root.port, leaf) if root.port is not None else lambda _: False
    once = {name: runs[0] for name, runs in seen.calls.items() if name and len(runs) == 1}
    shapes = {
        name: call.shape[1:]
        for name, call in once.items()
        if call.shape is not None and call.shape[:1] == (EXAMPLES,)
    }
    tokenwise: frozenset[str] = frozenset()
    if texts is not None:
        shapes, tokenwise = by_token(network, texts, shapes)
        shapes |= {layer: (inputs.shape[1], *shapes[layer][1:]) for layer in tokenwise}
    if head is not None:
        name = _check_head(network, seen, head)
    else:
        name = _own_head(network, seen) if causal else _find_head(network, seen)
    shapes[FEATURES] = (_width_of_states(seen) if causal else seen.inputs[name][0][0].numel(),)
    start = once[name].start
    cuts = frozenset(
        layer
        for layer in shapes
        if layer != FEATURES
        and once[layer].end < start
        and not once[layer].passed_on
        and separates(once[layer].port)
    )
    found = Anatomy(
        layers=find_blocks(network, seen, cuts, name, shapes[FEATURES][0], tokenwise),
        head=name,
        shapes=shapes,
        cuts=cuts,
        ran={layer: len(runs) for layer, runs in seen.calls.items() if layer},
        tokenwise=tokenwise,
        states=STATES if causal else None,
    )
    if layers is None:
        return found
    wanted = set(layers) - {FEATURES}
    for layer in layers:
        if layer in wanted:
            found.check_cut(layer)
    chosen = sorted(wanted, key=lambda layer: once[layer].end)
    return replace(found, layers=tuple(chosen))


def read_head(network: nn.Module, name: str) -> Head:
    """Copies of the head's weights."""
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.detach().to("cpu", torch.float32, copy=True).numpy()
    bias = np.zeros(len(weight), dtype=np.float32)
    if layer.bias is not None:
        bias = layer.bias.detach().to("cpu", torch.float32, copy=True).numpy()
    return Head(name, weight, bias)


def _find_head(network: nn.Module, seen: Trace) -> str:
    """The last linear layer whose output is the logits, by value."""
    logits = seen.calls[""][0].output
    found: list[tuple[int, str]] = [
        (call.end, name)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and (call := seen.once(name)) is not None
        and seen.inputs[name]
        and _same_logits(call.output, logits)
    ]
    if not found:
        raise InputError(
            "no linear layer gives the logits, so white-box probes do not know the features; "
            "set policy.access = 'black-box'"
        )
    _, name = max(found)
    return name


def _own_head(network: nn.Module, seen: Trace) -> str:
    """The linear layer that a language model calls its head."""
    own: object = getattr(network, "head", None)
    for name, module in network.named_modules():
        if module is own and isinstance(module, nn.Linear) and seen.once(name) is not None:
            return str(name)
    raise InputError(
        "the head of this language model is no linear layer that runs once, so white-box probes do "
        "not know the features; set policy.access = 'black-box'"
    )


def _width_of_states(seen: Trace) -> int:
    call = seen.once(STATES)
    if call is None or call.shape is None or len(call.shape) != 3:
        raise InputError(
            f"no module of this language model called '{STATES}' gives one row per token, so "
            "white-box probes do not know the features; set policy.access = 'black-box'"
        )
    return call.shape[2]


def _check_head(network: nn.Module, seen: Trace, name: str) -> str:
    linear = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if name not in linear:
        raise InputError(f"no linear layer is called '{plain(name)}'{did_you_mean(name, linear)}")
    call, logits = seen.once(name), seen.calls[""][0]
    if call is None or call.shape != logits.shape or not seen.inputs[name]:
        raise InputError(
            f"linear layer '{plain(name)}' cannot be the head: it does not give one row of "
            f"{0 if logits.shape is None else logits.shape[-1]} logits per example"
        )
    return name


def _same_logits(output: Tensor, logits: Tensor) -> bool:
    """Equal up to a constant per example, which is what a log-softmax at the end adds."""
    if output.shape != logits.shape:
        return False
    centered = output - output.mean(dim=1, keepdim=True)
    wanted = logits - logits.mean(dim=1, keepdim=True)
    return bool((centered - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
