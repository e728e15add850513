"""``unaudit calibrate``: make the references and calibrators that ``check`` will use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from unaudit.cli.consoles import one_line, result_console, warn
from unaudit.cli.flags import audit_flags, quiet_flag
from unaudit.cli.options import AuditCommand
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.request import plan_from_line

if TYPE_CHECKING:
    from unaudit.case import Case
    from unaudit.plan import AuditPlan
    from unaudit.progress import Progress
    from unaudit.views import BlackBox

Shown: TypeAlias = Literal["forget", "retain", "unseen"]
SHOWN: tuple[Shown, ...] = ("forget", "retain", "unseen")
"""Splits on which it is shown how good every model is."""


@click.command(cls=AuditCommand, short_help="Train references and calibrators into the cache.")
@audit_flags
@quiet_flag
@click.pass_context
def calibrate(ctx: click.Context, /, quiet: bool, **_: Any) -> None:
    """Train what 'unaudit check' with the same flags would need: retrained models by the recipe,
    and the original as unlearned by the reference unlearners.

    Everything is kept in the cache, an interrupted run goes on where it was, and 'check' finds it
    if its config has the same recipe. Without a recipe, what is usual for such a network is taken;
    'check' then needs an empty [recipe] section.

    Warns where models made by the recipe are not as good as the original on data that the request
    does not touch: the recipe is then not the one that the original was trained by.
    """
    plan = plan_from_line(ctx).plan
    with progress_on_stderr(quiet) as progress:
        case, rows, doubt = _made(plan, progress)
    console = result_console()
    console.print(f"  {'model':<24}{''.join(f' {name:>7}' for name in SHOWN)}")
    for label, cells in rows.items():
        console.print(f"  {one_line(label):<24}{''.join(f' {cell:>7}' for cell in cells)}")
    shown = "accuracies" if case.task == "classification" else "perplexities"
    counts = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in (
            (len(case.retrained), "retrained model"),
            (len(case.calibrators), "calibrator"),
        )
    ]
    console.print(f"{shown}; {', '.join(counts)}")
    if doubt is not None:
        warn(doubt)


def _made(plan: AuditPlan, progress: Progress) -> tuple[Case, dict[str, list[str]], str | None]:
    """The case with everything made, by model how good it is on each of :data:`SHOWN`, and why the
    retrained models may be no measure of the subject."""
    from unaudit.case import build_case
    from unaudit.engine.store import Store
    from unaudit.fidelity import fidelity, incomparable
    from unaudit.forward import ForwardPass
    from unaudit.plan import RecipeSection
    from unaudit.references import complete

    plan = plan.model_copy(update={"recipe": plan.recipe or RecipeSection()})
    store = Store(None if plan.run.store is None else Path(plan.run.store))
    case = complete(build_case(plan, store, progress), plan, store, progress)
    forward = ForwardPass(
        case, store, batch_size=plan.run.batch_size, device=plan.run.device, progress=progress
    )
    views = {model.label: forward.view(model) for model in (*case.candidates, *case.calibrators)}
    rows = {
        label: [_quality(case, view, split) if split in case.splits else "–" for split in SHOWN]
        for label, view in views.items()
    }
    return case, rows, incomparable(case, views, fidelity(case, views))


def _quality(case: Case, view: BlackBox, split: Shown) -> str:
    """Accuracy of a classifier, perplexity of a language model."""
    if case.task == "classification":
        return f"{view.predictions(split).hit_rate.mean():.3f}"
    from unaudit.recording.language import perplexity

    found = perplexity(view.tokens(split))
    return "–" if found is None else f"{found:.4g}"
