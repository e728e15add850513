"""``unaudit unlearn``: make an unlearned model with a reference unlearner."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unaudit.cli.consoles import note
from unaudit.cli.flags import flags_of, quiet_flag
from unaudit.cli.options import AuditCommand, PlainOption
from unaudit.cli.progress import progress_on_stderr
from unaudit.cli.request import plan_from_line
from unaudit.cli.surroundings import is_text_model
from unaudit.errors import InputError, UsageError

if TYPE_CHECKING:
    from unaudit.plan import AuditPlan
    from unaudit.progress import Progress

KEYS = (
    "model.arch", "model.trust_code", "model.trust_reason", "request.forget", "data.train",
    "data.validation", "request.scenario", "data.id_type", "run.seed", "run.store",
)  # fmt: skip
"""Of the plan: what an unlearner needs to know."""


@click.command(cls=AuditCommand, short_help="Unlearn with a reference method.")
@click.argument("method")
@click.argument("model", metavar="ORIGINAL")
@flags_of(KEYS)
@click.option(
    "-o", "--output", "output", required=True, metavar="OUT", cls=PlainOption,
    help="Safetensors file to write.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", cls=PlainOption,
    help="A hyperparameter, repeatable; 'unaudit unlearners METHOD' lists them.",
)  # fmt: skip
@quiet_flag
@click.pass_context
def unlearn(
    ctx: click.Context,
    /,
    method: str,
    output: str,
    settings: tuple[str, ...],
    quiet: bool,
    **_: Any,
) -> None:
    """Let METHOD forget the examples of IDS in ORIGINAL and write the result to OUT.

    OUT holds the weights under the original's names and nothing that tells how they were made. The
    recipe in unaudit.toml says how the original was trained; what it leaves open is filled in.
    """
    target = Path(output)
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"{output}: not a file in an existing folder; choose another -o")
    plan = plan_from_line(ctx, references=False).plan
    _refuse_input(target, plan)
    with progress_on_stderr(quiet) as progress:
        weights = make(method, plan, settings, progress)
    _write(target, weights)
    if not quiet:
        original = plan.model.path or ""
        arch = f"; audit it with --arch hf:{original}" if is_text_model(original) else ""
        note(f"wrote {output}{arch}")


def _refuse_input(target: Path, plan: AuditPlan) -> None:
    """Nothing that was handed in is written over.

    Raises:
        UsageError: the target is one of these files, or stands in the folder of the model.
    """
    arch = (plan.model.arch or "").removeprefix("hf:")
    given = (plan.model.path, arch, plan.request.forget, plan.data.train, plan.data.validation)
    place = target.resolve()
    for spec in given:
        own = None if not spec else Path(spec).resolve()
        if own is not None and (own == place or (own.is_dir() and own == place.parent)):
            raise UsageError(f"-o {target}: belongs to what was handed in; choose another -o")


def make(method: str, plan: AuditPlan, settings: Sequence[str], progress: Progress) -> bytes:
    """The unlearned weights as a safetensors file.

    Raises:
        UsageError: no such method or hyperparameter, or the method is for other scenarios.
        InputError: data or model cannot be used.
        DivergedError: training left the finite numbers, or nothing is left of the model.
    """
    from unaudit.case import build_case
    from unaudit.engine.store import Store
    from unaudit.engine.threads import threads_for
    from unaudit.plugins import with_parameters
    from unaudit.tokens import width_of
    from unaudit.training.draws import own_draws
    from unaudit.training.model_job import weights_of
    from unaudit.unlearners import check_task, load_unlearners
    from unaudit.unlearners._guard import check_alive
    from unaudit.workshop import Workshop

    kind = load_unlearners().get(method)
    unlearner = with_parameters(kind, dict(map(_setting, settings)), f"unlearners.{method}")
    store = Store(None if plan.run.store is None else Path(plan.run.store))
    workshop = Workshop(build_case(plan, store, progress), plan, store)
    task = workshop.task(progress)
    check_task(unlearner.card, task)
    own = workshop.generator(method)
    elements = task.recipe.batch * task.inputs[0].numel() * width_of(task.original)
    threads = threads_for(elements)
    with threads, own_draws(own, task.inputs.device):
        student = unlearner(task, own)
    check_alive(student, task, method)
    return weights_of(student)


def _setting(text: str) -> tuple[str, Any]:
    """``lr=0.1`` as a key and a TOML value; what is no TOML value is a string."""
    from unaudit.config import toml_value

    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {text!r:.80} is not KEY=VALUE")
    return key.strip(), toml_value(value)


def _write(target: Path, content: bytes) -> None:
    """Whole or not at all."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror}); choose another -o"
        ) from None
