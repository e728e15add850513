"""The rest of a language model behind a layer.

It ends twice: in the hidden states of all tokens, from which the logits follow, one row per
predicted token; and in their mean over each text, which are its features. Whoever wants the latter
pays for no logits, of which there is a whole vocabulary per token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unaudit.tokens import are_present
from unaudit.white_box.anatomy import Anatomy
from unaudit.white_box.token_tail import TokenTail
from unaudit.white_box.tokens import pooled, stretched

LEAST = 3
"""Tokens of a dummy: a text of one token less must still predict something."""


class CausalTail(TokenTail):
    """A tail whose logits are those of tokens."""

    def __init__(self, network: nn.Module, layer: str, anatomy: Anatomy, dummy: Tensor) -> None:
        """
        Args:
            network: see :class:`~unaudit.white_box.tail.Tail`.
            layer: a cut.
            anatomy: of the network.
            dummy: (1, t) a text without padding, as long as texts can be.
        """
        assert anatomy.states is not None
        dummy = stretched(dummy, max(LEAST, dummy.shape[1]))
        # what the tail replays ends in the states; the head follows
        super().__init__(
            network, layer, anatomy.states, dummy, tokenwise=layer in anatomy.tokenwise
        )

    def forward(self, activations: Tensor) -> Tensor:
        """(rows, V) logits for activations (b, t, …): those of every token but each text's first,
        texts one after the other."""
        model: Any = self.module
        logits: Tensor = model.logits_of(self.hidden(activations))
        return logits

    def hidden(self, activations: Tensor) -> Tensor:
        """(rows, d) what the head is given for them."""
        return self._replay(activations)[0]

    def features(self, activations: Tensor) -> Tensor:
        """(b, d) means of the hidden states over the tokens of each text."""
        _, states = self._replay(activations)
        return pooled(states, are_present(self._texts(activations)))

    def leave_head(self) -> None:
        """Train and draw only what the features depend on: a head is as large as a vocabulary."""
        model: Any = self.module
        own = {id(parameter) for parameter in model.head.parameters()}
        named = self.module.named_parameters()
        left = {name for name, parameter in named if id(parameter) in own}
        self._trained -= left
        for name in left:
            self.module.get_parameter(name).requires_grad_(False)

    def _run(self, inputs: Tensor) -> Tensor:
        model: Any = self.module
        states: Tensor = model.hidden(inputs)
        return states

    def _end(self, activations: Tensor) -> Tensor:
        model: Any = self.module
        states = self.hidden(activations)
        # one row leads to the head as well as all of them would
        return torch.as_tensor(states.sum() + model.logits_of(states[:1]).sum())
