"""``unaudit calibrate``: make the references and calibrators that ``check`` will use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unaudit.cli.consoles import one_line, result_console
from unaudit.cli.flags import audit_flags, quiet_flag
from unaudit.cli.options import AuditCommand
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.request import plan_from_line

if TYPE_CHECKING:
    from unaudit.case import Case
    from unaudit.plan import AuditPlan
    from unaudit.progress import Progress


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
    """
    plan = plan_from_line(ctx).plan
    with progress_on_stderr(quiet) as progress:
        case, rows = _made(plan, progress)
    console = result_console()
    console.print(f"  {'model':<24}{'forget':>8}{'retain':>8}{'unseen':>8}")
    for label, accuracies in rows.items():
        cells = "".join(f"{'–' if a is None else f'{a:.3f}':>8}" for a in accuracies)
        console.print(f"  {one_line(label):<24}{cells}")
    console.print(
        f"accuracies; {len(case.retrained)} retrained models, {len(case.calibrators)} calibrators"
    )


def _made(plan: AuditPlan, progress: Progress) -> tuple[Case, dict[str, tuple[float | None, ...]]]:
    """The case with everything made, and accuracies by model on forget, retain and unseen."""
    from unaudit.case import build_case
    from unaudit.engine.store import Store
    from unaudit.forward import ForwardPass
    from unaudit.plan import RecipeSection
    from unaudit.references import complete

    plan = plan.model_copy(update={"recipe": plan.recipe or RecipeSection()})
    store = Store(None if plan.run.store is None else Path(plan.run.store))
    case = complete(build_case(plan, store, progress), plan, store, progress)
    forward = ForwardPass(
        case, store, batch_size=plan.run.batch_size, device=plan.run.device, progress=progress
    )
    rows = {}
    for candidate in (*case.candidates, *case.calibrators):
        view = forward.view(candidate)
        rows[candidate.label] = tuple(
            float(view.outputs(split).correct.mean()) if split in case.splits else None
            for split in ("forget", "retain", "unseen")
        )
    return case, rows
