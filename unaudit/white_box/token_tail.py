"""The rest of a network of tokens behind a layer, for texts of any length.

What follows a layer must know where texts end, and activations do not carry the token ids. They
carry where there are tokens, though: padding is recorded as zeros (see :mod:`unaudit.white_box.
tokens`). So the network is fed dummy texts that end where the activations do, and makes its masks
of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unaudit.tokens import PADDING, longest
from unaudit.white_box.tail import Tail


class TokenTail(Tail):
    """A tail that ends each text where its activations do, and computes no further."""

    def __init__(
        self, network: nn.Module, layer: str, head: str, dummy: Tensor, *, tokenwise: bool
    ) -> None:
        """
        Args:
            network, layer, head: see :class:`Tail`.
            dummy: (1, t) a text without padding, as long as texts can be.
            tokenwise: whether the layer gives one row per token, (b, t, …), zeros for padding.
        """
        super().__init__(network, layer, head, dummy)
        self._tokenwise = tokenwise
        names = {module: name for name, module in network.named_modules()}
        with torch.no_grad():
            shorter = self._watch(dummy[:, : max(1, dummy.shape[1] - 1)])
        self._whole = [
            (module, output, shorter.calls[names[module]][0].output)
            for module, output in self._prefix
        ]

    def _replay(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        if self._chain is not None:
            return super()._replay(activations)
        ids = self._texts(activations)
        value = activations.clone()[:, : ids.shape[1]] if self._tokenwise else activations.clone()
        self._prefix = [
            (module, _shortened(output, other, ids.shape[1]))
            for module, output, other in self._whole
        ]
        given: list[Tensor] = []
        head = self.module.get_submodule(self._head)
        with self._standing_in(value, len(activations), head, given):
            logits = self._run(ids)
        return logits, given[-1]

    def _texts(self, activations: Tensor) -> Tensor:
        """(b, t) dummy texts that end where the activations do."""
        if not self._tokenwise:
            return self._dummy[:, :2].expand(len(activations), -1)
        present = (activations.detach() != 0).flatten(2).any(dim=2)
        length = longest(present)
        ids = self._dummy[:, :length].expand(len(activations), -1)
        return ids.masked_fill(~present[:, :length], PADDING)


def _shortened(output: Any, other: Any, length: int) -> Any:
    """What a module gave, cut to a length along those axes that are as long as texts are.

    Args:
        output: for the longest text.
        other: for a text that is shorter by one token; tells the axes.
        length: at most that of the longest text.
    """
    if isinstance(output, Tensor):
        for axis, (size, less) in enumerate(zip(output.shape, other.shape, strict=True)):
            if size != less:
                output = output.narrow(axis, 0, length)
        return output
    if output is None:
        return None
    pairs = zip(output, other, strict=True)
    return type(output)(_shortened(own, less, length) for own, less in pairs)
