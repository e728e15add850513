"""JSD, activation distance, disagreement and ZRF against scipy and torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax

from attacks.black_box._pairs import OutputDistance
from attacks.black_box.activation_distance import ActivationDistanceL1, ActivationDistanceL2
from attacks.black_box.disagreement import Disagreement
from attacks.black_box.jsd import JensenShannon, jensen_shannon
from attacks.black_box.zrf import ZeroRetrainForgetting, distance_to_teachers
from unaudit import views
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, Scores, Skipped
from unaudit.views import BlackBox, Outputs

from .language_worlds import VOCABULARY, Texts
from .language_worlds import make_view as make_token_view
from .worlds import make_view, make_world


def pair(n_classes: int = 6, n: int = 50, scale: float = 3.0) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(n_classes)
    own, other = rng.normal(0.0, scale, (2, n, n_classes))
    return own.astype(np.float32).astype(np.float64), other.astype(np.float32).astype(np.float64)


def view_of(logits: FloatArray) -> BlackBox:
    labels = np.zeros(len(logits), np.int64)
    return make_view({"forget": logits.astype(np.float32)}, {"forget": labels}, "sample")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def forget_scores(probe: OutputDistance, own: FloatArray, other: FloatArray) -> FloatArray:
    evidence = probe(view_of(own), view_of(other), rng())
    assert isinstance(evidence, Scores)
    assert evidence.statistic == "mean"
    return evidence.forget


def test_jsd_is_scipys_squared() -> None:
    own, other = pair()
    expected = jensenshannon(softmax(own, axis=1), softmax(other, axis=1), axis=1) ** 2
    np.testing.assert_allclose(forget_scores(JensenShannon(), own, other), expected, rtol=1e-9)


def test_jsd_is_ln_2_where_probabilities_underflow() -> None:
    own, other = np.array([[2e4, 0.0, 0.0]]), np.array([[0.0, 2e4, 0.0]])
    assert forget_scores(JensenShannon(), own, other)[0] == pytest.approx(math.log(2), abs=1e-15)
    assert forget_scores(JensenShannon(), own, own)[0] == 0.0


finite_logits = arrays(np.float64, (4, 3), elements=st.floats(-1e4, 1e4))


@given(own=finite_logits, other=finite_logits)
def test_jsd_is_a_bounded_symmetric_divergence(own: FloatArray, other: FloatArray) -> None:
    log_p, log_q = log_softmax(own, axis=1), log_softmax(other, axis=1)
    forth, back = jensen_shannon(log_p, log_q), jensen_shannon(log_q, log_p)
    assert ((forth >= 0.0) & (forth <= math.log(2))).all()
    np.testing.assert_allclose(forth, back, rtol=0, atol=1e-12)
    assert (jensen_shannon(log_p, log_p) < 1e-12).all()


def test_jsd_of_nearly_equal_answers_is_not_negative() -> None:
    own = np.random.default_rng(0).normal(0.0, 3.0, (2000, 6))
    moved = own + 1e-10 * np.random.default_rng(1).standard_normal(own.shape)
    divergence = jensen_shannon(log_softmax(own, axis=1), log_softmax(moved, axis=1))
    assert (divergence >= 0.0).all()
    assert (divergence < 1e-12).all()


@pytest.mark.parametrize(("probe", "p"), [(ActivationDistanceL2(), 2), (ActivationDistanceL1(), 1)])
def test_activation_distance_is_torchs(
    probe: ActivationDistanceL2 | ActivationDistanceL1, p: int
) -> None:
    own, other = pair()
    gap = torch.softmax(torch.tensor(own), dim=1) - torch.softmax(torch.tensor(other), dim=1)
    expected = torch.linalg.vector_norm(gap, ord=p, dim=1).numpy()
    np.testing.assert_allclose(forget_scores(probe, own, other), expected, rtol=1e-12)


def test_activation_distance_between_certain_opposites() -> None:
    own, other = np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]])
    assert forget_scores(ActivationDistanceL2(), own, other)[0] == pytest.approx(math.sqrt(2))
    assert forget_scores(ActivationDistanceL1(), own, other)[0] == pytest.approx(2.0)


def test_disagreement_counts_different_winners() -> None:
    own = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 4.0], [1.0, 1.0]])
    other = np.array([[9.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(forget_scores(Disagreement(), own, other), [0.0, 1.0, 1.0, 0.0])


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = pair()
    probes = (JensenShannon(), ActivationDistanceL2(), ActivationDistanceL1(), Disagreement())
    whole = [forget_scores(probe, own, other) for probe in probes]
    monkeypatch.setattr(views, "CHUNK_ELEMENTS", 7 * own.shape[1])
    for probe, expected in zip(probes, whole, strict=True):
        np.testing.assert_array_equal(forget_scores(probe, own, other), expected)


def test_models_with_different_classes_are_not_compared() -> None:
    evidence = JensenShannon()(view_of(pair(6)[0]), view_of(pair(5)[0]), rng())
    assert isinstance(evidence, Skipped)
    assert "5 classes" in evidence.reason


def two_models(n: int = 30) -> tuple[Texts, FloatArray, FloatArray]:
    """Texts, and what two models say of each of their tokens."""
    generator = np.random.default_rng(0)
    texts = Texts(np.zeros(n, np.int64), generator)
    own, other = (texts.logits(np.zeros(n), generator) for _ in range(2))
    return texts, own, 2.0 * other


def text_scores(probe: OutputDistance, texts: Texts, own: FloatArray, other: FloatArray) -> Scores:
    one, two = (make_token_view({"forget": texts.outputs(logits)}) for logits in (own, other))
    evidence = probe(one, two, rng())
    assert isinstance(evidence, Scores)
    assert evidence.statistic == "mean"
    return evidence


def means(texts: Texts, of_tokens: FloatArray) -> list[float]:
    ends = np.cumsum(texts.counts)
    spans = zip(ends - texts.counts, ends, strict=True)
    return [of_tokens[start:end].mean() for start, end in spans]


@pytest.mark.parametrize(
    ("probe", "of_tokens"),
    [
        (JensenShannon(), lambda p, q: jensenshannon(p, q, axis=1) ** 2),
        (ActivationDistanceL2(), lambda p, q: np.linalg.norm(p - q, axis=1)),
        (ActivationDistanceL1(), lambda p, q: np.abs(p - q).sum(axis=1)),
        (Disagreement(), lambda p, q: p.argmax(axis=1) != q.argmax(axis=1)),
    ],
    ids=["jsd", "l2", "l1", "disagreement"],
)
def test_texts_are_compared_token_by_token_in_whole_predictions(
    probe: OutputDistance, of_tokens: Callable[[FloatArray, FloatArray], FloatArray]
) -> None:
    texts, own, other = two_models()
    expected = means(texts, of_tokens(softmax(own, axis=1), softmax(other, axis=1)).astype(float))
    found = text_scores(probe, texts, own, other).forget
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.mean() > 0.0
    assert text_scores(probe, texts, own, own).forget.max() < 1e-7


def test_all_distances_of_a_pair_take_one_sweep() -> None:
    texts, own, other = two_models()
    sweeps: list[str] = []

    def view(name: str, logits: FloatArray) -> BlackBox:
        outputs = texts.outputs(logits)
        assert outputs.logits is not None
        made = outputs.logits

        def counted() -> Iterator[torch.Tensor]:
            sweeps.append(name)
            return made()

        return make_token_view({"forget": replace(outputs, logits=counted)})

    one, two = view("one", own), view("two", other)
    for probe in (JensenShannon(), ActivationDistanceL2(), ActivationDistanceL1(), Disagreement()):
        probe(one, two, rng())
        probe(two, one, rng())
    assert sorted(sweeps) == ["one", "two"]


def test_models_that_read_other_tokens_are_not_compared() -> None:
    made = []
    for seed in (0, 1):
        texts = Texts(np.zeros(30, np.int64), np.random.default_rng(seed))
        tokens = texts.outputs(np.zeros((texts.total, VOCABULARY)))
        made.append(make_token_view({"forget": tokens}))
    evidence = JensenShannon()(made[0], made[1], rng())
    assert evidence == Skipped(
        "the reference splits the texts into other tokens than the model does"
    )


def test_distance_to_teachers_is_the_mean_divergence_from_each() -> None:
    own, teachers = pair()[0], softmax(pair(6, 4, 0.5)[0], axis=1)
    outputs = Outputs(own.astype(np.float32), np.zeros(len(own), np.int64))
    p = softmax(own, axis=1)
    expected = [np.mean([jensenshannon(row, teacher) ** 2 for teacher in teachers]) for row in p]
    np.testing.assert_allclose(distance_to_teachers(outputs, teachers), expected, rtol=1e-9)


def test_zrf_is_near_1_for_an_untrained_model_and_low_for_a_certain_one() -> None:
    labels = np.arange(60) % 6
    untrained = 0.1 * np.random.default_rng(1).standard_normal((60, 6))
    certain = 30.0 * np.eye(6)[labels]

    def zrf(logits: FloatArray) -> float:
        evidence = ZeroRetrainForgetting()(view_of(logits), rng())
        assert isinstance(evidence, Scores)
        assert evidence.detail["zrf"] == pytest.approx(1.0 - evidence.forget.mean())
        return float(evidence.detail["zrf"])

    assert zrf(untrained) > 0.95
    # against a uniform teacher: ln 2 − JS has the closed form below
    uniform = 1 - (
        0.5 * math.log(2 / (1 + 1 / 6)) + 0.5 * (math.log(2 / 7) / 6 + 5 / 6 * math.log(2))
    )
    assert zrf(certain) == pytest.approx(uniform, abs=0.03)


def test_zrf_teachers_depend_on_the_generator_alone() -> None:
    world = make_world("sample", retrained=1)
    probe = ZeroRetrainForgetting(teachers=1, teacher_scale=3.0)
    same = [probe(view, np.random.default_rng(4)) for view in (world.original, world.original)]
    other = probe(world.original, np.random.default_rng(5))
    assert isinstance(same[0], Scores)
    assert isinstance(same[1], Scores)
    assert isinstance(other, Scores)
    np.testing.assert_array_equal(same[0].forget, same[1].forget)
    assert abs(same[0].forget.mean() - other.forget.mean()) > 1e-6


@pytest.mark.parametrize(
    "parameters", [{"teachers": 0}, {"teachers": 1.5}, {"teacher_scale": 0.0}, {"teachers": True}]
)
def test_zrf_refuses_parameters(parameters: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"probes\.zrf\.{next(iter(parameters))} must be"):
        ZeroRetrainForgetting(**parameters)  # type: ignore[arg-type]
