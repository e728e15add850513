"""Shadow models that predict tokens: what they say of texts, and what attacks make of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.black_box.lira import LikelihoodRatioAttack
from attacks.black_box.u_lira import UnlearningLikelihoodRatio
from tests.shadows.world import SIZES, Shadowed, arrays_of
from tests.training.causal import CAUSAL_RECIPE, VOCABULARY, TinyCausal, some_texts
from unaudit.engine.jobs import InProcess
from unaudit.engine.store import Store
from unaudit.errors import UsageError
from unaudit.evidence import Scores, SplitName
from unaudit.shadows import job as shadow_job
from unaudit.shadows.job import make_shadow
from unaudit.shadows.train import train_shadows
from unaudit.token_outputs import TOP, TokenOutputs, log_doubt_of, logit_scaled
from unaudit.tokens import PADDING
from unaudit.training import fit, initialize, likelihood
from unaudit.training.likelihood import log_p
from unaudit.training.together import Together
from unaudit.unlearners import UNLEARNERS, Task
from unaudit.views import BlackBox

ARCH = "py:tests.training.causal:build"
RECIPE = replace(CAUSAL_RECIPE, epochs=12)
TEXTS: dict[str, Any] = {"arch": ARCH, "trusted": True, "recipe": asdict(RECIPE), "n_classes": 1}


@pytest.fixture
def world(tmp_path: Path) -> Shadowed:
    """Texts without labels; the first of the training texts are to be forgotten."""
    train, unseen = SIZES["forget"] + SIZES["retain"], SIZES["unseen"]
    data = {"": some_texts(train, 1), "unseen_": some_texts(unseen, 2)}
    places = {}
    for prefix, ids in data.items():
        for what, array in (("inputs", ids), ("labels", torch.zeros(len(ids), dtype=torch.int64))):
            places[f"{prefix}{what}"] = str(tmp_path / f"{prefix}{what}.npy")
            np.save(places[f"{prefix}{what}"], array.numpy())
    rows: dict[SplitName, Any] = {
        "forget": np.arange(SIZES["forget"]),
        "retain": np.arange(SIZES["forget"], train),
        "unseen": np.arange(unseen),
    }
    source = {"forget": "", "retain": "", "unseen": "unseen_"}
    inputs = {name: data[source[name]][torch.from_numpy(at)] for name, at in rows.items()}
    labels = {name: torch.zeros(len(ids), dtype=torch.int64) for name, ids in inputs.items()}
    return Shadowed(inputs, labels, rows, places, Store(tmp_path / "store"))


def run(job: Any) -> dict[str, Any]:
    return arrays_of(make_shadow(json.loads(json.dumps(job.inputs)), job.places))


def confidence(network: nn.Module, ids: Tensor) -> Any:
    """Of each text by itself."""
    found = []
    for row in ids:
        text = row[row != PADDING]
        with torch.no_grad():
            logits = network(text[None]).double()
        mean = -float(nn.functional.cross_entropy(logits, text[1:]))
        found.append(mean - np.log1p(-np.exp(mean)))
    return np.array(found)


def test_a_shadow_says_how_likely_whole_texts_are(world: Shadowed) -> None:
    design = world.design(unlearning=True)
    job = world.jobs(design, unlearner="finetune", parameters={"epochs": 2}, **TEXTS)[1]
    before = torch.random.get_rng_state()
    said = run(job)
    assert torch.equal(before, torch.random.get_rng_state())
    train = torch.cat([world.inputs["forget"], world.inputs["retain"], world.inputs["unseen"]])
    member = np.zeros(len(train), dtype=bool)
    erased = np.zeros(len(train), dtype=bool)
    starts = {"forget": 0, "retain": SIZES["forget"], "unseen": SIZES["forget"] + SIZES["retain"]}
    member[starts["retain"] + design.core] = True
    assert design.erased is not None
    for name, column in design.columns.items():
        member[starts[name] + design.rows[name]] = design.member[1, column]
        erased[starts[name] + design.rows[name]] = design.erased[1, column]
    draws = torch.Generator().manual_seed(job.inputs["seed"])
    own, labels = train[torch.from_numpy(member)], torch.zeros(int(member.sum()), dtype=torch.int64)
    base = fit(initialize(TinyCausal(), draws), own, labels, RECIPE, draws)
    pool, _ = world.pool(design)
    np.testing.assert_allclose(said["scores"][0], confidence(base, pool), rtol=1e-3, atol=1e-4)
    forget = torch.from_numpy(erased[member])
    task = Task(base, own, labels, forget, 1, "sample", RECIPE)
    unlearned = UNLEARNERS.get("finetune")(epochs=2)(task, draws)  # type: ignore[call-arg]
    np.testing.assert_allclose(
        said["unlearned"][0], confidence(unlearned, pool), rtol=1e-3, atol=1e-4
    )


def test_a_slice_of_the_pool_and_of_the_predictions_is_read_at_a_time(
    world: Shadowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = world.design()
    job = world.jobs(design, **TEXTS)[0]
    whole = run(job)["scores"]
    texts, rows = [], []

    class Counting(TinyCausal):
        def hidden(self, ids: Tensor) -> Tensor:
            if not self.training:
                texts.append(len(ids))
            return super().hidden(ids)

        def logits_of(self, hidden: Tensor) -> Tensor:
            if not self.training:
                rows.append(len(hidden))
            return super().logits_of(hidden)

    monkeypatch.setattr(shadow_job, "module_of", lambda inputs: Counting())
    monkeypatch.setattr(likelihood, "TOKENS", 27)
    monkeypatch.setattr(likelihood, "ELEMENTS", 4 * VOCABULARY)
    np.testing.assert_allclose(run(job)["scores"], whole, rtol=1e-4, atol=1e-5)
    assert max(texts) == 3
    assert max(rows) == 4
    assert sum(texts) == design.member.shape[1]


def test_subjects_and_shadows_are_scaled_alike() -> None:
    means = np.array([-9.0, -0.7, -1e-6, 0.0])
    found = logit_scaled(means)
    assert np.isfinite(found).all()
    p = np.exp(means[:3])
    np.testing.assert_allclose(found[:3], np.log(p) - np.log1p(-p), rtol=1e-6)
    np.testing.assert_allclose(found, means - log_doubt_of(means))
    view = outputs(np.repeat(means, 2), np.full(4, 2))
    np.testing.assert_allclose(view.logit_confidence, found, rtol=1e-6, atol=1e-6)


def outputs(log_p_of_tokens: Any, counts: Any) -> TokenOutputs:
    """With nothing else than attacks with shadow models read."""
    count = len(log_p_of_tokens)
    return TokenOutputs(
        labels=np.zeros(len(counts), dtype=np.int64),
        counts=np.asarray(counts, dtype=np.int64),
        log_p=np.asarray(log_p_of_tokens, dtype=np.float32),
        mean_log_p=np.zeros(count, dtype=np.float32),
        std_log_p=np.ones(count, dtype=np.float32),
        greedy=np.zeros(count, dtype=np.bool_),
        top=np.zeros((count, TOP), dtype=np.float32),
        compressed=np.ones(len(counts), dtype=np.int64),
    )


def test_attacks_tell_texts_that_were_learned(world: Shadowed) -> None:
    design = world.design(16, unlearning=True)
    parameters = {"epochs": 1}
    jobs = world.jobs(design, unlearner="finetune", parameters=parameters, **TEXTS)
    shadows = train_shadows(design, jobs, Together(InProcess()), world.store)
    assert (shadows.models, shadows.unlearner) == (16, "finetune")

    def trained(*splits: SplitName) -> nn.Module:
        draws = torch.Generator().manual_seed(77)
        ids = torch.cat([world.inputs[name] for name in splits])
        labels = torch.zeros(len(ids), dtype=torch.int64)
        return fit(initialize(TinyCausal(), draws), ids, labels, RECIPE, draws)

    def score(network: nn.Module, probe: Any) -> float:
        said = {}
        for name, ids in world.inputs.items():
            counts = network.counts(ids).numpy()  # type: ignore[operator]
            said[name] = outputs(log_p(network, ids).numpy(), counts)
        view = BlackBox(
            {name: lambda name=name: said[name] for name in said},
            scenario="sample",
            forget_classes=(0,),
            n_classes=1,
            shadows=shadows,
        )
        found = probe(view, np.random.default_rng(0))
        assert isinstance(found, Scores), found
        assert found.unseen is not None
        return float(found.forget.mean() - found.unseen.mean())

    original, retrained = trained("forget", "retain"), trained("retain")
    assert score(original, LikelihoodRatioAttack()) > score(retrained, LikelihoodRatioAttack()) + 1
    unlearn = UNLEARNERS.get("finetune")(**parameters)
    ids = torch.cat([world.inputs["forget"], world.inputs["retain"]])
    forget = torch.arange(len(ids)) < SIZES["forget"]
    labels = torch.zeros(len(ids), dtype=torch.int64)
    task = Task(original, ids, labels, forget, 1, "sample", RECIPE)
    unlearned = unlearn(task, torch.Generator().manual_seed(3))
    attack = UnlearningLikelihoodRatio()
    assert score(unlearned, attack) > score(retrained, attack) + 0.1


def test_shadows_may_start_from_given_weights(world: Shadowed, tmp_path: Path) -> None:
    from unaudit.training.model_job import weights_of

    given = initialize(TinyCausal(), torch.Generator().manual_seed(11))
    place = tmp_path / "base.npy"
    np.save(place, np.frombuffer(weights_of(given), dtype=np.uint8))
    design = world.design()
    plain = world.jobs(design, **TEXTS)[0]
    job = world.jobs(design, base="abc", **TEXTS)[0]
    assert job.key != plain.key
    still = {**asdict(RECIPE), "lr": 0.0, "epochs": 1}
    job = world.jobs(design, base="abc", **{**TEXTS, "recipe": still})[0]
    job = replace(job, places={**job.places, "base": str(place)})
    pool, _ = world.pool(design)
    np.testing.assert_allclose(run(job)["scores"][0], confidence(given, pool), rtol=1e-3, atol=1e-4)
    with pytest.raises(KeyError):
        run(replace(job, places={k: v for k, v in job.places.items() if k != "base"}))


def test_an_unlearner_of_classifiers_is_refused(world: Shadowed) -> None:
    design = world.design(unlearning=True)
    job = world.jobs(design, unlearner="muda", **{**TEXTS, "scenario": "class"})[0]
    with pytest.raises(UsageError, match="muda is for classifiers, not for language models"):
        run(job)
