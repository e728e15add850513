"""Scores of tokens: against a naive loop, in slices, whatever the batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from unaudit import token_scores
from unaudit.token_outputs import TOP
from unaudit.token_scores import (
    LOGITS_AT_ONCE,
    TokenScores,
    rows_at_once,
    vocabulary_of,
)
from unaudit.tokens import PADDING


class Bigrams(nn.Module):
    """Logits of the next token by the token before it; keeps count of what is computed."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.bodies = 0
        self.slices: list[int] = []

    def targets(self, ids: Tensor) -> Tensor:
        return ids[:, 1:][ids[:, 1:] != PADDING]

    def counts(self, ids: Tensor) -> Tensor:
        return (ids[:, 1:] != PADDING).sum(dim=1)

    def hidden(self, ids: Tensor) -> Tensor:
        self.bodies += 1
        before = ids[:, :-1][ids[:, 1:] != PADDING]
        return nn.functional.one_hot(before, len(self.table)).to(self.table.dtype)

    def logits_of(self, hidden: Tensor) -> Tensor:
        self.slices.append(len(hidden))
        return hidden @ self.table

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits_of(self.hidden(ids))


def bigrams(vocabulary: int, spread: float = 2.0, seed: int = 0) -> Bigrams:
    generator = torch.Generator().manual_seed(seed)
    return Bigrams(spread * torch.randn(vocabulary, vocabulary, generator=generator))


def texts(vocabulary: int, lengths: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(vocabulary, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):
        ids[row, length:] = PADDING
    return ids


def score_tokens(network: Bigrams, ids: Tensor, chunk: int) -> TokenScores:
    with torch.no_grad():
        return token_scores.score_tokens(network, network.hidden(ids), ids, chunk)


def naive(network: Bigrams, ids: Tensor) -> dict[str, np.ndarray]:
    """One token after the other, in float64."""
    table = network.table.detach().numpy().astype(np.float64)
    found: dict[str, list[object]] = {name: [] for name in TokenScores._fields}
    for row in ids.tolist():
        text = [token for token in row if token != PADDING]
        for before, token in pairwise(text):
            log_p = log_softmax(table[before])
            p = np.exp(log_p)
            mean = sum(p * log_p)
            found["log_p"].append(log_p[token])
            found["mean_log_p"].append(mean)
            found["std_log_p"].append(np.sqrt(sum(p * (log_p - mean) ** 2)))
            found["greedy"].append(token == int(np.argmax(table[before])))
            top = np.sort(p)[::-1][:TOP]
            found["top"].append(np.pad(top, (0, TOP - len(top))))
    return {name: np.array(values) for name, values in found.items()}


def same(found: TokenScores, expected: dict[str, np.ndarray], atol: float = 2e-6) -> None:
    for name, values in found._asdict().items():
        assert values.shape == expected[name].shape, name
        if name == "greedy":
            assert values.dtype == torch.bool
            np.testing.assert_array_equal(values.numpy(), expected[name])
        else:
            assert values.dtype == torch.float32
            np.testing.assert_allclose(values.numpy(), expected[name], rtol=1e-5, atol=atol)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("vocabulary", [4, 10, 37])
def test_scores_are_those_of_a_naive_loop(vocabulary: int, chunk: int) -> None:
    network, ids = bigrams(vocabulary), texts(vocabulary, [5, 2, 9, 3])
    ids[2, 4] = network.table[ids[2, 3]].argmax()
    expected = naive(network, ids)
    assert len(expected["log_p"]) == 4 + 1 + 8 + 2
    assert 0 < expected["greedy"].sum() < 15
    same(score_tokens(network, ids, chunk), expected)


def test_sure_predictions_lose_nothing_to_rounding() -> None:
    # nearly all of the probability on one token
    for gap in (8.0, 16.0, 30.0, 80.0):
        table = torch.zeros(6, 6)
        table[:, 2] = gap
        network, ids = Bigrams(table), texts(6, [40])
        found, expected = score_tokens(network, ids, 8), naive(network, ids)
        same(found, expected)
        np.testing.assert_allclose(found.std_log_p, expected["std_log_p"], rtol=1e-3, atol=1e-30)


def test_even_predictions_lose_nothing_to_rounding() -> None:
    # in float32, E[l²] − E[l]² would be noise here
    network, ids = bigrams(500, spread=1e-3), texts(500, [30])
    found, expected = score_tokens(network, ids, 8), naive(network, ids)
    assert expected["std_log_p"].max() < 2e-3
    np.testing.assert_allclose(found.std_log_p, expected["std_log_p"], rtol=1e-3)


def test_large_vocabularies_and_offsets_keep_their_digits() -> None:
    network, ids = bigrams(3000, spread=3.0), texts(3000, [30])
    network.table.data += 50.0
    same(score_tokens(network, ids, 4), naive(network, ids), atol=1e-5)


def test_of_equal_logits_the_first_is_the_largest() -> None:
    network = Bigrams(torch.zeros(5, 5))
    found = score_tokens(network, torch.tensor([[3, 0, 1, 0, 4]]), 2)
    assert found.greedy.tolist() == [True, False, True, False]


@pytest.mark.parametrize("size", [1, 3, 64])
def test_neither_the_batch_nor_its_padding_matters(size: int) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 20, 50).tolist()
    network, ids = bigrams(30), texts(30, lengths)
    whole = score_tokens(network, ids, 1000)
    parts = [
        score_tokens(network, part[:, : int((part != PADDING).sum(dim=1).max())], 1000)
        for part in ids.split(size)
    ]
    for one, *others in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(torch.cat(others).numpy(), one.numpy(), rtol=1e-5, atol=1e-6)


def test_the_body_runs_once_and_no_slice_is_larger_than_allowed() -> None:
    network, ids = bigrams(20), texts(20, [12, 12, 12])
    score_tokens(network, ids, 8)
    assert network.bodies == 1
    assert network.slices == [8, 8, 8, 8, 1]


def test_slices_hold_as_many_logits_as_said() -> None:
    for name, most in LOGITS_AT_ONCE.items():
        for vocabulary in (10, 50_257):
            rows = rows_at_once(vocabulary, torch.device(name))
            assert (rows * vocabulary) <= most < (rows + 1) * vocabulary
            assert 4 * rows * vocabulary <= 32 << 20
    assert rows_at_once(1 << 30, torch.device("cpu")) == 1


def test_no_gradient_is_kept() -> None:
    assert not any(part.requires_grad for part in score_tokens(bigrams(5), texts(5, [6]), 2))


def test_the_vocabulary_is_seen_from_two_tokens() -> None:
    network = bigrams(23)
    assert vocabulary_of(network, texts(23, [19])) == 23
    assert network.slices == [1]
