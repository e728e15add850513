"""The job of one shadow model: trained on its mask, asked about the pool, made to unlearn, asked
again. Its answers are kept, its weights are not."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unaudit.engine.threads import threads_for
from unaudit.errors import InputError
from unaudit.shadows.examples import Examples
from unaudit.shadows.queries import alter, check_queries
from unaudit.token_outputs import logit_scaled
from unaudit.tokens import predicts_tokens, width_of
from unaudit.training import DivergedError, Recipe, fit, initialize
from unaudit.training.augment import AUGMENTATIONS
from unaudit.training.draws import own_draws
from unaudit.training.likelihood import mean_log_p, texts_at_once
from unaudit.training.model_job import base_of, module_of, task_on

WORK = "unaudit.shadows.job:make_shadow"
BATCH = 1024
"""Examples per forward pass while the pool is asked about; fewer where they are long texts."""


def make_shadow(inputs: Mapping[str, Any], places: Mapping[str, str]) -> bytes:
    """What one shadow model says of the pool, as an npz file: ``scores`` and, where it unlearned,
    ``unlearned``, each (q, k) float32 logit-scaled confidences.

    Args:
        inputs: ``number`` of the model, from 0; ``arch``, ``trusted``, ``recipe``, ``augment``,
            ``seed``, ``device``, ``scenario``, ``n_classes``, ``head``, ``queries``; ``unlearner``,
            which may be None, and its ``parameters``; digests of data, masks, ``base`` and code.
        places: files of the arrays of :class:`unaudit.shadows.examples.Examples` and, where an
            unlearner consumes them, of ``validation_inputs`` and ``validation_labels``; of the
            weights ``base``, where there are any to start from.

    Raises:
        DivergedError: training or unlearning left the finite numbers; the model is named.
        InputError: the unlearner cannot work on this model or data, or a query on these inputs.
    """
    examples = Examples.opened(places)
    check_queries(inputs["queries"], examples.train.shape[1:])
    device = torch.device(inputs["device"])
    generator = torch.Generator().manual_seed(inputs["seed"])
    recipe = Recipe(**inputs["recipe"])
    base = network(inputs)
    elements = recipe.batch * examples.train[0].numel() * width_of(base)
    with threads_for(elements), naming(inputs["number"]):
        base = initialize(base, generator, base_of(inputs, places))
        layout = layout_of(base, examples.train[:2])
        base = base.to(device, memory_format=layout)  # type: ignore[call-overload]
        own = examples.take(examples.members(inputs["number"]), device, layout)
        fit(base, *own, recipe, generator, augment=AUGMENTATIONS[inputs["augment"]])
        return answers(base, own, examples, inputs, places, generator)


def network(inputs: Mapping[str, Any]) -> nn.Module:
    """The network of a job, with weights that are still to come."""
    # constructors draw from the global generator what is drawn anew; nobody must notice
    with torch.random.fork_rng(devices=[]):
        return module_of(inputs)


def answers(
    base: nn.Module,
    own: tuple[Tensor, Tensor],
    examples: Examples,
    inputs: Mapping[str, Any],
    places: Mapping[str, str],
    generator: torch.Generator,
) -> bytes:
    """The result of :func:`make_shadow`, from the trained model on.

    Args:
        base: as trained, in eval mode, on the device of ``own``.
        own: inputs and labels that it was trained on.
        examples, inputs, places: of the job.
        generator: goes on where training ended.

    Raises:
        DivergedError, InputError: see :func:`make_shadow`.
    """
    arrays = {"scores": ask(base, examples, inputs["queries"], own[0].device)}
    if inputs["unlearner"] is not None:
        unlearned = _unlearn(base, own, examples, inputs, places, generator)
        arrays["unlearned"] = ask(unlearned, examples, inputs["queries"], own[0].device)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def ask(
    module: nn.Module, examples: Examples, queries: Sequence[str], device: torch.device
) -> npt.NDArray[np.float32]:
    """(q, k) logit-scaled confidence in the pool, in eval mode: in the label, or, where a network
    predicts tokens, in those of a text on average (log p is its mean per token).

    Raises:
        DivergedError: it is not finite.
        InputError: a label that the model has no output for.
    """
    found = np.empty((len(queries), len(examples.pool)), dtype=np.float32)
    module.eval()
    causal = predicts_tokens(module)
    size = texts_at_once(examples.train.shape[1]) if causal else BATCH
    with torch.no_grad():
        for start in range(0, len(examples.pool), size):
            batch, labels = examples.take(examples.pool[start : start + size], device)
            for row, query in zip(found, queries, strict=True):
                asked = alter(batch, query)
                if causal:
                    said = logit_scaled(mean_log_p(module, asked).numpy())
                else:
                    said = logit_confidence(module(asked).float().cpu(), labels.cpu()).numpy()
                row[start : start + size] = said
    if not np.isfinite(found).all():
        raise DivergedError("its confidences are no finite numbers; lower the learning rate")
    return found


def logit_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """(b,) float64 log p_y − log(1 − p_y) (Carlini et al. 2022, §IV-C), from the other logits: so
    it survives p_y = 1.

    Args:
        logits: (b, C), on the CPU.
        labels: (b,) int64.

    Raises:
        InputError: a label that there is no logit for.
    """
    top = int(labels.max()) if len(labels) else 0
    if top >= logits.shape[1]:
        raise InputError(
            f"label {top} in the data, but the model gives {logits.shape[1]} logits; "
            "check data.label_column or num_classes"
        )
    exact, own = logits.double(), labels[:, None]
    return exact.gather(1, own).squeeze(1) - exact.scatter(1, own, -torch.inf).logsumexp(1)


def layout_of(module: nn.Module, inputs: Tensor) -> torch.memory_format:
    """How images lie in memory: channels last before convolutions, as far as the network's own code
    bears it (``view`` may not).

    Measured on convolutional and residual networks, 8 × 8 and 32 × 32 pixels, one and three
    channels, in float32 and bf16 on one core: 1.05 to 2.3 times as fast.

    Args:
        module: on the CPU; is not changed.
        inputs: (b, …) some examples.
    """
    images = inputs.ndim == 4 and any(isinstance(layer, nn.Conv2d) for layer in module.modules())
    if not images:
        return torch.contiguous_format
    trial = copy.deepcopy(module).eval()
    trial.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad():
            trial(inputs.contiguous(memory_format=torch.channels_last))
    except RuntimeError:  # if it has another cause, training meets it again
        return torch.contiguous_format
    return torch.channels_last


@contextlib.contextmanager
def naming(number: int) -> Iterator[None]:
    """Say which model diverged."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(f"shadow model {number + 1}: {error}") from None


def _unlearn(
    base: nn.Module,
    own: tuple[Tensor, Tensor],
    examples: Examples,
    inputs: Mapping[str, Any],
    places: Mapping[str, str],
    generator: torch.Generator,
) -> nn.Module:
    from unaudit.unlearners import check_task, load_unlearners

    task = task_on(own, examples.erased(inputs["number"]), inputs, places, base)
    method = load_unlearners().get(inputs["unlearner"])
    check_task(method.card, task)
    try:
        with own_draws(generator, own[0].device):
            return method(**inputs["parameters"])(task, generator)
    except DivergedError as error:
        raise DivergedError(f"{inputs['unlearner']}: {error}") from None
