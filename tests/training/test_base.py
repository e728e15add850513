"""Training from given weights: which fit, what is drawn, and that everything starts from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from tests.hugging_face import (
    CONTEXT,
    causal_folder,
    config_of,
    network_of,
    save,
    trained_tokenizer,
    words,
    write_texts,
)
from tests.shadows.planned import FORGET, RECIPE, TRAIN, WIDTHS, plan_in, workshop_of
from tests.shadows.world import Refusing, arrays_of
from unaudit.cost import Estimator
from unaudit.engine.jobs import InProcess
from unaudit.engine.store import Store
from unaudit.errors import InputError, UsageError
from unaudit.loading import LoadedModel, load_model
from unaudit.loading.networks import mlp, resnet
from unaudit.loading.partial import load_partly
from unaudit.plan import AuditPlan, RecipeSection
from unaudit.progress import SILENT
from unaudit.references import complete, wanted_by
from unaudit.shadows.job import make_shadow, network
from unaudit.shadows.make import prepare
from unaudit.training import Recipe, fit, initialize, initialize_layer
from unaudit.training.model_job import TRAIN as ORIGINAL
from unaudit.training.together import Together
from unaudit.unlearners import load_unlearners
from unaudit.workshop import Workshop


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(module: nn.Module, seed: int) -> nn.Module:
    return initialize(module, generator(seed))


def written(path: Path, module: nn.Module, seed: int = 5) -> str:
    save_file(drawn(module, seed).state_dict(), path)
    return str(path)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_all_of_a_model_of_the_same_shape_fits(tmp_path: Path) -> None:
    path = written(tmp_path / "base.safetensors", resnet(8, 4, 3, 1))
    network = drawn(resnet(8, 4, 3, 1), 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = load_partly(path, network, None)
    assert equal(found.tensors, load_file(path))
    assert (found.fresh, found.name) == ((), "base.safetensors")
    assert equal(before, network.state_dict())


def test_a_head_of_other_classes_stays_out_as_a_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "base.safetensors", mlp((16, 8, 10)))
    found = load_partly(path, mlp((16, 8, 3)), None)
    assert found.fresh == ("head",)
    assert not any(name.startswith("head.") for name in found.tensors)
    assert len(found.tensors) == 2


def test_what_a_training_wrapper_added_is_taken_off_and_precision_is_restored(
    tmp_path: Path,
) -> None:
    state = drawn(mlp((16, 8, 3)), 2).state_dict()
    path = tmp_path / "base.safetensors"
    save_file({f"module.{name}": value.bfloat16() for name, value in state.items()}, path)
    found = load_partly(str(path), mlp((16, 8, 3)), None)
    assert equal(found.tensors, {name: value.bfloat16().float() for name, value in state.items()})


@pytest.mark.parametrize(
    ("other", "own", "said"),
    [
        (lambda: resnet(14, 4, 3, 1), lambda: resnet(8, 4, 3, 1), "layers more"),
        (lambda: resnet(8, 4, 3, 1), lambda: resnet(14, 4, 3, 1), "it lacks"),
        (lambda: resnet(8, 4, 3, 1), lambda: resnet(8, 16, 3, 1), "it fills"),
        (lambda: resnet(8, 4, 3, 1), lambda: mlp((16, 8, 3)), "it fills 0%"),
    ],
)
def test_another_architecture_is_refused(other: Any, own: Any, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "base.safetensors", other())
    with pytest.raises(UsageError, match=rf"is of another architecture than the model: .*{said}"):
        load_partly(path, own(), None)


def test_recorded_outputs_have_no_weights() -> None:
    with pytest.raises(UsageError, match="recorded outputs have no weights"):
        load_partly("outputs:a.npz", mlp((4, 3)), None)


def test_broken_weights_are_named(tmp_path: Path) -> None:
    state = drawn(mlp((16, 8, 3)), 2).state_dict()
    state["head.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "base.safetensors")
    with pytest.raises(
        InputError, match=r"base\.safetensors: its weight 'head\.weight' holds 1 NaN"
    ):
        load_partly(str(tmp_path / "base.safetensors"), mlp((16, 8, 3)), None)
    with pytest.raises(InputError, match="absent"):
        load_partly(str(tmp_path / "absent"), mlp((4, 3)), None)


def test_a_language_model_lends_its_body_to_a_classifier(tmp_path: Path) -> None:
    tokenizer = trained_tokenizer(words(), framed=False)
    config = config_of("gpt2", tokenizer.get_vocab_size(), 3)
    reader = load_model(str(save(tmp_path / "r", network_of("gpt2", config), tokenizer)), arch=None)
    folder = causal_folder(tmp_path / "w", 3, n_embd=16, n_positions=CONTEXT, n_inner=32)
    writer = load_model(str(folder), arch=None)
    assert isinstance(reader, LoadedModel)
    assert isinstance(writer, LoadedModel)
    found = load_partly(str(tmp_path / "w"), reader.module, None)
    assert found.fresh == ("score",)
    body = {k: v for k, v in writer.module.state_dict().items() if k.startswith("transformer.")}
    assert equal(found.tensors, body)
    # a file of the same weights, which holds the embedding under one of its two names
    found = load_partly(str(tmp_path / "w" / "model.safetensors"), writer.module, None)
    assert found.fresh == ()
    again = load_partly(str(tmp_path / "w"), writer.module, None)
    assert equal(again.tensors, writer.module.state_dict())


def based(folder: Path, widths: tuple[int, ...] = WIDTHS, **sections: Any) -> AuditPlan:
    """A plan whose recipe starts from a file of weights."""
    path = written(folder / "base.safetensors", mlp(widths))
    return plan_in(folder, **{"recipe": {"base": path}, **sections})


def test_the_weights_decide_the_keys_of_all_jobs(tmp_path: Path) -> None:
    plain = workshop_of(plan_in(tmp_path))
    keys = {plain.job(method, "one").key for method in (ORIGINAL, "retrain", "finetune")}
    for seed in (5, 5, 6):
        plan = based(tmp_path)
        written(tmp_path / "base.safetensors", mlp(WIDTHS), seed)
        workshop = workshop_of(plan)
        keys |= {workshop.job(method, "one").key for method in (ORIGINAL, "retrain", "finetune")}
    # none, one and another; the same weights have the same keys
    assert len(keys) == 9
    assert plain.base is None
    assert plain.world()["base"] is None


def by_hand(folder: Path, workshop: Workshop, label: str, base: Mapping[str, Tensor]) -> nn.Module:
    """The recipe as an independent loop."""
    data = np.load(folder / "train.npz")
    kept = np.ones(TRAIN, dtype=bool)
    kept[workshop.case.splits["forget"].rows] = False
    assert kept.sum() == TRAIN - FORGET
    draws = generator(workshop.seed_of(label))
    module = mlp(WIDTHS)
    if "head.weight" not in base:
        initialize_layer(module.get_submodule("head"), draws)
    module.load_state_dict(dict(base), strict=False)
    inputs, labels = torch.from_numpy(data["x"][kept]), torch.from_numpy(data["y"][kept])
    return fit(module, inputs, labels, Recipe(**RECIPE), draws)  # type: ignore[arg-type]


@pytest.mark.parametrize("widths", [WIDTHS, (16, 8, 7)])
def test_retrained_models_start_from_them(widths: tuple[int, ...], tmp_path: Path) -> None:
    plan = based(tmp_path, widths)
    workshop = workshop_of(plan)
    base = load_file(tmp_path / "base.safetensors")
    if widths != WIDTHS:
        base = {name: value for name, value in base.items() if not name.startswith("head.")}
    labels = [f"retrained {number}" for number in (1, 2, 3)]
    jobs = [replace(workshop.job("retrain", label), places=workshop.places()) for label in labels]
    stacked = dict(Together(Refusing()).run(jobs))
    for at, weights in InProcess().run(jobs):
        found = load(weights)
        state = by_hand(tmp_path, workshop, labels[at], base).state_dict()
        for name, value in state.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(load(stacked[at])[name], value, rtol=1e-3, atol=1e-4)


def test_all_seeds_start_from_the_same_weights(tmp_path: Path) -> None:
    plan = based(tmp_path, recipe={"base": str(tmp_path / "base.safetensors"), "lr": 1e-30})
    workshop, base = workshop_of(plan), load_file(tmp_path / "base.safetensors")
    for method in (ORIGINAL, "retrain"):
        for label in ("one", "two"):
            job = replace(workshop.job(method, label), places=workshop.places())
            assert equal(load(job.run()), base)
    section = plan.shadows.model_copy(update={"count": 4})
    shadow = prepare(workshop.case, section, workshop, Estimator(workshop), 0.05)
    places = workshop.places() | workshop.held("unseen")
    jobs = [replace(job, places={**places, **job.places}) for job in shadow.jobs]
    said = [arrays_of(make_shadow(job.inputs, job.places))["scores"] for job in jobs]
    stacked = dict(Together(Refusing()).run(jobs))
    for at, scores in enumerate(said):
        np.testing.assert_allclose(scores, said[0], rtol=1e-6)
        np.testing.assert_allclose(arrays_of(stacked[at])["scores"], said[0], rtol=1e-5, atol=1e-5)


def test_what_was_made_says_what_it_was_made_from(tmp_path: Path) -> None:
    plan = based(tmp_path, (16, 8, 7))
    case = complete(workshop_of(plan).case, plan, Store(tmp_path / "store"))
    assert case.original is not None
    for candidate in (case.original, *case.retrained):
        first, second, third = candidate.model.provenance.notes
        assert first == "made by unaudit from the recipe"
        assert second.startswith("trained from the weights of base.safetensors (sha256 ")
        assert third == "layers that those weights do not fit began at random: 'head'"
    assert len(case.calibrators[0].model.provenance.notes) == 1


def test_an_unlearner_is_told_them(tmp_path: Path) -> None:
    task = workshop_of(based(tmp_path)).task()
    base = task.base()
    assert base is not None
    assert equal(base, load_file(tmp_path / "base.safetensors"))
    assert workshop_of(plan_in(tmp_path)).task().base() is None


def test_a_model_that_saw_the_forget_set_is_refused(tmp_path: Path) -> None:
    subject = str(tmp_path / "subject.safetensors")
    workshop = workshop_of(plan_in(tmp_path, recipe={"base": subject}))
    message = r"^recipe\.base: subject\.safetensors holds the weights of the subject, which saw"
    with pytest.raises(UsageError, match=message):
        workshop.job("retrain", "one")


def test_another_architecture_is_refused_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "other.safetensors", resnet(8, 4, 3, 1))
    workshop = workshop_of(plan_in(tmp_path, recipe={"base": path}))
    with pytest.raises(UsageError, match=r"^recipe\.base: .*other\.safetensors: is of another"):
        workshop.job("retrain", "one")


def test_the_key_is_one_of_the_recipe() -> None:
    assert RecipeSection.model_validate({"base": "a"}).base == "a"
    with pytest.raises(UsageError, match=r"recipe\.base"):
        AuditPlan.build({"recipe": {"base": ""}})


@pytest.fixture
def language(tmp_path: Path) -> AuditPlan:
    """A language model that is to forget four of twenty texts, and a base of its kind."""
    rng = np.random.default_rng(0)
    for name in ("train", "unseen"):
        texts = [" ".join(rng.choice(words(), 6)) for _ in range(20)]
        write_texts(tmp_path / f"{name}.jsonl", texts, name)
    (tmp_path / "forget.txt").write_text("".join(f"train-{row}\n" for row in range(4)))
    sections = {
        "model": {"path": str(causal_folder(tmp_path / "subject", 1))},
        "data": {x: str(tmp_path / f"{x}.jsonl") for x in ("train", "unseen")},
        "request": {"forget": str(tmp_path / "forget.txt")},
        "recipe": {"base": str(causal_folder(tmp_path / "base", 2)), "epochs": 1, "batch": 8},
        "calibration": {"profile": "full", "workers": 1},
        "run": {"store": str(tmp_path / "store")},
    }
    return AuditPlan.build(sections)


def test_a_language_model_is_retrained_from_its_base(language: AuditPlan, tmp_path: Path) -> None:
    workshop = workshop_of(language)
    assert workshop.setting.recipe.lr == 5e-5
    job = replace(workshop.job("retrain", "one"), places=workshop.places())
    base = load_model(str(tmp_path / "base"), arch=None)
    assert isinstance(base, LoadedModel)
    draws = generator(job.inputs["seed"])
    module = network(job.inputs)
    initialize(module, draws)
    module.load_state_dict(base.module.state_dict())
    task = workshop.task()
    kept = ~task.forget
    fit(module, task.inputs[kept], task.labels[kept], workshop.setting.recipe, draws)
    found = load(job.run())
    assert equal(found, module.state_dict())
    assert torch.equal(found["lm_head.weight"], found["transformer.wte.weight"])
    retrained = workshop.candidate("retrained", "one", job.run())
    assert isinstance(retrained.model, LoadedModel)
    assert equal(retrained.model.module.state_dict(), found)


def test_calibrators_are_those_that_know_language_models(language: AuditPlan) -> None:
    workshop = workshop_of(language)
    assert workshop.case.task == "language-modeling"
    known = load_unlearners()
    wanted = set(wanted_by(language, workshop.case).calibrators)
    able = {x for x, kind in known.items() if "language-modeling" in kind.card.tasks}
    assert wanted == able - {"retrain"}
    fewer = {"calibration": {"profile": "standard"}}
    plan = AuditPlan.build({**language.model_dump(exclude_none=True), **fewer})
    assert len(wanted_by(plan, workshop.case).calibrators) == 5
    section = plan.shadows.model_copy(update={"count": 4, "unlearner": "muda"})
    with pytest.raises(UsageError, match="muda is for classifiers, not for language models"):
        prepare(workshop.case, section, workshop, Estimator(workshop), 0.05)


@pytest.mark.parametrize("name", ["head-distillation", "finetune"])
def test_a_calibrator_of_a_language_model_comes_back_as_it_was_made(
    name: str, language: AuditPlan
) -> None:
    workshop = workshop_of(language)
    subject = workshop.case.subject.model
    assert isinstance(subject, LoadedModel)
    made = workshop.make({name: workshop.job(name, name, subject)}, SILENT, "", subject.module)
    found = workshop.candidate("calibrator", name, made[name])
    assert isinstance(found.model, LoadedModel)
    state = found.model.module.state_dict()
    assert equal(state, load(made[name]))
    tied = torch.equal(state["lm_head.weight"], state["transformer.wte.weight"])
    assert tied == (name == "finetune")
