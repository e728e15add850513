"""What 'unaudit plan' says will be skipped, 'unaudit check' skips, and for the same reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from tests.hugging_face import causal_folder, words, write_jsonl, write_texts
from tests.shadows.planned import plan_in, workshop_of
from unaudit.case import Candidate, Case, build_case
from unaudit.engine.store import Store
from unaudit.evidence import Evidence, Probe, ProbeCard, Scalar, Skipped
from unaudit.forecast import Preview, preview
from unaudit.loading import LoadedModel
from unaudit.loading.networks import mlp
from unaudit.pipeline import audit
from unaudit.plan import AuditPlan
from unaudit.references import planned
from unaudit.rehearsal import foreseen, unscored, will_run

QUICK = {name: {"steps": 1, "runs": 2} for name in ("relearn", "relearn-fresh-head")}
OFF = {name: {"enabled": False} for name in (*QUICK, "cka", "feature-distance")}
NO_RELEARNING = "a probe of the recoverability family: no pass without one (see 'Will not run')"
"""Twelve examples are too few to relearn."""


def agreed(plan: AuditPlan) -> Preview:
    """What the plan says, held against the audit."""
    told, record = preview(plan), audit(plan)
    skipped = {skip.probe: skip.reason for skip in record.skipped}
    assert {missed.card.name: missed.reason for missed in told.will_not_run} == skipped
    assert [card.name for card in told.will_run] == [x.probe for x in record.findings]
    return told


def reasons(told: Preview) -> dict[str, str]:
    return {missed.card.name: missed.reason for missed in told.will_not_run}


def language_plan(folder: Path, unseen: int, labels: int = 1, **sections: Any) -> AuditPlan:
    """A language model that is to forget every third of sixty texts, with references."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("unseen", unseen)):
        texts = [" ".join(rng.choice(words(), 6)) for _ in range(count)]
        path = folder / f"{name}.jsonl"
        if labels == 1:
            write_texts(path, texts, name)
        else:
            write_jsonl(path, texts, [row % labels for row in range(count)], name)
    (folder / "forget.txt").write_text("".join(f"train-{row}\n" for row in range(0, 60, 3)))
    models = ("subject", "original", "one", "two", "three")
    paths = [str(causal_folder(folder / name, seed, n_layer=1)) for seed, name in enumerate(models)]
    return AuditPlan.build(
        {
            "model": {"path": paths[0]},
            "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "unseen")},
            "request": {"forget": str(folder / "forget.txt"), "scenario": "sample"},
            "references": {"original": paths[1], "retrained": paths[2:]},
            "probes": OFF,
            "run": {"store": str(folder / "store"), "bootstrap": 200},
            **sections,
        }
    )


def test_plan_and_check_agree_on_texts_without_labels(tmp_path: Path) -> None:
    told = reasons(agreed(language_plan(tmp_path, 19)))
    for name in ("linear-probe", "head-recovery", "idi"):
        assert told[name] == "the texts have no labels"
    assert told["weight-distance"].startswith("units cannot be matched in this architecture: a GPT")
    found = "needs at least 20 unseen texts of the forget classes"
    assert told["zlib"] == f"{found}, found 19"
    assert told["loss"] == "needs at least 20 unseen examples of the forget classes, found 19"
    assert told["miars-1"].endswith("20 unseen examples in classes with 10 unseen and 10 forget "
                                    "examples each, found 19")  # fmt: skip


def test_plan_and_check_agree_on_shadow_models(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"probes": QUICK, "run": {"bootstrap": 200}}
    told = agreed(plan_in(tmp_path, shadows={"count": 8}, **sections))
    assert "lira" in {card.name for card in told.will_run}
    assert reasons(told)["klom"].endswith(
        "at least 12 shadow models that were never trained on them, found 0; train more shadow "
        "models (--shadows N)"
    )
    assert told.assurance_level == 4
    assert told.missing == (NO_RELEARNING,)


def test_labels_are_all_that_some_probes_lack(tmp_path: Path) -> None:
    plan = language_plan(tmp_path, 40, labels=2)
    assert {"linear-probe", "head-recovery", "idi"} <= {x.name for x in preview(plan).will_run}


def test_what_would_lift_the_level_is_said(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, recipe=None)
    assert preview(plan).assurance_level == 1
    assert preview(plan).missing[0].startswith("the original model (--original)")
    trained = preview(plan_in(tmp_path))
    assert trained.assurance_level == 3
    assert trained.missing == (
        NO_RELEARNING,
        "shadow models (--shadows N): with an attack by them, level 4",
    )
    outside = preview(plan_in(tmp_path, policy={"access": "black-box"}))
    assert outside.assurance_level == 2
    assert outside.missing[-1].startswith("white-box access (--access white-box): nothing inside")
    texts = preview(language_plan(tmp_path, 40))
    assert texts.missing[-1].startswith("shadow models (--shadows N and a [recipe] to train them")
    off = {name: {"enabled": False} for name in ("lira", "rmia", "klom")}
    none = preview(plan_in(tmp_path, shadows={"count": 8}, probes=off))
    assert none.assurance_level == 3
    assert none.missing[-1].startswith("an attack with shadow models that can run here")


@dataclass(frozen=True)
class Declining:
    """Declines for what ``when`` finds in its views."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="declining", title="", family="membership", measures="", source="", cost="",
        blind_spots=(),
    )  # fmt: skip
    when: Any

    def __call__(self, *views: Any) -> Evidence:
        found = self.when(*views[:-1])
        return Scalar(0.0, 0.0) if found is None else Skipped(str(found))


@dataclass(frozen=True)
class Inside(Declining):
    card: ClassVar[ProbeCard] = replace(Declining.card, access="white-box")


@dataclass(frozen=True)
class Pairs(Declining):
    card: ClassVar[ProbeCard] = replace(Inside.card, comparative=True)


def caught(look: Any) -> Any:
    """What a probe would say that takes every error for a reason to decline."""

    def when(view: Any) -> object:
        try:
            look(view)
        except Exception as error:
            return type(error).__name__
        return None

    return when


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    plan, store = plan_in(folder), Store(folder / "store")
    return planned(build_case(plan, store), plan, store).case


KNOWN: dict[str, tuple[type[Declining], Any, object]] = {
    "labels": (Declining, lambda view: view.predictions("forget").labels.tolist()[:1], None),
    "size": (Declining, lambda view: len(view.outputs("retain")), 48),
    "classes": (Declining, lambda view: (view.n_classes, view.forget_classes), (3, (0, 1, 2))),
    "scenario": (Inside, lambda view: (view.scenario, view.predicts_tokens), ("sample", False)),
    "labels inside": (Inside, lambda view: len(view.labels("unseen")), 30),
    "weights": (Inside, lambda view: len(list(view.private_copy().parameters())), 4),
    "passed on": (Declining, lambda view: [view.outputs("unseen").correct[:3]] and 1, 1),
}


@pytest.mark.parametrize("what", KNOWN)
def test_what_is_known_can_be_declined_for(what: str, case: Case) -> None:
    kind, when, expected = KNOWN[what]
    found = foreseen(kind(when), case, 0)
    if expected is None:
        expected = case.splits["forget"].labels.tolist()[:1]
    assert found == str(expected)


UNKNOWN: dict[str, tuple[type[Declining], Any]] = {
    "logits": (Declining, lambda view: np.asarray(view.outputs("forget").logits)),
    "hits": (Declining, lambda view: view.predictions("forget").hit_rate.mean()),
    "one": (Declining, lambda view: view.predictions("forget").hit_rate[0] > 0.5),
    "length": (Declining, lambda view: len(view.outputs("forget").correct)),
    "truth": (Declining, lambda view: bool(view.outputs("forget").correct)),
    "equal": (Declining, lambda view: view.outputs("forget").predicted == 1),
    "each": (Declining, lambda view: [*view.outputs("forget").margin]),
    "chunks": (Declining, lambda view: view.outputs("forget").chunks()),
    "queries": (Declining, lambda view: view.queries("forget").sum()),
    "features": (Inside, lambda view: view.features("forget")),
    "layers": (Inside, lambda view: view.layers),
    "head": (Inside, lambda view: view.head),
    "inputs": (Inside, lambda view: next(view.inputs("forget"))),
    "tail": (Inside, lambda view: view.tail("features")),
    "device": (Inside, lambda view: view.device),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_nothing_that_a_model_says_is_foreseen(what: str, case: Case) -> None:
    kind, look = UNKNOWN[what]
    asked = []

    def when(view: Any) -> object:
        asked.append(caught(look)(view))
        return asked[-1]

    assert foreseen(kind(when), case, 0) is None
    assert asked == ["_UnaskedError"]


def _fails(_: object) -> object:
    raise ZeroDivisionError


def test_a_probe_that_breaks_is_run(case: Case) -> None:
    probes: list[Probe] = [Declining(_fails), Declining(lambda _: "no"), Inside(lambda _: None)]
    kept, missed = will_run(probes, case, 0)
    assert kept == [probes[0], probes[2]]
    assert [(miss.card, miss.kind, miss.reason) for miss in missed] == [
        (Declining.card, "skipped", "no")
    ]


def shapes_differ(one: Any, other: Any) -> object:
    shapes = [
        [tuple(value.shape) for value in view.private_copy().state_dict().values()]
        for view in (one, other)
    ]
    return None if shapes[0] == shapes[1] else "other shapes"


def test_models_are_compared_by_their_layers(case: Case) -> None:
    assert foreseen(Pairs(shapes_differ), case, 0) is None
    model = case.retrained[-1].model
    assert isinstance(model, LoadedModel)
    wider = Candidate("retrained", "wider", replace(model, module=mlp((16, 9, 3))))
    odd = replace(case, retrained=(*case.retrained[:-1], wider))
    assert foreseen(Pairs(shapes_differ), odd, 0) == "other shapes"


def test_copies_have_no_numbers_and_the_model_keeps_its_own(case: Case) -> None:
    seen: list[nn.Module] = []

    def look(view: Any) -> None:
        seen.append(view.private_copy())

    assert isinstance(case.subject.model, LoadedModel)
    module = case.subject.model.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert foreseen(Inside(look), case, 0) is None
    assert all(value.is_meta for value in seen[0].state_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    plan = language_plan(tmp_path, 20)
    tied = []

    def look(view: Any) -> None:
        copy = view.private_copy()
        tied.append(copy.lm_head.weight is copy.transformer.wte.weight)

    languages = replace(Inside.card, tasks=frozenset({"language-modeling"}))
    kind = type("Languages", (Inside,), {"card": languages})
    case = build_case(plan, Store(tmp_path / "store"))
    assert foreseen(kind(look), case, 0) is None
    assert tied == [True]
    counts = case.splits["forget"].dataset.lengths[case.splits["forget"].rows] - 1  # type: ignore[attr-defined]
    tokens = type("Tokens", (Declining,), {"card": replace(languages, access="black-box")})
    found = foreseen(tokens(lambda view: view.tokens("forget").counts.tolist()), case, 0)
    assert found == str(counts.tolist())
    assert foreseen(tokens(caught(lambda view: view.tokens("forget").log_p)), case, 0) is None


def test_training_sets_of_shadow_models_are_known_and_no_answers(tmp_path: Path) -> None:
    told: list[tuple[int, ...]] = []

    def look(view: Any) -> object:
        known = view.shadows.splits["forget"]
        told.append(known.member.shape)
        return float(known.scores.mean())

    plan = plan_in(tmp_path, shadows={"count": 8})
    workshop = workshop_of(plan)
    found = planned(workshop.case, plan, workshop.store)
    assert found.shadows is not None
    shadows = unscored(found.shadows.design, ("plain",), None)
    assert foreseen(Declining(look), replace(found.case, shadows=shadows), 0) is None
    assert told == [(8, 12)]
