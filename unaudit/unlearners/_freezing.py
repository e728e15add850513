"""Training a part of a network while the rest keeps still, running statistics included."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unaudit.errors import InputError, UsageError
from unaudit.tokens import predicts_tokens
from unaudit.training import Recipe, fit, initialize_layer
from unaudit.unlearners._rows import own_head
from unaudit.unlearners.contract import Task

DEFAULT_SHARE = 10 / 21
"""Of the layers, for an unset ``k``: 10 of the 21 that a ResNet-18 has (IDI, table 1)."""

_COUNTED = (nn.Linear, nn.modules.conv._ConvNd)
_DRAWN = (*_COUNTED, nn.MultiheadAttention)


class Partly(nn.Module):
    """A network of which some modules train; in train mode all others stay in eval mode.

    Freezing parameters is not enough: in train mode, batch normalization moves its running
    statistics whether or not its parameters are frozen, and dropout is noise on frozen features.
    """

    def __init__(self, module: nn.Module, part: Iterable[nn.Module]) -> None:
        """
        Args:
            module: the whole; its parameters outside the part are frozen.
            part: modules of it that train, each without those inside it unless they are listed.
        """
        super().__init__()
        self.module = module
        self._part = tuple(part)
        module.requires_grad_(False)
        for layer in self._part:
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(True)
        self.train(module.training)

    def __getattr__(self, name: str) -> Any:
        """What a language model tells besides its logits is told here as well."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def train(self, mode: bool = True) -> Partly:
        self.training = mode
        self.module.eval()
        for layer in self._part:
            layer.training = mode
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.module(inputs)
        return logits

    def trained(self) -> list[nn.Parameter]:
        """The parameters that train."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]


def fit_part(
    student: nn.Module,
    part: Iterable[nn.Module],
    task: Task,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> nn.Module:
    """Train some modules of ``student`` on the retain examples, in place, and thaw the rest.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    partly = Partly(student, part)
    fit(
        partly,
        task.inputs,
        task.labels,
        recipe,
        generator,
        rows=task.retain_rows,
        parameters=partly.trained(),
        augment=task.augment,
        on_epoch=on_epoch,
    )
    return student.requires_grad_(True).eval()


def last_layers(module: nn.Module, k: int | None, task: Task, name: str) -> list[nn.Module]:
    """The last ``k`` convolution and linear layers and every module between and after them.

    Layers are counted from the end of the order of definition. The convolutions of shortcuts
    count, normalization does not, but what is passed on the way belongs to the result (Goel et
    al. 2022, as in their code): the normalization behind the k-th last layer does, the one before
    it does not.

    Args:
        module: the network.
        k: default: :data:`DEFAULT_SHARE` of all layers, rounded up.
        task: knows the name of the head, which must be the first counted. That of a language model
            is untied from the embedding, which comes first.
        name: of the method, for messages.

    Raises:
        UsageError: the network has fewer layers than ``k``.
        InputError: it has none, or its head is not the last one defined.
    """
    modules = list(module.modules())
    counted = [at for at, layer in enumerate(modules) if isinstance(layer, _COUNTED)]
    if not counted:
        raise InputError(f"{name} counts convolution and linear layers; the model has none")
    if task.head is not None and modules[counted[-1]] is not module.get_submodule(task.head):
        raise InputError(
            f"{name} counts layers from the last one defined, which is not '{task.head:.80}'; "
            "choose another method"
        )
    if predicts_tokens(module) and modules[counted[-1]] is not own_head(module, task.head):
        raise InputError(
            f"{name} counts layers from the last one defined, which does not make the logits of "
            "this model; choose another method"
        )
    if k is None:
        k = math.ceil(DEFAULT_SHARE * len(counted))
    if k > len(counted):
        raise UsageError(
            f"unlearners.{name}.k must be at most {len(counted)}, the number of convolution and "
            f"linear layers of this model (got {k})"
        )
    return modules[counted[-k] :]


def draw_anew(layers: Iterable[nn.Module], generator: torch.Generator) -> None:
    """Fresh weights, in place, for convolution and linear layers and the projections of attention.

    Normalization and all else that has weights is left alone, statistics included (Goel et al.
    2022, as in their code).

    Args:
        layers: modules, each taken without those inside it.
        generator: on the CPU, whatever device the weights are on.

    Raises:
        InputError: no way is known to draw the weights of a convolution.
    """
    for layer in layers:
        if isinstance(layer, _DRAWN):
            with on_cpu(layer):
                initialize_layer(layer, generator)


@contextmanager
def on_cpu(module: nn.Module) -> Iterator[None]:
    """Weights on the CPU within, where generators are; back on their device afterwards."""
    device = next(module.parameters()).device
    module.cpu()
    try:
        yield
    finally:
        module.to(device)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode within: running statistics are used and left alone. Train mode afterwards."""
    module.eval()
    try:
        yield
    finally:
        module.train()
