"""Residual feature alignment (RFA): low-rank updates leave retain features where they are and pull
forget features to their mean (RFA-LoRA §IV)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from unaudit.evidence import ANY_TASK
from unaudit.tokens import predicts_tokens, truth
from unaudit.training import descend, shuffled
from unaudit.training.in_parts import rows_loss
from unaudit.training.summed import Term, summed
from unaudit.unlearners._budget import budget
from unaudit.unlearners._fields import not_negative, positive, share, whole
from unaudit.unlearners._lora import LowRank
from unaudit.unlearners._outputs import (
    adaptable,
    at_a_time,
    outputs_of,
    presence,
    readable,
    run_body,
)
from unaudit.unlearners._pairs import inputs_of, steps
from unaudit.unlearners._rows import n_outcomes, of_rows
from unaudit.unlearners.contract import UNLEARNERS, Task, UnlearnerCard, head_of

EXAMPLES = 2
"""Examples on which layers are found."""

Step: TypeAlias = Callable[[Tensor], Tensor]
"""From a batch to (rows, d), or from these to (rows, C) logits."""


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

        run, logits_of = parted(student, updates)
        outcomes = n_outcomes(task)

        def objective(rows: Tensor) -> Tensor:
            inputs, part = readable(student, inputs_of(task, rows, generator))
            forget, labels = task.forget[rows][part], task.labels[rows][part]

            def loss(batch: Tensor, here: Tensor) -> Tensor:
                with outputs_of(student, layers, presence(batch)) as now:
                    states = run(batch)
                moved = sum(self._moved(now[name], name, here, aims) for name in layers)
                own = truth(student, batch, labels[here])
                gone = of_rows(student, batch, forget[here])
                told = self._told(logits_of, states, own, gone, aims)
                return self.gamma / len(layers) * moved + (1.0 - self.gamma) * told

            places = torch.arange(len(inputs)).split(at_a_time(student, inputs))
            with recipe.autocast(inputs.device):
                aims = aims_of(student, layers, inputs, labels, forget, outcomes, places)
                if len(places) == 1:
                    return loss(inputs, places[0])
                terms = [Term(1.0, loss, (inputs[here], here)) for here in places]
                return summed(terms, updates.parameters)

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

    def _told(
        self, logits_of: Step, states: Tensor, wanted: Tensor, forget: Tensor, aims: Aims
    ) -> Tensor:
        """What some rows add to equation 5.

        Args:
            logits_of: of the student.
            states: (rows, d).
            wanted: (rows,) int64.
            forget: (rows,) bool.
            aims: of the whole batch.
        """

        def labeled(logits: Tensor, labels: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits.float(), labels, reduction="sum")

        def averaged(logits: Tensor) -> Tensor:
            return labeled(logits, aims.average.expand(len(logits), -1))

        kept = rows_loss(logits_of, (), states[~forget], labeled, wanted[~forget], total=True)
        gone = rows_loss(logits_of, (), states[forget], averaged, total=True)
        return self.lam * (kept / aims.kept_rows) + self.mu * (gone / aims.gone_rows)

    def _moved(self, now: Tensor, name: str, here: Tensor, aims: Aims) -> Tensor:
        """What some examples add to equation 4 for one layer, in units of the typical length of its
        outputs.

        Args:
            now: (k, d) outputs with the updates.
            name: of the layer.
            here: (k,) places of the examples in the batch.
            aims: of the whole batch.
        """
        forget, total = aims.forget[here], len(aims.forget)
        gone = int(aims.forget.sum())
        away = (now - aims.targets[name][here]).norm(dim=1)
        stray, far = away[~forget].sum() / (total - gone), away[forget].sum() / gone
        moved: Tensor = (self.alpha * stray + self.beta * far) / aims.units[name]
        return moved


@dataclass(frozen=True, eq=False)
class Aims:
    """What the examples of a batch are to come to."""

    forget: Tensor
    """(b,) bool, some of each kind."""
    targets: Mapping[str, Tensor]
    """(b, d) of each layer: the original's outputs for retain examples, else the mean of these."""
    units: Mapping[str, Tensor]
    """() of each layer: the typical length of its outputs."""
    average: Tensor
    """(C,) the average label of the retain examples."""
    kept_rows: int
    """Rows of logits that retain examples have."""
    gone_rows: int
    """Rows of logits that forget examples have."""


def aims_of(
    original: nn.Module,
    layers: Sequence[str],
    inputs: Tensor,
    labels: Tensor,
    forget: Tensor,
    outcomes: int,
    places: Sequence[Tensor],
) -> Aims:
    """
    Args:
        original: looked at without gradients.
        layers: of it.
        inputs: (b, …) a batch.
        labels: (b,) int64.
        forget: (b,) bool, some of each kind.
        outcomes: C.
        places: of the examples that are looked at together.
    """
    seen = []
    for here in places:
        with outputs_of(original, layers, presence(inputs[here])) as found, torch.no_grad():
            run_body(original, inputs[here])
        seen.append(found)
    targets, units = {}, {}
    for name in layers:
        before = torch.cat([found[name] for found in seen])
        kept = before[~forget]
        targets[name] = torch.where(forget.to(before.device)[:, None], kept.mean(dim=0), before)
        units[name] = kept.norm(dim=1).mean().clamp(min=torch.finfo(kept.dtype).tiny)
    wanted, rows = truth(original, inputs, labels), of_rows(original, inputs, forget)
    retained = wanted[~rows]
    average = retained.bincount(minlength=outcomes).float() / len(retained)
    return Aims(forget, targets, units, average, len(retained), len(wanted) - len(retained))


def parted(student: nn.Module, updates: LowRank) -> tuple[Step, Step]:
    """All that is updated, and what makes logits of it: of a language model, its head."""
    if not predicts_tokens(student):
        return updates, lambda logits: logits
    reads: Any = student
    return updates.hidden, reads.logits_of
