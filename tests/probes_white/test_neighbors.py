"""The exact search against scikit-learn's brute force, and as a matter of arithmetic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from attacks.white_box import _neighbors
from attacks.white_box._neighbors import nearest

Points = npt.NDArray[np.float32]


def expected(queries: Points, bank: Points, k: int) -> npt.NDArray[np.float64]:
    """(n, k) distances by scikit-learn in double precision."""
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.astype(np.float64))
    distances, _ = search.kneighbors(queries.astype(np.float64))
    return np.asarray(distances)


def check(queries: Points, bank: Points, k: int) -> None:
    """Distances are the oracle's, and each is that of the row it is said to belong to."""
    distances, found = nearest(torch.from_numpy(queries), torch.from_numpy(bank), k)
    assert distances.shape == found.shape == (len(queries), k)
    wanted = expected(queries, bank, k)
    scale = max(1e-30, float(np.abs(wanted).max()))
    np.testing.assert_allclose(distances.numpy(), wanted, rtol=1e-5, atol=1e-6 * scale)
    own = np.linalg.norm(
        bank[found.numpy()].astype(np.float64) - queries[:, None].astype(np.float64), axis=2
    )
    np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6 * scale)
    assert all(len(set(row)) == k for row in found.tolist())
    assert (np.diff(distances.numpy(), axis=1) >= 0).all()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that a small test crosses several times."""
    monkeypatch.setattr(_neighbors, "QUERIES_AT_ONCE", 37)
    monkeypatch.setattr(_neighbors, "BANK_AT_ONCE", 29)
    monkeypatch.setattr(_neighbors, "DIFFERENCES_AT_ONCE", 1000)
    monkeypatch.setattr(_neighbors, "DOUBLES_AT_ONCE", 1000)


@pytest.mark.parametrize("k", [1, 5, 60])
@pytest.mark.parametrize("width", [1, 3, 64])
def test_agrees_with_sklearn(k: int, width: int) -> None:
    rng = np.random.default_rng(width)
    bank = rng.standard_normal((400, width)).astype(np.float32)
    check(rng.standard_normal((150, width)).astype(np.float32), bank, k)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 5, 60])
def test_blocks_change_nothing(k: int) -> None:
    rng = np.random.default_rng(0)
    bank = rng.standard_normal((233, 8)).astype(np.float32)
    check(rng.standard_normal((100, 8)).astype(np.float32), bank, k)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    width=st.integers(1, 20),
    offset=st.sampled_from([0.0, 1.0, 1e3, -1e5]),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    data=st.data(),
)
def test_any_cloud(
    seed: int, n: int, width: int, offset: float, scale: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, n))
    bank = (offset + scale * rng.standard_normal((n, width))).astype(np.float32)
    check((offset + scale * rng.standard_normal((7, width))).astype(np.float32), bank, k)


def test_a_far_outlier_does_not_blur_the_rest() -> None:
    # float32 products of the outlier are rounded to more than all other distances
    rng = np.random.default_rng(1)
    bank = rng.standard_normal((500, 16)).astype(np.float32)
    bank[7] = 1e6
    queries = rng.standard_normal((50, 16)).astype(np.float32)
    _, screened = nearest_without_doubles(queries, bank)
    assert (screened != true_order(queries, bank)).any()  # the case is hard
    _, found = nearest(torch.from_numpy(queries), torch.from_numpy(bank), 5)
    np.testing.assert_array_equal(found.numpy(), true_order(queries, bank))


def nearest_without_doubles(queries: Points, bank: Points) -> tuple[torch.Tensor, Points]:
    q, b = torch.from_numpy(queries), torch.from_numpy(bank)
    center = b.mean(dim=0)
    scores = (b - center).square().sum(dim=1) - 2 * (q - center) @ (b - center).T
    best = scores.topk(5, largest=False)
    return best.values, best.indices.numpy()


def true_order(queries: Points, bank: Points) -> npt.NDArray[np.int64]:
    gaps = queries[:, None].astype(np.float64) - bank[None].astype(np.float64)
    return np.argsort((gaps**2).sum(axis=2), axis=1)[:, :5]


def test_copies_are_all_found() -> None:
    bank = np.repeat(np.arange(4, dtype=np.float32)[:, None], 50, axis=0)
    distances, found = nearest(torch.tensor([[1.0]]), torch.from_numpy(bank), 60)
    assert (distances[0, :50] == 0).all()
    assert sorted(found[0, :50].tolist()) == list(range(50, 100))
    assert (distances[0, 50:] == 1).all()


@pytest.mark.parametrize("k", [0, 6])
def test_impossible_numbers_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="neighbors among 5"):
        nearest(torch.zeros(1, 2), torch.zeros(5, 2), k)


def test_no_queries() -> None:
    distances, found = nearest(torch.zeros(0, 2), torch.zeros(5, 2), 3)
    assert distances.shape == found.shape == (0, 3)
