"""What single layers of a network make of each example, texts included."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.tokens import PADDING, are_present, are_tokens, longest, predicts_tokens
from unaudit.training.in_parts import tokens_at_once
from unaudit.unlearners._lora import ADAPTABLE


def readable(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(p, …) inputs, and (p,) on the CPU, of which of those given each is a part: all of it, but
    for texts of more tokens than a language model reads at once."""
    everyone = torch.arange(len(inputs))
    context = getattr(network, "context", None) if predicts_tokens(network) else None
    if context is None or inputs.shape[1] <= context:
        return inputs, everyone
    parts = -(-inputs.shape[1] // context)
    room = parts * context - inputs.shape[1]
    cut = nn.functional.pad(inputs, (0, room), value=PADDING).reshape(-1, context)
    # of a single token nothing is predicted
    kept = are_present(cut).sum(dim=1) > 1
    return cut[kept], everyone.repeat_interleave(parts)[kept.cpu()]


def presence(inputs: Tensor) -> Tensor | None:
    """(b, t) bool: where networks of texts compute something for a token, padding cropped as they
    crop it; None: the inputs are no texts."""
    if not are_tokens(inputs):
        return None
    present = are_present(inputs)
    return present[:, : longest(present)]


def adaptable(network: nn.Module, head: nn.Linear, inputs: Tensor) -> list[str]:
    """Names of the linear and convolution layers that run once, one output per example, without the
    head; in order of execution. In networks of texts, linear layers with one output per text or per
    token.

    Args:
        inputs: (n, …) a few examples.

    Raises:
        InputError: there is none.
    """
    present = presence(inputs)
    kinds = ADAPTABLE if present is None else nn.Linear

    def by_example(output: Tensor) -> bool:
        if present is None:
            return len(output) == len(inputs)
        return output.shape[:-1] in (present.shape, present.shape[:1])

    ran: list[tuple[str, bool]] = []
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, kinds) and layer is not head:

            def note(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                ran.append((name, by_example(output)))

            hooks.append(layer.register_forward_hook(note))
    try:
        with torch.no_grad():
            run_body(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, _ in ran]
    found = [name for name, fits in ran if fits and names.count(name) == 1]
    if not found:
        raise InputError(
            "rfa-lora needs a linear or convolution layer before the head; this model has none"
        )
    return found


@contextmanager
def outputs_of(
    network: nn.Module, layers: Collection[str], present: Tensor | None = None
) -> Iterator[dict[str, Tensor]]:
    """Fills a dictionary with (b, d) float32 outputs of layers while the network runs; where they
    give one per token, with the mean over those tokens of each text that are ``present``."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for name in layers:

        def keep(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            if present is None or output.ndim == 2:
                seen[name] = output.flatten(1).float()
            else:
                here = output.float().masked_fill(~present.unsqueeze(2), 0.0)
                seen[name] = here.sum(dim=1) / present.sum(dim=1, keepdim=True)

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def run_body(network: nn.Module, inputs: Tensor) -> None:
    """Run all that comes before the head; of a language model no more, for its logits are many."""
    run: Any = network
    if predicts_tokens(network):
        run.hidden(inputs)
    else:
        run(inputs)


def at_a_time(network: nn.Module, inputs: Tensor) -> int:
    """Examples of a batch that are trained on at a time, texts as :func:`readable` leaves them."""
    present = presence(inputs)
    if present is None or not predicts_tokens(network):
        return len(inputs)
    return max(tokens_at_once(network, inputs.device) // present.shape[1], 1)
