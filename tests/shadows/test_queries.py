"""Queries: what they make of a batch, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from unaudit.errors import InputError, UnauditError, UsageError
from unaudit.shadows.queries import alter, check_queries

IMAGES = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))


def moved(image: Tensor, right: int, down: int) -> Tensor:
    """(c, h, w), pixel by pixel."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


@pytest.mark.parametrize("right", range(-4, 5))
@pytest.mark.parametrize("down", range(-3, 4))
def test_a_shift_moves_every_pixel_and_leaves_zeros(right: int, down: int) -> None:
    if right == down == 0:
        return
    expected = torch.stack([moved(image, right, down) for image in IMAGES])
    assert torch.equal(alter(IMAGES, f"shift {right},{down}"), expected)


def test_a_flip_mirrors_left_to_right() -> None:
    expected = torch.stack([image[:, :, [4, 3, 2, 1, 0]] for image in IMAGES])
    assert torch.equal(alter(IMAGES, "flip"), expected)


def test_the_plain_query_alters_nothing_and_takes_any_input() -> None:
    vectors = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(alter(vectors, "plain"), vectors)
    check_queries(("plain",), (3,))


def test_a_query_leaves_the_batch_as_it_is() -> None:
    before = IMAGES.clone()
    for query in ("flip", "shift 1,-1"):
        alter(IMAGES, query)
    assert torch.equal(IMAGES, before)


@pytest.mark.parametrize(
    ("names", "shape", "error", "says"),
    [
        ((), (1, 4, 5), UsageError, "first query must be plain"),
        (("flip", "plain"), (1, 4, 5), UsageError, "first query must be plain"),
        (("plain", "flip", "flip"), (1, 4, 5), UsageError, "twice"),
        (("plain", "rotate"), (1, 4, 5), UsageError, "no query 'rotate'"),
        (("plain", "shift 1"), (1, 4, 5), UsageError, "no query 'shift 1'"),
        (("plain", "shift 1, 2"), (1, 4, 5), UsageError, "no query"),
        (("plain", "shift +1,02"), (1, 4, 5), UsageError, "no query"),
        (("plain", "shift 1,2\n"), (1, 4, 5), UsageError, "no query"),
        (("plain", "shift 0,0"), (1, 4, 5), UsageError, "moves nothing"),
        (("plain", "flip"), (64,), InputError, "needs images .* the shape 64;"),
        (("plain", "shift 1,0"), (4, 5), InputError, "needs images .* the shape 4×5;"),
        (("plain", "shift 5,0"), (1, 4, 5), InputError, "out of sight"),
        (("plain", "shift 0,-4"), (1, 4, 5), InputError, "out of sight"),
    ],
)
def test_queries_that_do_not_fit_are_refused(
    names: Sequence[str], shape: tuple[int, ...], error: type[UnauditError], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        check_queries(names, shape)
    assert "\n" not in str(raised.value)


def test_queries_that_fit_are_taken() -> None:
    check_queries(("plain", "flip", "shift 4,3", "shift -4,-3"), (1, 4, 5))


@pytest.mark.parametrize("query", ["flip", "shift 1,0"])
def test_what_is_no_image_cannot_be_altered(query: str) -> None:
    with pytest.raises(InputError, match="needs images"):
        alter(torch.zeros(2, 64), query)


def test_an_unknown_query_cannot_be_put() -> None:
    with pytest.raises(UsageError, match="no query 'turn'"):
        alter(IMAGES, "turn")
