"""The same forget examples at the layers of two models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from attacks.black_box._selection import MIN_EXAMPLES
from attacks.white_box._rows import some
from unaudit.evidence import FloatArray, IntArray

if TYPE_CHECKING:
    from unaudit.white_box import WhiteBox


def shapes(view: WhiteBox, layers: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shape of one example at each layer, from a forward pass of one example."""
    first = np.zeros(1, dtype=np.int64)
    view.request("forget", layers, first)
    return {layer: view.activations("forget", layer, first).shape[1:] for layer in layers}


def rows_that_fit(
    rows: IntArray,
    sizes: Iterable[Mapping[str, tuple[int, ...]]],
    max_elements: int,
    rng: np.random.Generator,
) -> IntArray:
    """So many of ``rows`` that the widest layer stays within ``max_elements``; at least 20.

    Args:
        sizes: shapes at the layers of each model.
    """
    widest = max(int(np.prod(shape)) for of_model in sizes for shape in of_model.values())
    return some(rows, max(MIN_EXAMPLES, max_elements // widest), rng)


def flat(view: WhiteBox, layer: str, rows: IntArray) -> FloatArray:
    """(n, units) float64 activations on forget examples."""
    found = view.activations("forget", layer, rows)
    return np.asarray(found, dtype=np.float64).reshape(len(rows), -1)
