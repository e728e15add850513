"""Queries: the ways in which an example is altered before a model is asked about it again.

``plain``          as it is
``flip``           mirrored left to right
``shift dx,dy``    moved by whole pixels, to the right and down where positive; zeros move in

A model answers for what it was trained on, crops and mirror images of its examples included, so
several queries tell members apart better than one (Carlini et al. 2022, §VI, on the number
of queries).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from unaudit.errors import InputError, UsageError
from unaudit.text import quote

PLAIN = "plain"

_SHIFT = re.compile(r"shift (0|-?[1-9][0-9]{0,8}),(0|-?[1-9][0-9]{0,8})")


def check_queries(names: Sequence[str], input_shape: Sequence[int]) -> None:
    """Refuse queries that these inputs cannot be put to.

    Args:
        names: in their order.
        input_shape: of one example after preprocessing.

    Raises:
        UsageError: the first is not plain, one is unknown or there twice, or a shift is none.
        InputError: anything but plain, and the inputs are no images, or all of one moves out.
    """
    if not names or names[0] != PLAIN:
        raise UsageError(f"the first query must be {PLAIN}; put it before the others")
    for position, name in enumerate(names):
        if name in names[:position]:
            raise UsageError(f"the query {quote(name)} is there twice; name it once")
        _check(name, input_shape)


def alter(batch: Tensor, query: str) -> Tensor:
    """What is asked instead of a batch: of the same shape, on the same device.

    Args:
        batch: (b, …) preprocessed inputs; (b, c, h, w) for anything but plain.
        query: one of those above.

    Raises:
        UsageError: no such query.
        InputError: the inputs are no images, or all of one moves out.
    """
    _check(query, batch.shape[1:])
    if query == PLAIN:
        return batch
    if query == "flip":
        return batch.flip(3)
    right, down = _offset(query)
    # padded on one side, cut on the other
    return nn.functional.pad(batch, (right, -right, down, -down))


def _check(query: str, input_shape: Sequence[int]) -> None:
    right, down = _offset(query)
    if query == PLAIN:
        return
    shape = "×".join(map(str, input_shape))
    if len(input_shape) != 3:
        raise InputError(
            f"the query {quote(query)} needs images (channels × height × width), but inputs have "
            f"the shape {shape}; ask {PLAIN} only"
        )
    if abs(right) >= input_shape[2] or abs(down) >= input_shape[1]:
        raise InputError(
            f"the query {quote(query)} moves all of an image of {shape} out of sight; "
            "shift by less than its height and width"
        )


def _offset(query: str) -> tuple[int, int]:
    """Pixels to the right and down.

    Raises:
        UsageError: no such query.
    """
    if query in (PLAIN, "flip"):
        return 0, 0
    found = _SHIFT.fullmatch(query)
    if found is None:
        raise UsageError(
            f"no query {quote(query)}; there are {PLAIN}, flip and shift dx,dy with whole pixels, "
            "as in 'shift 1,-2'"
        )
    right, down = int(found[1]), int(found[2])
    if right == down == 0:
        raise UsageError(f"the query {quote(query)} moves nothing; it is the {PLAIN} one")
    return right, down
