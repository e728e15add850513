"""Distances between whole predictions of tokens, against scipy in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from torch import Tensor

from tests.test_token_scores import Bigrams, bigrams, texts
from unaudit.token_distances import Remembered, Slices, token_distances
from unaudit.token_outputs import TokenDistances
from unaudit.token_scores import rows_at_once

CPU = torch.device("cpu")


def sliced(logits: Tensor, rows: int = 7) -> Slices:
    return lambda: iter(logits.split(rows))


def two(scale: float, vocabulary: int = 50, apart: float = 1.0) -> tuple[Tensor, Tensor]:
    """(40, vocabulary) logits of two models."""
    generator = torch.Generator().manual_seed(0)
    own = scale * torch.randn(40, vocabulary, generator=generator)
    return own, own + apart * scale * torch.randn(40, vocabulary, generator=generator)


def expected(own: Tensor, other: Tensor) -> TokenDistances:
    one, another = (logits.numpy().astype(np.float64) for logits in (own, other))
    p, q = softmax(one, axis=1), softmax(another, axis=1)
    return TokenDistances(
        jensenshannon(p, q, axis=1) ** 2,
        np.abs(p - q).sum(axis=1),
        np.linalg.norm(p - q, axis=1),
        one.argmax(axis=1) != another.argmax(axis=1),
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("vocabulary", [2, 50, 3000])
def test_distances_are_scipys(vocabulary: int, scale: float) -> None:
    own, other = two(scale, vocabulary)
    found = token_distances(sliced(own), sliced(other))
    for values, known in zip(found, expected(own, other), strict=True):
        assert values.shape == (40,)
        np.testing.assert_allclose(values, known, rtol=1e-4, atol=2e-7)


def test_small_divergences_keep_their_digits() -> None:
    # half the difference of two entropies would be all rounding here
    own, other = two(1.0, 1000, apart=1e-2)
    known = expected(own, other).jsd
    assert known.max() < 3e-5
    np.testing.assert_allclose(
        token_distances(sliced(own), sliced(other)).jsd, known, rtol=1e-2, atol=2e-8
    )


def test_ends_of_the_ranges() -> None:
    sure = 1e4 * torch.eye(5)
    far = token_distances(sliced(sure), sliced(sure.roll(1, dims=0)))
    np.testing.assert_allclose(far.jsd, math.log(2))
    np.testing.assert_allclose(far.l1, 2.0)
    np.testing.assert_allclose(far.l2, math.sqrt(2.0))
    assert far.differ.all()
    same = token_distances(sliced(sure), sliced(sure + 3.0))
    assert not any(values.any() for values in same)


def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    own, other = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert not token_distances(sliced(own), sliced(other)).differ.any()


def test_slices_must_agree() -> None:
    own, other = two(1.0)
    with pytest.raises(ValueError, match="shapes"):
        token_distances(sliced(own), sliced(other, rows=6))
    with pytest.raises(ValueError, match="shorter"):
        token_distances(sliced(own), sliced(other[:35]))


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_logits_come_back_from_what_the_head_was_given(rows: int) -> None:
    network, ids = bigrams(11), texts(11, [5, 9, 2])
    with torch.no_grad():
        states, whole = network.hidden(ids), network(ids)
    again = Remembered(network, states.numpy(), rows, CPU)
    parts = list(again())
    assert [len(part) for part in parts[:-1]] == [rows] * (len(parts) - 1)
    assert torch.equal(torch.cat(parts), whole)
    assert not any(part.requires_grad for part in parts)
    assert torch.equal(torch.cat(list(again())), whole)  # as often as asked


def test_who_reads_them_can_still_train() -> None:
    network = bigrams(11)
    states = np.eye(11, dtype=np.float32)
    for _ in Remembered(network, states, 4, CPU)():
        assert torch.is_grad_enabled()
    token_distances(Remembered(network, states, 4, CPU), Remembered(network, states, 4, CPU))
    assert torch.is_grad_enabled()


def test_no_more_logits_exist_than_a_slice() -> None:
    seen: list[int] = []

    def watched(network: Bigrams, states: np.ndarray) -> Iterator[Tensor]:
        for part in Remembered(network, states, rows_at_once(11, CPU) // 100_000, CPU)():
            seen.append(len(part))
            yield part

    network, ids = bigrams(11), texts(11, [9, 9])
    with torch.no_grad():
        states = network.hidden(ids).numpy()
    token_distances(lambda: watched(network, states), lambda: watched(network, states))
    assert seen == [1] * 32
