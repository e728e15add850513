"""What an unlearner is given, and what it must say of itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from unaudit.errors import InputError, UsageError
from unaudit.evidence import CLASSIFICATION, SCENARIOS, Scenario
from unaudit.evidence import Task as Kind
from unaudit.progress import SILENT, Progress
from unaudit.registry import Registry
from unaudit.tokens import are_tokens, predicts_tokens
from unaudit.training import Augment, Recipe

Consumes: TypeAlias = Literal["forget", "retain", "validation"]


@dataclass(frozen=True, eq=False)
class Task:
    """An original, the data, and what is to be forgotten. Nothing here is ever changed."""

    original: nn.Module
    """In eval mode, on the device of the inputs."""
    inputs: Tensor
    """(n, …) float32, or (n, t) token ids: all training examples, forget and retain."""
    labels: Tensor
    """(n,) int64."""
    forget: Tensor
    """(n,) bool."""
    n_classes: int
    scenario: Scenario
    recipe: Recipe
    """How the original was trained."""
    augment: Augment | None = None
    """Of the recipe; for training passes on retain examples."""
    validation: tuple[Tensor, Tensor] | None = None
    """(v, …) inputs and (v,) labels never trained on; what consumes them spoils them as anybody's
    non-members."""
    base: Callable[[], Mapping[str, Tensor] | None] = field(default=lambda: None, repr=False)
    """Reads the weights that the original was trained from, by name, on the CPU; of None it was
    trained from random ones."""
    head: str | None = None
    """Name of the last linear layer. Default: the last one defined."""
    progress: Progress = field(default=SILENT, repr=False)

    @property
    def kind(self) -> Kind:
        """What the original does."""
        return "language-modeling" if predicts_tokens(self.original) else "classification"

    @property
    def forget_rows(self) -> Tensor:
        """(f,) int64, ascending."""
        return self.forget.nonzero().flatten()

    @property
    def retain_rows(self) -> Tensor:
        """(r,) int64, ascending."""
        return (~self.forget).nonzero().flatten()

    @property
    def forget_classes(self) -> tuple[int, ...]:
        """Classes that occur in the forget set, ascending."""
        return tuple(self.labels[self.forget].unique().tolist())

    def student(self) -> nn.Module:
        """A trainable copy of the original that shares no storage with it, in eval mode."""
        return copy.deepcopy(self.original).requires_grad_(True).eval()

    def teacher(self) -> nn.Module:
        """A frozen copy of the original that shares no storage with it, in eval mode."""
        return copy.deepcopy(self.original).requires_grad_(False).eval()

    def need_validation(self, name: str) -> tuple[Tensor, Tensor]:
        """The validation examples.

        Raises:
            InputError: there are none.
        """
        if self.validation is None:
            raise InputError(f"{name} needs validation examples; add --validation DATA")
        return self.validation


@dataclass(frozen=True)
class UnlearnerCard:
    """What a reader must know of an unlearner."""

    name: str
    """Registered name, as in ``unaudit unlearn NAME``."""
    title: str
    """Short name for tables, at most 28 characters; the field's abbreviation where it has one."""
    idea: str
    """One or two sentences: what is optimized, over which weights, on which data."""
    source: str
    """Paper, section, equation."""
    consumes: frozenset[Consumes]
    """Data that it looks at."""
    deviations: tuple[str, ...] = ()
    """Where this differs from the paper, and numbers that no paper prints; one sentence each."""
    scenarios: frozenset[Scenario] = SCENARIOS
    tasks: frozenset[Kind] = CLASSIFICATION
    """What models it works on."""
    exact: bool = False
    """Whether the result never depended on the forget set: retraining."""
    moves_inputs: bool = False
    """Whether it moves examples by small amounts, which the tokens of a text do not allow."""


@runtime_checkable
class Unlearner(Protocol):
    """A frozen dataclass whose fields are hyperparameters with the paper's defaults."""

    card: ClassVar[UnlearnerCard]

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        """A new model in eval mode with the keys and shapes of the original.

        Raises:
            DivergedError: training left the finite numbers.
            InputError: the task lacks something that the method needs.
        """
        ...


UNLEARNERS: Registry[type[Unlearner]] = Registry("unlearner", "unaudit.unlearners")


def check_task(card: UnlearnerCard, task: Task) -> None:
    """Refuse a task that a method was not made for.

    Raises:
        UsageError: the model or the scenario is not one of the method's.
        InputError: there is nothing to forget, to retain, or no validation data where needed; or
            the examples are texts, and the method moves examples by small amounts.
    """
    check_kind(card, task.kind)
    if task.scenario not in card.scenarios:
        known = " and ".join(sorted(card.scenarios))
        raise UsageError(
            f"{card.name} is for the {known} scenario, this request is {task.scenario}"
        )
    if not task.forget.any():
        raise InputError("the forget set is empty; nothing to unlearn")
    if task.forget.all():
        raise InputError("every training example is to be forgotten; nothing is left to retain")
    if "validation" in card.consumes:
        task.need_validation(card.name)
    if card.moves_inputs and are_tokens(task.inputs):
        raise InputError(
            f"{card.name} moves examples by small amounts, which texts do not allow; "
            "take another unlearner"
        )


def check_kind(card: UnlearnerCard, kind: Kind) -> None:
    """Refuse models that a method was not made for.

    Raises:
        UsageError: they do something else.
    """
    if kind not in card.tasks:
        made, given = MODELS[min(card.tasks)], MODELS[kind]
        raise UsageError(f"{card.name} is for {made}, not for {given}; take another unlearner")


MODELS: Mapping[Kind, str] = {
    "classification": "classifiers",
    "language-modeling": "language models",
}
"""What does such a thing."""


def head_of(module: nn.Module, name: str | None = None) -> nn.Linear:
    """The head: the layer of that name, else the one that a language model says is its head, else
    the last ``nn.Linear`` defined.

    Raises:
        InputError: there is none, or the named one is not linear, or is not what a language model
            makes its logits with.
    """
    own = getattr(module, "head", None) if predicts_tokens(module) else None
    if name is not None:
        layer = dict(module.named_modules()).get(name)
        if not isinstance(layer, nn.Linear):
            raise InputError(f"model.head: '{name:.80}' is not a linear layer of this model")
        if own is not None and layer is not own:
            raise InputError(f"model.head: '{name:.80}' does not make the logits of this model")
        return layer
    if isinstance(own, nn.Linear):
        return own
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise InputError("the model has no linear layer that could be its head; set model.head")
    return layers[-1]


def features_and_logits(
    module: nn.Module, head: nn.Linear, inputs: Tensor, *, rows: Tensor | None = None, batch: int
) -> tuple[Tensor, Tensor]:
    """((n, d) inputs of the head, (n, C) logits), in eval mode and without gradients.

    Args:
        module: its mode is put back.
        head: one of its layers.
        inputs: (N, …)
        rows: (n,) which of them; default: all.
        batch: examples per forward pass.

    Raises:
        InputError: the model runs without this head.
    """
    seen: list[Tensor] = []
    before = module.training
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    module.eval()
    chosen = torch.arange(len(inputs)) if rows is None else rows
    try:
        with torch.no_grad():
            logits = [module(inputs[part]) for part in chosen.split(batch)]
    finally:
        hook.remove()
        module.train(before)
    if not seen:
        raise InputError("the model does not use its last linear layer; set model.head")
    return torch.cat(seen), torch.cat(logits)
