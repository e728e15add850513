"""The threat model is a type: who is given which view, and what happens where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.torch import save_file

from unaudit.evidence import PROBES, ProbeCard, Scalar
from unaudit.loading.networks import mlp
from unaudit.measuring import measure_all
from unaudit.pipeline import audit
from unaudit.plan import AuditPlan
from unaudit.views import BlackBox
from unaudit.white_box import WhiteBox

from .networks import MAKES, Make, examples, made
from .worlds import Arrays, case_of, forward_of, recorded


def card(name: str, access: str, comparative: bool = False) -> ProbeCard:
    return ProbeCard(
        name=name, title=name, family="representation", measures="m", source="s", cost="c",
        blind_spots=("b",), access=access, comparative=comparative,  # type: ignore[arg-type]
    )  # fmt: skip


@dataclass(frozen=True)
class Outside:
    card: ClassVar[ProbeCard] = card("outside", "black-box")
    seen: ClassVar[list[BlackBox]] = []

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Scalar:
        self.seen.append(view)
        return Scalar(0.0, 1.0)


@dataclass(frozen=True)
class Inside:
    card: ClassVar[ProbeCard] = card("inside", "white-box")
    seen: ClassVar[list[BlackBox]] = []

    def __call__(self, view: WhiteBox, rng: np.random.Generator) -> Scalar:
        self.seen.append(view)
        return Scalar(float(view.features("forget").mean()), 0.1)


@dataclass(frozen=True)
class InsideOfTwo:
    card: ClassVar[ProbeCard] = card("inside-of-two", "white-box", comparative=True)
    seen: ClassVar[list[BlackBox]] = []

    def __call__(self, view: WhiteBox, reference: WhiteBox, rng: np.random.Generator) -> Scalar:
        self.seen.extend((view, reference))
        return Scalar(float(np.abs(view.head.weight - reference.head.weight).mean()), 0.1)


@pytest.fixture(autouse=True)
def unseen_yet() -> None:
    for kind in (Outside, Inside, InsideOfTwo):
        kind.seen.clear()


MAKE: Make = MAKES["mlp"]
LABELS = np.arange(10, dtype=np.int64) % 5


def test_each_probe_is_given_the_view_of_its_access(tmp_path: Path) -> None:
    names = ("subject", "original", "retrained 1", "retrained 2", "retrained 3")
    networks = {name: made(MAKE, seed) for seed, name in enumerate(names)}
    forward = forward_of(
        case_of(networks, {"forget": Arrays(examples(MAKE, 10), LABELS)}), tmp_path
    )
    candidates = forward.case.candidates
    view_of = {one.label: forward.view(one) for one in candidates}
    inside_of = {one.label: forward.white_view(one) for one in candidates}
    measured, missed = measure_all(
        [Outside(), Inside(), InsideOfTwo()], forward.case, view_of, 0, inside_of=inside_of
    )
    assert missed == []
    assert len(measured) == 3
    assert len(Outside.seen) == 5
    assert all(type(view) is BlackBox for view in Outside.seen)
    assert {id(view) for view in Inside.seen} == {id(view) for view in inside_of.values()}
    assert len(Inside.seen) == 5
    assert all(isinstance(view, WhiteBox) for view in InsideOfTwo.seen)
    # subject and original against 3 retrained, 3 retrained against 2 others; two views each
    assert len(InsideOfTwo.seen) == 2 * (3 + 3 + 3 * 2)


def test_a_model_without_weights_keeps_white_box_probes_from_running(tmp_path: Path) -> None:
    api = recorded(np.zeros((10, 5), dtype=np.float32), LABELS, "retrained 1")
    data = {"forget": Arrays(examples(MAKE, 10), LABELS)}
    forward = forward_of(case_of({"subject": made(MAKE), "retrained 1": api}, data), tmp_path)  # type: ignore[arg-type]
    view_of = {one.label: forward.view(one) for one in forward.case.candidates}
    measured, missed = measure_all([Outside(), Inside()], forward.case, view_of, 0)
    assert [one.card.name for one in measured] == ["outside"]
    assert [(one.card.name, one.kind) for one in missed] == [("inside", "skipped")]
    assert missed[0].reason == (
        "looks inside every model, and retrained 1 (api.npz) is recorded outputs; hand in its file"
    )


@pytest.fixture
def plan(tmp_path: Path) -> AuditPlan:
    """Four untrained networks and some noise, as files."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 60), ("unseen", 30)):
        inputs = rng.normal(size=(n, 16)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", x=inputs, y=np.arange(n) % 5)
    (tmp_path / "forget.txt").write_text("\n".join(map(str, range(12))), encoding="utf-8")
    for seed, name in enumerate(("subject", "original", "r1", "r2", "r3")):
        network = mlp([16, 12, 9, 5])
        network.load_state_dict(made(MAKE, seed).state_dict())
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    config = tmp_path / "unaudit.toml"
    config.write_text(
        f"""
schema_version = 1
[model]
path = "subject.safetensors"
arch = "unaudit:mlp?widths=16-12-9-5"
[data]
train = "train.npz"
unseen = "unseen.npz"
[request]
forget = "forget.txt"
[references]
original = "original.safetensors"
retrained = ["r1.safetensors", "r2.safetensors", "r3.safetensors"]
[policy]
access = "white-box"
[run]
bootstrap = 200
store = "{(tmp_path / "store").as_posix()}"
""",
        encoding="utf-8",
    )
    return AuditPlan.from_toml(config)


@pytest.fixture
def only_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    toys = {kind.card.name: kind for kind in (Outside, Inside, InsideOfTwo)}
    monkeypatch.setattr(PROBES, "_items", toys)


@pytest.mark.usefixtures("only_toys")
def test_an_audit_gives_the_inside_to_white_box_probes(plan: AuditPlan, tmp_path: Path) -> None:
    record = audit(plan)
    found = {finding.probe for finding in record.findings}
    assert {"outside", "inside", "inside-of-two"} <= found
    assert all(type(view) is BlackBox for view in Outside.seen)
    assert all(type(view) is WhiteBox for view in Inside.seen)
    # logits and features of five models on three splits
    assert len(list((tmp_path / "store").rglob("*.npy"))) >= 2 * 5 * 3


@pytest.mark.usefixtures("only_toys")
def test_a_policy_of_black_box_access_keeps_them_outside(plan: AuditPlan, tmp_path: Path) -> None:
    policy = plan.policy.model_copy(update={"access": "black-box"})
    record = audit(plan.model_copy(update={"policy": policy}))
    assert Inside.seen == InsideOfTwo.seen == []
    left_out = {skip.probe for skip in record.skipped}
    assert {"inside", "inside-of-two"} <= left_out
    kept = list((tmp_path / "store").rglob("*.npy"))
    widths = {np.load(path, mmap_mode="r").shape[-1] for path in kept}
    assert 9 not in widths
