"""Residual feature alignment (RFA): low-rank updates leave retain features where they are and pull
forget features to their mean (RFA-LoRA §IV)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.evidence import ANY_TASK
from unaudit.tokens import (
    PADDING,
    are_present,
    are_tokens,
    longest,
    predicts_tokens,
    truth,
)
from unaudit.training import descend, shuffled
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import not_negative, positive, share, whole
from unaudit.unlearners._lora import ADAPTABLE, LowRank
from unaudit.unlearners._pairs import inputs_of, steps
from unaudit.unlearners._rows import of_rows
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard, head_of

EXAMPLES = 2
"""Examples on which layers are found."""


@UNLEARNERS.register("rfa-lora")
@dataclass(frozen=True)
class RfaLora:
    """γ · the distance of all adapted layers' outputs from their targets, averaged over the layers,
    + (1 − γ) · cross-entropy with labels of retain and the average label for forget examples.

    The targets are the original's outputs: an example's own where it is retained, else the mean
    over the retain examples of the same batch (the teacher-student form of §IV-C).
    """

    card: ClassVar[UnlearnerCard] = UnlearnerCard(
        name="rfa-lora",
        title="RFA-LoRA",
        idea=(
            "Low-rank updates of the layers before the head keep the features of retain examples "
            "and move those of forget examples to the retain mean; labels likewise."
        ),
        source="RFA-LoRA §IV, equations 4–8, algorithm 1",
        consumes=frozenset({"forget", "retain"}),
        tasks=ANY_TASK,
        deviations=(
            "Rank, γ, α, β, λ and μ are printed nowhere; equal weights of both sets cost retain "
            "accuracy on small data, so forget examples have a tenth.",
            "The paper's rate of 5e-5 and its single epoch belong to networks pretrained on "
            "ImageNet; ours are shares of the recipe, with a least number of steps.",
            "Distances are divided by the typical length of the layer's outputs, so that the "
            "weights mean the same in every layer; norms are not squared, as in equations 1–4.",
            "Every linear and convolution layer before the head is adapted; the paper says "
            "'specific intermediate layers'.",
            "Algorithm 1 adds the gradient; it is subtracted here, as the text means it.",
            "What the features of a text are is left open; here they are a layer's outputs for its "
            "tokens on average, without padding. Texts of more tokens than a language model reads "
            "at once are cut into several.",
            "What the average label of a language model is, likewise; here the mean of the next "
            "tokens, one-hot, over all tokens of the retain texts in the batch: how often each "
            "word comes.",
        ),
    )

    lr: float | None = None
    """Of AdamW. Default: the recipe's if it is one of Adam's, 0.1 × that of SGD."""
    epochs: int | None = None
    """Default: 1/20 of the recipe's, or 160 steps if that is more."""
    rank: int = 8
    """Of the update of each layer."""
    gamma: float = 0.5
    """γ: share of the feature distances."""
    alpha: float = 1.0
    """α: weight of the retain examples' features."""
    beta: float = 0.1
    """β: weight of the forget examples' features."""
    lam: float = 1.0
    """λ: weight of the retain examples' labels."""
    mu: float = 0.1
    """μ: weight of the forget examples' labels."""
    weight_decay: float = 0.01
    """Of AdamW, on the updates; PyTorch's."""

    def __post_init__(self) -> None:
        positive(self, "lr")
        share(self, "gamma")
        not_negative(self, "alpha", "beta", "lam", "mu", "weight_decay")
        whole(self, "epochs", "rank")

    def __call__(self, task: Task, generator: torch.Generator) -> nn.Module:
        everyone = torch.arange(len(task.inputs))
        per_epoch = steps(everyone, task.recipe.batch)
        recipe = budget(
            task.recipe,
            per_epoch,
            lr=self.lr,
            epochs=self.epochs,
            lr_share=0.1 if task.recipe.kind == "sgd" else 1.0,
            epochs_share=1 / 20,
        )
        recipe = replace(recipe, kind="adamw", weight_decay=self.weight_decay)
        # in eval mode throughout: batch normalization is frozen, statistics and weights
        student = task.student().requires_grad_(False)
        few, _ = readable(student, task.inputs[task.retain_rows[:EXAMPLES]])
        layers = adaptable(student, head_of(student, task.head), few)
        updates = LowRank(student, layers, self.rank, generator)

        def objective(rows: Tensor) -> Tensor:
            inputs, part = readable(student, inputs_of(task, rows, generator))
            forget = task.forget[rows][part]
            present = presence(inputs)
            with recipe.autocast(inputs.device):
                with outputs_of(student, layers, present) as before, torch.no_grad():
                    _features(student, inputs)
                with outputs_of(student, layers, present) as now:
                    logits = updates(inputs)
            moved = sum(self._moved(now[name], before[name], forget) for name in layers)
            wanted = truth(student, inputs, task.labels[rows])
            outcomes = logits.shape[1] if predicts_tokens(student) else task.n_classes
            told = self._told(logits, wanted, of_rows(student, inputs, forget), outcomes)
            return self.gamma / len(layers) * moved + (1.0 - self.gamma) * told

        def batches(_: int) -> Iterator[Tensor]:
            for rows in shuffled(everyone, recipe.batch, generator):
                # the targets of forget examples come from the retain examples beside them
                if 0 < int(task.forget[rows].sum()) < len(rows):
                    yield rows

        with task.progress.stage(self.card.name, recipe.epochs) as step:
            descend(
                objective,
                batches,
                recipe,
                updates.parameters,
                steps=per_epoch,
                on_epoch=lambda _: step(1),
            )
        updates.merge()
        return student.requires_grad_(True)

    def _told(self, logits: Tensor, wanted: Tensor, forget: Tensor, outcomes: int) -> Tensor:
        """Equation 5.

        Args:
            logits: (rows, C).
            wanted: (rows,) int64.
            forget: (rows,) bool, some of each kind.
            outcomes: C.
        """
        kept = wanted[~forget]
        average = kept.bincount(minlength=outcomes).float() / len(kept)
        loss = nn.functional.cross_entropy
        told = self.lam * loss(logits[~forget].float(), kept)
        return told + self.mu * loss(logits[forget].float(), average.expand(int(forget.sum()), -1))

    def _moved(self, now: Tensor, before: Tensor, forget: Tensor) -> Tensor:
        """Equation 4 for one layer, in units of the typical length of its outputs.

        Args:
            now: (b, d) outputs with the updates.
            before: (b, d) outputs of the original.
            forget: (b,) bool, some of each kind.
        """
        kept, mean = before[~forget], before[~forget].mean(dim=0)
        unit = kept.norm(dim=1).mean().clamp(min=torch.finfo(kept.dtype).tiny)
        stray = (now[~forget] - kept).norm(dim=1).mean()
        away = (now[forget] - mean).norm(dim=1).mean()
        moved: Tensor = (self.alpha * stray + self.beta * away) / unit
        return moved


def readable(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(p, …) inputs, and (p,) on the CPU, of which of those given each is a part: all of it, but
    for texts of more tokens than a language model reads at once."""
    everyone = torch.arange(len(inputs))
    context = getattr(network, "context", None) if predicts_tokens(network) else None
    if context is None or inputs.shape[1] <= context:
        return inputs, everyone
    parts = -(-inputs.shape[1] // context)
    room = parts * context - inputs.shape[1]
    cut = nn.functional.pad(inputs, (0, room), value=PADDING).reshape(-1, context)
    # of a single token nothing is predicted
    kept = are_present(cut).sum(dim=1) > 1
    return cut[kept], everyone.repeat_interleave(parts)[kept.cpu()]


def presence(inputs: Tensor) -> Tensor | None:
    """(b, t) bool: where networks of texts compute something for a token, padding cropped as they
    crop it; None: the inputs are no texts."""
    if not are_tokens(inputs):
        return None
    present = are_present(inputs)
    return present[:, : longest(present)]


def adaptable(network: nn.Module, head: nn.Linear, inputs: Tensor) -> list[str]:
    """Names of the linear and convolution layers that run once, one output per example, without the
    head; in order of execution. In networks of texts, linear layers with one output per text or per
    token.

    Args:
        inputs: (n, …) a few examples.

    Raises:
        InputError: there is none.
    """
    present = presence(inputs)
    kinds = ADAPTABLE if present is None else nn.Linear

    def by_example(output: Tensor) -> bool:
        if present is None:
            return len(output) == len(inputs)
        return output.shape[:-1] in (present.shape, present.shape[:1])

    ran: list[tuple[str, bool]] = []
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, kinds) and layer is not head:

            def note(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                ran.append((name, by_example(output)))

            hooks.append(layer.register_forward_hook(note))
    try:
        with torch.no_grad():
            _features(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, _ in ran]
    found = [name for name, fits in ran if fits and names.count(name) == 1]
    if not found:
        raise InputError(
            "rfa-lora needs a linear or convolution layer before the head; this model has none"
        )
    return found


@contextmanager
def outputs_of(
    network: nn.Module, layers: Collection[str], present: Tensor | None = None
) -> Iterator[dict[str, Tensor]]:
    """Fills a dictionary with (b, d) float32 outputs of layers while the network runs; where they
    give one per token, with the mean over those tokens of each text that are ``present``."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for name in layers:

        def keep(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            if present is None or output.ndim == 2:
                seen[name] = output.flatten(1).float()
            else:
                here = output.float().masked_fill(~present.unsqueeze(2), 0.0)
                seen[name] = here.sum(dim=1) / present.sum(dim=1, keepdim=True)

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _features(network: nn.Module, inputs: Tensor) -> None:
    """Run all that comes before the head; of a language model no more, for its logits are many."""
    run: Any = network
    if predicts_tokens(network):
        run.hidden(inputs)
    else:
        run(inputs)
