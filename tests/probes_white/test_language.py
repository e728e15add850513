"""White-box probes on language models: with topics as labels, and without any."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.white_box._chosen import has_weights
from attacks.white_box._geometry import Geometry
from attacks.white_box._relearning import Schedule, _copy, relearn, scales_of
from attacks.white_box.cka import CenteredKernelAlignment
from attacks.white_box.clustering import ClusterF1, ClusterInformation
from attacks.white_box.dimensional_alignment import DimensionalAlignment
from attacks.white_box.feature_distance import FeatureDistance, RelativeFeatureDistance
from attacks.white_box.feature_mia import ActivationAttack
from attacks.white_box.gradient_mia import BlockGradientAttack, HeadGradientAttack, last_block
from attacks.white_box.head_recovery import HeadRecovery
from attacks.white_box.idi import InformationDifference
from attacks.white_box.linear_probe import LinearProbe
from attacks.white_box.miars import ForgetNeighborAttack, TrainNeighborAttack
from attacks.white_box.relearn import Relearn, RelearnFreshHead
from attacks.white_box.weight_distance import WeightDistance
from tests.white_box.causal import WIDTH, Causal
from unaudit.columns import measure_of
from unaudit.evidence import ANY_TASK, PROBES, Evidence, Probe, Scalar, Scores, Skipped
from unaudit.measuring import measure_all
from unaudit.plugins import load_plugins
from unaudit.white_box import WhiteBox

from .known import digest_of
from .language import SIZES, Known, known

QUICK: Mapping[type[Probe], Mapping[str, Any]] = {
    InformationDifference: {"max_examples": 60, "folds": 2, "max_epochs": 1, "warm_start": False},
    Relearn: {"steps": 8, "runs": 2},
    RelearnFreshHead: {"steps": 8, "runs": 2},
}
ANYWHERE: tuple[type[Probe], ...] = (
    HeadGradientAttack,
    BlockGradientAttack,
    ActivationAttack,
    ForgetNeighborAttack,
    CenteredKernelAlignment,
    FeatureDistance,
    RelativeFeatureDistance,
    Relearn,
    RelearnFreshHead,
)
"""Need no labels."""
OF_CLASSES: tuple[type[Probe], ...] = (
    LinearProbe,
    HeadRecovery,
    ClusterInformation,
    ClusterF1,
    InformationDifference,
)
ALL = (*ANYWHERE, *OF_CLASSES, DimensionalAlignment, TrainNeighborAttack, WeightDistance)


def ask(kind: type[Probe], world: Known, name: str = "original") -> Evidence:
    """Run a quick version of a probe, with a retrained model if it takes one."""
    other = "retrained-2" if name == "retrained-1" else "retrained-1"
    views = [world.views[name], *([world.views[other]] if kind.card.comparative else [])]
    return kind(**QUICK.get(kind, {}))(*views, np.random.default_rng(3))  # type: ignore[arg-type]


def test_every_white_box_probe_is_known_here() -> None:
    load_plugins()
    inside = {
        name for name in PROBES if (card := PROBES.get(name).card).access == "white-box"
        and not card.name.count("/")
    }  # fmt: skip
    assert inside == {kind.card.name for kind in ALL}
    assert all(kind.card.tasks == ANY_TASK for kind in ALL)


@pytest.mark.parametrize("kind", ANYWHERE, ids=lambda kind: kind.card.name)
@pytest.mark.parametrize("labeled", [True, False], ids=["labels", "no labels"])
def test_what_needs_no_labels_answers(kind: type[Probe], labeled: bool) -> None:
    check(ask(kind, known("sample", labeled)), labeled)


@pytest.mark.parametrize("kind", OF_CLASSES, ids=lambda kind: kind.card.name)
def test_what_needs_labels_answers_where_there_are_some(kind: type[Probe]) -> None:
    check(ask(kind, known("class")), True)
    for scenario in ("sample", "class"):
        answer = ask(kind, known(scenario, False))
        assert answer == Skipped("the texts have no labels")


def test_scenarios_apply_to_texts_too() -> None:
    check(ask(DimensionalAlignment, known("class")), True)
    check(ask(TrainNeighborAttack, known("sample", False)), False)
    for labeled in (True, False):
        answer = ask(WeightDistance, known("sample", labeled))
        assert isinstance(answer, Skipped)
        assert "a Causal is no plain sequence of layers" in answer.reason


def check(answer: Evidence, labeled: bool) -> None:
    """Finite answers about as many texts as there are; long ones are among them."""
    assert isinstance(answer, Scores | Scalar), answer
    assert np.isfinite(measure_of(answer))
    json.dumps(dict(answer.detail), allow_nan=False)
    if isinstance(answer, Scores):
        for split, scores in {
            "forget": answer.forget, "unseen": answer.unseen, "retain": answer.retain
        }.items():  # fmt: skip
            if scores is None:
                continue
            rows = answer.rows.get(split)  # type: ignore[call-overload]
            assert len(scores) == (SIZES[split] if rows is None else len(rows))  # type: ignore[index]
            assert np.isfinite(scores).all()
            if not labeled and split != "retain":
                assert rows is None or len(rows) == SIZES[split]  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "least"),
    [(HeadGradientAttack, 0.05), (BlockGradientAttack, 0.05), (Relearn, 0.005)],
    ids=lambda value: value.card.name if hasattr(value, "card") else "",
)
def test_what_was_learned_by_heart_is_seen(kind: type[Probe], least: float) -> None:
    world = known("sample", False)
    found = {name: measure_of(ask(kind, world, name)) for name in world.views}  # type: ignore[arg-type]
    retrained = [value for name, value in found.items() if name != "original"]
    assert found["original"] > max(retrained) + least
    if kind is not Relearn:
        assert np.mean(retrained) == pytest.approx(0.5, abs=0.08)


def test_an_audit_runs_them_all_and_says_why_not() -> None:
    world = known("sample", False)
    case, views = world.forward.case, {one.label: world.views[name] for name, one in candidates()}
    quick = [kind(**QUICK.get(kind, {})) for kind in (CenteredKernelAlignment, *OF_CLASSES)]
    measured, missed = measure_all(quick, case, views, 0, inside_of=views)
    reasons = {one.card.name: (one.kind, one.reason) for one in missed}
    assert not measured
    assert {kind for kind, _ in reasons.values()} == {"skipped"}
    assert reasons["linear-probe"][1] == "the texts have no labels"
    assert "does not apply to the sample scenario" in reasons["cluster-nmi"][1]
    assert "needs 3 of them" in reasons["cka"][1]


def candidates() -> list[tuple[str, Any]]:
    case = known("sample", False).forward.case
    return [("original", case.subject), *((one.label, one) for one in case.retrained)]


def test_models_are_not_changed() -> None:
    world = known("sample", False)
    network = world.networks["original"]
    before = digest_of(copy.deepcopy(network))
    for kind in (BlockGradientAttack, HeadGradientAttack, RelearnFreshHead):
        ask(kind, world)
    assert digest_of(network) == before
    assert network.lm_head.weight is network.token_embedding.weight


def test_head_gradients_are_those_of_whole_texts_and_blocks_of_their_start() -> None:
    world = known("sample", False)
    network, ids = world.networks["original"], torch.from_numpy(world.data["forget"]._ids)
    apart = copy.deepcopy(network)
    apart.lm_head.weight = nn.Parameter(apart.lm_head.weight.detach().clone())
    block = [*apart.blocks[2].parameters(), *apart.norm.parameters()]  # type: ignore[operator]
    expected: dict[type[Probe], list[float]] = {HeadGradientAttack: [], BlockGradientAttack: []}
    for text in ids:
        for kind, of, shown in (
            (HeadGradientAttack, [apart.lm_head.weight], text),
            (BlockGradientAttack, block, text[: apart.context]),
        ):
            given = shown[None]
            loss = nn.functional.cross_entropy(apart(given), apart.targets(given))
            found = torch.autograd.grad(loss, of)
            expected[kind].append(
                -float(torch.cat([each.flatten() for each in found]).norm().log())
            )
    layer, _, parameters = last_block(world.views["original"])
    # the normalization behind the last block is none of its own
    assert (layer, len(parameters)) == ("blocks.1", len(block))
    for kind, wanted in expected.items():
        answer = ask(kind, world)
        assert isinstance(answer, Scores)
        np.testing.assert_allclose(answer.forget, wanted, rtol=0, atol=1e-3)


def test_one_class_is_a_point_to_be_near_to() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3)) @ np.diag([1.0, 2.0, 5.0])
    geometry = Geometry.of({0: features})
    found = geometry.signals(features, np.zeros(200, dtype=np.int64))
    covariance = np.cov(features.T, bias=True)
    ridge = 0.1 * np.trace(covariance) / 3
    away = features - features.mean(axis=0)
    squares = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance + ridge * np.eye(3)), away)
    np.testing.assert_allclose(found[:, 0], np.sqrt(squares), rtol=1e-6)
    assert found.shape == (200, 1)


def test_a_head_is_no_weight_of_its_own_under_another_name() -> None:
    view = known("sample", False).views["original"]
    assert has_weights(view.tail("blocks.2"), view.head.name)
    assert not has_weights(view.tail("norm"), view.head.name)


SCHEDULE = Schedule(
    marks=(0, 2), lr=0.03, momentum=0.9, clip=1.0, spread=100.0, n_forget=6, n_retain=20
)


def relearned(view: WhiteBox, fresh_head: bool) -> Any:
    rows = np.arange(SIZES["forget"], dtype=np.int64)
    scales = scales_of(view, SCHEDULE, rows, 0, fresh_head=fresh_head)
    rng = np.random.default_rng(0)
    return relearn(view, SCHEDULE, scales, rows, rows, rng, fresh_head=fresh_head)


def test_relearning_starts_where_the_model_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    view = known("sample", False).views["original"]
    tokens = view.tokens("forget")
    monkeypatch.setattr("unaudit.training.likelihood.ELEMENTS", 100)
    found = relearned(view, False)
    np.testing.assert_allclose(found.loss[0], -tokens.log_confidence, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        found.confidence[0], np.exp(tokens.log_confidence), rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(found.correct[0], tokens.hit_rate)
    assert found.loss[1].mean() < found.loss[0].mean()


def test_relearning_goes_a_part_of_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    view = known("sample", False).views["original"]
    whole = relearned(view, False)
    for name, bound in {
        "in_parts.LOGITS": {"cpu": 1, "cuda": 1},
        "in_parts.KEPT": {"cpu": 1, "cuda": 1},
        "in_parts.ROWS": 1,
        "in_parts.TOKENS": 1,
        "likelihood.ELEMENTS": 100,
        "likelihood.TOKENS": 40,
    }.items():
        monkeypatch.setattr(f"unaudit.training.{name}", bound)
    rows: list[int] = []
    kept = Causal.logits_of

    def noted(self: Causal, hidden: Tensor) -> Tensor:
        rows.append(len(hidden))
        return kept(self, hidden)

    monkeypatch.setattr(Causal, "logits_of", noted)
    parts = relearned(view, False)
    assert max(rows) <= WIDTH  # as many as there are numbers in a hidden state
    np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-4)


def test_a_fresh_head_guesses_and_leaves_the_embedding_alone() -> None:
    view = known("sample", False).views["original"]
    network: Any = _copy(view, True)
    own: Any = _copy(view, False)
    assert own.lm_head.weight is own.token_embedding.weight
    assert not network.lm_head.weight.any()
    assert torch.equal(network.token_embedding.weight, own.token_embedding.weight)
    found = relearned(view, True)
    np.testing.assert_allclose(found.loss[0], np.log(24), rtol=1e-6)
    assert found.loss[1].mean() < found.loss[0].mean()


def test_a_shared_weight_is_trained_in_the_heads_coordinates() -> None:
    view = known("sample", False).views["original"]
    rows = np.arange(SIZES["forget"], dtype=np.int64)
    shared, apart = (
        scales_of(view, SCHEDULE, rows, 0, fresh_head=fresh) for fresh in (False, True)
    )
    assert shared["token_embedding.weight"] is shared["lm_head.weight"]
    torch.testing.assert_close(apart["lm_head.weight"], shared["lm_head.weight"])
    assert not torch.equal(apart["token_embedding.weight"], shared["lm_head.weight"])
