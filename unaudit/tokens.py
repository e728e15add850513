"""Texts as networks are fed them: (b, t) token ids, one row per text, from its first token on."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

PADDING = -1
"""Stands where a text has ended; no token has this id."""


def are_tokens(inputs: Tensor) -> bool:
    """Whether inputs are token ids and not quantities: nothing can be added to them, and what they
    say is in which of them are equal."""
    return not inputs.is_floating_point()


def longest(present: Tensor) -> int:
    """Columns up to the end of the longest text; two at least, where there are two, since an axis
    of length 1 looks like that of a batch.

    Args:
        present: (b, t) bool, where there is a token.
    """
    try:
        return max(min(2, present.shape[1]), int(present.sum(dim=1).max()))
    except RuntimeError:  # under vmap no tensor says what it holds
        return present.shape[1]


def width_of(module: nn.Module | None) -> int:
    """Numbers that a network makes of each of its inputs at first: the width of its token
    embedding, or 1."""
    return int(getattr(getattr(module, "token_embedding", None), "embedding_dim", 1))


def are_present(ids: Tensor) -> Tensor:
    """(b, t) bool: where there is a token."""
    return ids != PADDING


def predicts_tokens(module: nn.Module) -> bool:
    """Whether a network predicts the next token of texts; it then says what the truth is."""
    return callable(getattr(module, "targets", None))


def truth(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """(rows,) int64: what each row of ``module(inputs)`` should say.

    A classifier gives one row per example, and the truth is its label. A language model gives one
    row per predicted token, and the truth is that token.

    Args:
        module: a network.
        inputs: (b, …).
        labels: (b,).
    """
    if not predicts_tokens(module):
        return labels
    network: Any = module
    found: Tensor = network.targets(inputs)
    return found
