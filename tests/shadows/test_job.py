"""One shadow model: trained on its mask, asked, made to unlearn; against the same done by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.shadows.world import MLP, RECIPE, RESNET, Shadowed, arrays_of, shadowed
from unaudit.engine.jobs import Job
from unaudit.errors import InputError, UsageError
from unaudit.loading.networks import mlp, resnet
from unaudit.shadows.design import Design
from unaudit.shadows.examples import Examples
from unaudit.shadows.job import layout_of, logit_confidence, make_shadow
from unaudit.shadows.queries import alter
from unaudit.training import DivergedError, fit, initialize
from unaudit.training.augment import flip
from unaudit.unlearners import UNLEARNERS, Task
from unaudit.views import Outputs


@pytest.fixture
def world(tmp_path: Path) -> Shadowed:
    return shadowed(tmp_path)


@pytest.fixture
def images(tmp_path: Path) -> Shadowed:
    return shadowed(tmp_path, (1, 8, 8))


def run(job: Job) -> dict[str, Any]:
    # as a worker of another process would get it
    return arrays_of(make_shadow(json.loads(json.dumps(job.inputs)), job.places))


def training_set(world: Shadowed, design: Design, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, labels and what is erased, in the order of training data, then unseen data."""
    found = []
    for name, column in design.columns.items():
        for position, member, erased in zip(
            design.rows[name],
            design.member[number, column],
            design.member[number, column]
            if design.erased is None
            else design.erased[number, column],
            strict=True,
        ):
            if member:
                found.append((name == "unseen", world.rows[name][position], erased, name, position))
    found += [(False, world.rows["retain"][at], False, "retain", at) for at in design.core]
    found.sort(key=lambda one: one[:2])
    return (
        torch.stack([world.inputs[name][at] for *_, name, at in found]),
        torch.stack([world.labels[name][at] for *_, name, at in found]),
        torch.tensor([bool(one[2]) for one in found]),
    )


def asked(module: nn.Module, world: Shadowed, design: Design, query: str = "plain") -> Any:
    inputs, labels = world.pool(design)
    with torch.no_grad():
        logits = module(alter(inputs, query)).numpy()
    return Outputs(logits, labels.numpy()).logit_confidence


def by_hand(
    world: Shadowed,
    design: Design,
    job: Job,
    build: Callable[[], nn.Module] = lambda: mlp((16, 8, 3)),
    **options: Any,
) -> tuple[nn.Module, torch.Generator]:
    generator = torch.Generator().manual_seed(job.inputs["seed"])
    inputs, labels, _ = training_set(world, design, job.inputs["number"])
    base = initialize(build(), generator)
    return fit(base, inputs, labels, RECIPE, generator, **options), generator


def test_a_shadow_is_trained_on_its_mask_and_nothing_else(world: Shadowed) -> None:
    design = world.design()
    for number, job in enumerate(world.jobs(design)):
        before = torch.random.get_rng_state()
        said = run(job)
        assert torch.equal(before, torch.random.get_rng_state())
        assert list(said) == ["scores"]
        assert said["scores"].dtype == np.float32
        wanted = asked(by_hand(world, design, job)[0], world, design)
        np.testing.assert_allclose(said["scores"], wanted[None], rtol=1e-4, atol=1e-5)
        assert number == job.inputs["number"]


def test_every_query_is_asked(images: Shadowed) -> None:
    design = images.design()
    queries = ("plain", "flip", "shift 1,-2")
    job = images.jobs(design, arch=RESNET, queries=queries, augment="flip")[1]
    said = run(job)["scores"]
    base, _ = by_hand(images, design, job, lambda: resnet(8, 2, 3, 1), augment=flip)
    assert said.shape == (3, design.member.shape[1])
    for row, query in zip(said, queries, strict=True):
        wanted = asked(base, images, design, query)
        np.testing.assert_allclose(row, wanted, rtol=1e-3, atol=1e-3)
    assert not np.allclose(said[0], said[1])
    assert not np.allclose(said[0], said[2])


def test_a_base_unlearns_its_own_forget_set(world: Shadowed) -> None:
    design = world.design(unlearning=True)
    job = world.jobs(design, unlearner="finetune", parameters={"lr": 0.05, "epochs": 2})[2]
    said = run(job)
    assert list(said) == ["scores", "unlearned"]
    base, generator = by_hand(world, design, job)
    inputs, labels, forget = training_set(world, design, 2)
    assert design.erased is not None
    assert forget.sum() == design.erased[2].sum()
    task = Task(base, inputs, labels, forget, 3, "sample", RECIPE)
    unlearned = UNLEARNERS.get("finetune")(lr=0.05, epochs=2)(task, generator)  # type: ignore[call-arg]
    for key, module in (("scores", base), ("unlearned", unlearned)):
        wanted = asked(module, world, design)
        np.testing.assert_allclose(said[key], wanted[None], rtol=1e-4, atol=1e-5)
    assert not np.allclose(said["scores"], said["unlearned"])


def test_an_unlearner_may_consume_validation_examples(world: Shadowed, tmp_path: Path) -> None:
    design = world.design(unlearning=True)
    (job, *_) = world.jobs(design, unlearner="sure")
    with pytest.raises(InputError, match="sure needs validation examples"):
        run(job)
    places = dict(job.places)
    for what, values in (("inputs", world.inputs), ("labels", world.labels)):
        places[f"validation_{what}"] = str(tmp_path / f"held-{what}.npy")
        np.save(places[f"validation_{what}"], values["validation"].numpy())
    assert np.isfinite(run(replace(job, places=places))["unlearned"]).all()


def test_without_unseen_data(world: Shadowed) -> None:
    del world.labels["unseen"]
    places = {name: path for name, path in world.places.items() if "unseen" not in name}
    design = world.design()
    job = world.jobs(design, places=places)[0]
    wanted = asked(by_hand(world, design, job)[0], world, design)
    np.testing.assert_allclose(run(job)["scores"], wanted[None], rtol=1e-4, atol=1e-5)


def test_the_stable_form_is_that_of_a_view() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 30 * torch.randn(200, 5, generator=generator)
    logits[:3, 0] += torch.tensor([0.0, 200.0, -200.0])
    labels = torch.randint(5, (200,), generator=generator)
    labels[:3] = 0
    wanted = Outputs(logits.numpy(), labels.numpy()).logit_confidence
    np.testing.assert_allclose(
        logit_confidence(logits, labels).numpy(), wanted, rtol=1e-12, atol=1e-9
    )
    # what a subject is asked, and its shadows, is one number
    p = torch.softmax(logits[3:].double(), 1).gather(1, labels[3:, None]).squeeze(1)
    plain = (p > 1e-6) & (p < 1 - 1e-6)
    np.testing.assert_allclose(
        logit_confidence(logits, labels)[3:][plain], torch.logit(p[plain]), rtol=1e-8
    )


class Viewing(nn.Module):
    """Its code needs images in the ordinary layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x).view(len(x), -1))
        return logits


def test_images_lie_channels_last_where_the_network_bears_it() -> None:
    pictures = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    network = resnet(8, 2, 3, 2)
    before = [weight.stride() for weight in network.parameters()]
    assert layout_of(network, pictures) == torch.channels_last
    assert [weight.stride() for weight in network.parameters()] == before
    assert layout_of(Viewing(), pictures) == torch.contiguous_format
    assert layout_of(mlp((32, 3)), pictures) == torch.contiguous_format
    assert layout_of(mlp((16, 3)), pictures[:, 0, 0]) == torch.contiguous_format


def test_copies_are_the_data_in_either_layout(images: Shadowed) -> None:
    design = images.design()
    examples = Examples.opened(images.jobs(design)[0].places)
    inputs, labels = images.pool(design)
    for layout in (torch.contiguous_format, torch.channels_last):
        found, classes = examples.take(examples.pool, torch.device("cpu"), layout)
        assert torch.equal(found, inputs)
        assert torch.equal(classes, labels)
        assert found.is_contiguous(memory_format=layout)


def test_what_diverges_is_named(world: Shadowed) -> None:
    design = world.design(unlearning=True)
    wild = asdict(replace(RECIPE, lr=1e30))
    with pytest.raises(DivergedError, match=r"^shadow model 4: training diverged"):
        run(world.jobs(design, recipe=wild)[3])
    job = world.jobs(design, unlearner="finetune", parameters={"lr": 1e30, "epochs": 3})[1]
    with pytest.raises(DivergedError, match=r"^shadow model 2: finetune: training diverged"):
        run(job)
    # one step and no look at what it led to
    last = asdict(replace(RECIPE, lr=1e38, epochs=1, batch=100))
    with pytest.raises(DivergedError, match=r"^shadow model 1: its confidences are no finite"):
        run(world.jobs(design, recipe=last)[0])


def test_a_label_without_an_output_is_refused(world: Shadowed) -> None:
    with pytest.raises(InputError, match="label 2 in the data, but the model gives 2 logits"):
        logit_confidence(torch.zeros(2, 2), torch.tensor([0, 2]))


def test_queries_that_vectors_do_not_bear_are_refused(world: Shadowed) -> None:
    design = world.design()
    job = world.jobs(design)[0]
    with pytest.raises(InputError, match="needs images"):
        make_shadow({**job.inputs, "queries": ["plain", "flip"]}, job.places)
    with pytest.raises(UsageError, match="first query"):
        make_shadow({**job.inputs, "queries": ["flip"]}, job.places)
    assert job.inputs["arch"] == MLP
