"""What would a retrained model still get right? An estimate that needs no retrained model.

It comes from the twin problem (TMU §3.1–3.3), posed to the original. Where nobody can afford
references, a reader can hold the subject's accuracy on the forget set against it. It is shown, and
decides nothing.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch

from unaudit.case import Case
from unaudit.data.recorded import RecordedDataset
from unaudit.devices import choose_device
from unaudit.engine.answers import code_digest
from unaudit.engine.store import Store, content_key
from unaudit.engine.threads import threads_for
from unaudit.errors import UnauditError
from unaudit.loading import LoadedModel
from unaudit.loading.libraries import libraries
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.text import plain
from unaudit.text import size as in_units
from unaudit.unlearners import Task
from unaudit.unlearners._twin import AccuracyEstimate, estimate_retrained_accuracy
from unaudit.workshop import Workshop

METHOD = "twin problem (TMU §3), corrected on held-out validation examples"
LABEL = "retrained estimate"
"""Decides the seed."""
DECIDED_BY = (
    "unaudit.loading",
    "unaudit.training",
    "unaudit.twin",
    "unaudit.unlearners",
    "unaudit.workshop",
)
"""Code that an estimate in the store depends on."""
ROOM = 1 << 30
"""Bytes of inputs that are laid out in the store for the estimate alone. A recipe has them laid out
anyway."""


@dataclass(frozen=True)
class Foretold:
    """The estimate, or why there is none."""

    estimate: AccuracyEstimate | None
    reason: str | None
    """In one line, without a capital and a full stop."""
    validation: int
    """Number of validation examples."""
    recipe_given: bool
    """Whether somebody said how the original was trained; else what is usual was assumed."""


def foretell(case: Case, plan: AuditPlan, store: Store, progress: Progress = SILENT) -> Foretold:
    """The forget accuracy that a retrained model would have, computed or recalled.

    Whatever stands in its way becomes the reason for its absence: an audit does not end for want of
    what decides nothing.

    Args:
        case: whose original is asked, by means of the validation split.
        plan: with the recipe, if there is one, the seed and the device.
        store: keeps data and the estimate.
        progress: told when it is computed.
    """
    try:
        reason = next(_obstacles(case, plan), None)
        estimate = None
        if reason is None:
            estimate, reason = _estimate(case, plan, store, progress)
    except UnauditError as stop:
        estimate, reason = None, str(stop)
    except Exception as error:  # training may break in any way; the audit goes on
        estimate, reason = None, plain(f"{type(error).__name__}: {error}", 300)
    held = len(case.splits["validation"]) if "validation" in case.splits else 0
    return Foretold(estimate, reason, held, plan.recipe is not None)


def _obstacles(case: Case, plan: AuditPlan) -> Iterator[str]:
    """Why the twin problem cannot be posed or would say nothing of this request."""
    if case.scenario == "class":
        yield (
            "whole classes are to be forgotten, and what a model makes of classes that it never "
            "saw cannot be learned from classes that it saw"
        )
    if case.swapped is not None:
        yield "the forget examples bear wrong labels, and validation examples right ones"
    forget = case.splits["forget"]
    if forget.canaries is not None and forget.canaries.any():
        yield "planted canaries are to be forgotten, and validation examples are none"
    if case.original is None:
        yield "there is no original; hand it in with --original"
    elif case.original.recorded or isinstance(forget.dataset, RecordedDataset):
        yield (
            "the original or the data are known by recorded outputs only; hand in weights and data"
        )
    if forget.dataset.input_dtype.kind != "f":
        yield "the method shifts inputs slightly, which texts do not allow"
    if "validation" not in case.splits:
        yield (
            "there are no validation examples; add some that no model was trained on with "
            "--validation"
        )
    elif plan.recipe is None:
        each = 4 * math.prod(forget.dataset.input_shape)
        size = each * (len(forget.dataset) + len(case.splits["validation"].dataset))
        if size > ROOM:
            yield (
                f"the inputs would take {in_units(size)} of the cache; if that is wanted, add a "
                "[recipe] section to unaudit.toml, an empty one will do"
            )


def _estimate(
    case: Case, plan: AuditPlan, store: Store, progress: Progress
) -> tuple[AccuracyEstimate | None, str | None]:
    """The estimate or why the twin problem was refused, from the store if it is there."""
    assert case.original is not None
    assert isinstance(case.original.model, LoadedModel)
    original, model = case.original, case.original.model

    def compute() -> bytes:
        # what a workshop's task unlearns from is the subject of its case; a copy of it, because the
        # task moves it to the device where training runs
        own = replace(model, module=copy.deepcopy(model.module))
        workshop = Workshop(replace(case, subject=replace(original, model=own)), plan, store)
        task = _without_copies(workshop.task(), case)
        with (
            progress.stage("estimating retrained accuracy"),
            threads_for(task.recipe.batch * task.inputs[0].numel()),
        ):
            try:
                found = estimate_retrained_accuracy(task, workshop.generator(LABEL))
            except UnauditError as stop:
                return json.dumps({"reason": str(stop)}).encode()
        return json.dumps({"estimate": asdict(found)}).encode()

    key = content_key(
        "retrained-estimate",
        original=model.digest,
        data=case.data_digest,
        scenario=case.scenario,
        recipe=None if plan.recipe is None else plan.recipe.model_dump(exclude={"base"}),
        # decides the defaults of the recipe, and nothing else here
        pretrained=plan.recipe is not None and plan.recipe.base is not None,
        head=plan.model.head,
        seed=plan.run.seed,
        device=choose_device(plan.run.device).type,
        torch=libraries(model.arch),
        code=code_digest(*DECIDED_BY),
    )
    stored = json.loads(store.blob(key, compute))
    if "reason" in stored:
        return None, stored["reason"]
    return AccuracyEstimate(**stored["estimate"]), None


def _without_copies(task: Task, case: Case) -> Task:
    """The task with those validation examples alone that are no copies of training examples."""
    assert task.validation is not None
    inputs, labels = task.validation
    rows = torch.tensor(case.splits["validation"].rows, device=inputs.device)
    return replace(task, validation=(inputs[rows], labels[rows]))
