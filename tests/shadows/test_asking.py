"""Views of an audit ask a network about altered inputs; the answers are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from tests.white_box import worlds
from tests.white_box.worlds import Arrays, case_of, recorded
from unaudit.case import Case
from unaudit.errors import InputError, UsageError
from unaudit.evidence import FloatArray, SplitName
from unaudit.forward import ForwardPass
from unaudit.shadows import Shadows, ShadowScores
from unaudit.training import initialize

QUERIES = ("plain", "flip", "shift 2,-1")


def network(seed: int = 0) -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 3 * 4, 4))
    return initialize(layers, torch.Generator().manual_seed(seed))


def images(n: int, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.normal(size=(n, 1, 5, 6)).astype(np.float32))
    return Arrays(inputs, rng.integers(4, size=n))


def shadows() -> Shadows:
    some = ShadowScores(
        np.arange(3), np.zeros((2, len(QUERIES), 3), np.float32), np.zeros((2, 3), bool)
    )
    return Shadows({"forget": some, "unseen": some}, QUERIES)


@pytest.fixture
def case() -> Case:
    data: dict[SplitName, Arrays] = {"forget": images(11, 1), "unseen": images(13, 2)}
    return replace(case_of({"subject": network(), "r1": network(1)}, data), shadows=shadows())


def forward_of(case: Case, folder: Path) -> ForwardPass:
    return worlds.forward_of(case, folder, batch_size=4, record_features=False)


def altered(inputs: npt.NDArray[np.float32], query: str) -> npt.NDArray[np.float32]:
    if query == "plain":
        return inputs
    if query == "flip":
        return np.ascontiguousarray(inputs[..., ::-1])
    moved = np.zeros_like(inputs)  # two to the right, one up
    moved[..., :-1, 2:] = inputs[..., 1:, :-2]
    return moved


def confidence(module: nn.Module, data: Arrays, query: str) -> FloatArray:
    """log p_y − log(1 − p_y), one example at a time."""
    given = []
    for inputs, label in zip(data.inputs.numpy(), data.labels, strict=True):
        with torch.no_grad():
            logits = module(torch.from_numpy(altered(inputs, query))[None])[0].double()
        p = torch.softmax(logits, 0)[label]
        given.append(float(torch.log(p) - torch.log1p(-p)))
    return np.array(given)


@pytest.mark.parametrize("split", ["forget", "unseen"])
def test_a_view_asks_every_query_of_every_model(
    case: Case, split: SplitName, tmp_path: Path
) -> None:
    forward = forward_of(case, tmp_path)
    data = case.splits[split].dataset
    assert isinstance(data, Arrays)
    for seed, candidate in enumerate(case.candidates):
        view = forward.view(candidate)
        assert view.shadows is case.shadows
        expected = [confidence(network(seed), data, query) for query in QUERIES]
        np.testing.assert_allclose(view.queries(split), expected, rtol=1e-4, atol=1e-5)


def test_a_second_audit_finds_the_answers(case: Case, tmp_path: Path) -> None:
    first = forward_of(case, tmp_path).view(case.subject).queries("forget")
    data = case.splits["forget"].dataset
    assert isinstance(data, Arrays)
    again = forward_of(case, tmp_path)
    before = len(data.read)
    assert np.array_equal(again.view(case.subject).queries("forget"), first)
    assert len(data.read) == before


def test_no_answer_stands_for_another(case: Case, tmp_path: Path) -> None:
    forward = forward_of(case, tmp_path)
    kept = [
        forward.queried(candidate, case.splits[split], query)
        for candidate in case.candidates
        for split in case.splits
        for query in QUERIES
    ]
    assert len(list(tmp_path.rglob("*.npy"))) == len(kept)


def test_without_shadows_nothing_is_asked_anew(case: Case, tmp_path: Path) -> None:
    view = forward_of(replace(case, shadows=None), tmp_path).view(case.subject)
    assert view.shadows is None
    assert np.array_equal(view.queries("forget")[0], view.outputs("forget").logit_confidence)
    assert len(view.queries("forget")) == 1


def test_recorded_outputs_cannot_be_asked(case: Case, tmp_path: Path) -> None:
    data = case.splits["forget"].dataset
    assert isinstance(data, Arrays)
    logits = np.zeros((len(data), 4), np.float32)
    api = recorded(logits, data.labels, "r1")
    mixed = replace(case, retrained=(api,))
    with pytest.raises(ValueError, match="no 'flip' query"):
        forward_of(mixed, tmp_path).view(api).queries("forget")


def test_inputs_that_are_no_images_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = Arrays(torch.zeros(5, 6), rng.integers(3, size=5))
    case = replace(
        case_of({"subject": nn.Linear(6, 3)}, {"forget": vectors, "unseen": vectors}),
        shadows=shadows(),
    )
    with pytest.raises(InputError, match=r"'flip' needs images .* the shape 6;"):
        forward_of(case, tmp_path).view(case.subject).queries("forget")


def test_infinite_answers_are_refused_and_not_kept(case: Case, tmp_path: Path) -> None:
    data = case.splits["forget"].dataset
    assert isinstance(data, Arrays)
    data.inputs[6] = torch.nan
    forward = forward_of(case, tmp_path)
    with pytest.raises(InputError, match="NaN or infinite logits on the forget example '6'"):
        forward.queried(case.subject, case.splits["forget"], "flip")
    assert not list(tmp_path.rglob("*.npy"))


def test_an_unknown_query_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no query 'spin'"):
        forward_of(case, tmp_path).queried(case.subject, case.splits["forget"], "spin")
