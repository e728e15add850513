"""The job that makes one model: retrained, or unlearned from the original."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from unaudit.engine.jobs import Job
from unaudit.engine.threads import threads_for
from unaudit.loading import Trust
from unaudit.loading.architectures import build_architecture, parse_architecture
from unaudit.progress import SILENT, Progress
from unaudit.tokens import width_of
from unaudit.training.augment import AUGMENTATIONS
from unaudit.training.draws import own_draws
from unaudit.training.fit import fit
from unaudit.training.initialize import initialize
from unaudit.training.recipe import Recipe

if TYPE_CHECKING:
    from unaudit.unlearners import Task

WORK = "unaudit.training.model_job:make_model"
TRAIN = "train"
"""Method of a job that trains on everything: an original."""


def make_model(inputs: Mapping[str, Any], places: Mapping[str, str]) -> bytes:
    """Weights of one model as a safetensors file.

    Args:
        inputs: ``method``, ``parameters``, ``arch``, ``trusted``, ``recipe``, ``augment``,
            ``seed``, ``device``, ``scenario``, ``n_classes``, ``head``; digests of data, original,
            base and code.
        places: files of the arrays ``inputs``, ``labels``, ``forget``, of ``validation_inputs`` and
            ``validation_labels``, and of the bytes of the safetensors files of the ``original`` and
            of the ``base`` that training starts from.

    Raises:
        DivergedError: training left the finite numbers.
        InputError: the method cannot work on this model or data.
    """
    device = torch.device(inputs["device"])
    module = module_of(inputs)
    generator = torch.Generator().manual_seed(inputs["seed"])
    recipe, augment = Recipe(**inputs["recipe"]), AUGMENTATIONS[inputs["augment"]]
    examples, labels = opened(places["inputs"]), opened(places["labels"])
    with threads_for(recipe.batch * examples[0].numel() * width_of(module)):
        if inputs["method"] == TRAIN:
            fresh = initialize(module, generator, base_of(inputs, places)).to(device)
            examples, labels = examples.to(device), labels.to(device)
            made = fit(fresh, examples, labels, recipe, generator, augment=augment)
        else:
            made = _unlearn(module, inputs, places, generator)
    return weights_of(made)


def task_of(
    inputs: Mapping[str, Any],
    places: Mapping[str, str],
    original: nn.Module,
    progress: Progress = SILENT,
) -> Task:
    """What an unlearner of the whole training data is given; see :func:`task_on`."""
    examples = opened(places["inputs"]), opened(places["labels"])
    return task_on(examples, opened(places["forget"]), inputs, places, original, progress)


def task_on(
    examples: tuple[Tensor, Tensor],
    forget: Tensor,
    inputs: Mapping[str, Any],
    places: Mapping[str, str],
    original: nn.Module,
    progress: Progress = SILENT,
) -> Task:
    """What an unlearner is given.

    Args:
        examples: (n, …) inputs and (n,) labels that the original was trained on.
        forget: (n,) bool.
        inputs: of the job: ``device``, ``n_classes``, ``scenario``, ``recipe``, ``augment``,
            ``head``, and the digest of its ``base``.
        places: files of ``validation_inputs``, ``validation_labels`` and ``base``, where there are
            any.
        original: what is to unlearn; moved to the job's device, as the examples are.
        progress: told by unlearners how far they are.
    """
    from unaudit.unlearners import Task

    device = torch.device(inputs["device"])
    validation = None
    if "validation_inputs" in places:
        validation = (
            opened(places["validation_inputs"]).to(device),
            opened(places["validation_labels"]).to(device),
        )
    return Task(
        original=original.to(device),
        inputs=examples[0].to(device),
        labels=examples[1].to(device),
        forget=forget,
        n_classes=inputs["n_classes"],
        scenario=inputs["scenario"],
        recipe=Recipe(**inputs["recipe"]),
        augment=AUGMENTATIONS[inputs["augment"]],
        validation=validation,
        base=partial(base_of, inputs, places),
        head=inputs["head"],
        progress=progress,
    )


def _unlearn(
    module: nn.Module,
    inputs: Mapping[str, Any],
    places: Mapping[str, str],
    generator: torch.Generator,
) -> nn.Module:
    from unaudit.unlearners import check_task, load_unlearners

    if "original" in places:
        module.load_state_dict(_weights_in(places["original"]))
    task = task_of(inputs, places, module)
    method = load_unlearners().get(inputs["method"])
    check_task(method.card, task)
    with own_draws(generator, task.inputs.device):
        return method(**inputs["parameters"])(task, generator)


def model_job(title: str, **inputs: Any) -> Job:
    """The job of :func:`make_model`; where its data lie is told when it runs."""
    return Job(WORK, inputs, title=title)


def module_of(inputs: Mapping[str, Any]) -> nn.Module:
    """The network of a job, with weights that are still to come."""
    trust = Trust("the plan trusts it") if inputs["trusted"] else None
    return build_architecture(parse_architecture(inputs["arch"]), trust).module


def weights_of(module: nn.Module) -> bytes:
    """A safetensors file of all parameters and buffers."""
    return save(
        {
            name: value.detach().cpu().clone().contiguous()
            for name, value in module.state_dict().items()
        }
    )


def base_of(inputs: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Tensor] | None:
    """The weights that training starts from in a job, by name; None: random ones."""
    return None if inputs.get("base") is None else _weights_in(places["base"])


def opened(path: str) -> Tensor:
    """An array of the store as a tensor, read as it is used."""
    # mode c: pages are read when they are used and shared among workers; nothing is written back
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _weights_in(path: str) -> dict[str, Tensor]:
    return load(opened(path).numpy().tobytes())
