"""From the line and the ``unaudit.toml`` beside it to a complete plan."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unaudit.cli.consoles import note
from unaudit.cli.options import given, overrides
from unaudit.errors import UsageError

if TYPE_CHECKING:
    from unaudit.plan import AuditPlan


@dataclass(frozen=True)
class FoundConfig:
    """A config file and how it came into play."""

    path: Path
    named: bool
    """Whether ``--config`` named it; a file that was merely found may not permit code to run."""
    place: str


def find_config(config: str | None, model: str | None) -> FoundConfig | None:
    """The file that ``--config`` names, else the one next to the model, else the one in the working
    directory."""
    from unaudit.plan import CONFIG_NAME

    if config is not None:
        return FoundConfig(Path(config), named=True, place="named by --config")
    if model is not None:
        path = Path(model.removeprefix("outputs:"))
        beside = (path if path.is_dir() else path.parent) / CONFIG_NAME
        if beside.is_file():
            return FoundConfig(beside, named=False, place="next to the model")
    here = Path(CONFIG_NAME)
    return (
        FoundConfig(here, named=False, place="in the working directory") if here.is_file() else None
    )


@dataclass(frozen=True)
class Line:
    """What a command line asks for."""

    plan: AuditPlan
    typed: str
    """``unaudit check`` with the same flags."""
    repeats: str
    """The same without folders and without what changes no number; goes into the record."""


def plan_from_line(ctx: click.Context, *, references: bool = True) -> Line:
    """The plan that the line and its config file describe.

    Args:
        ctx: of the command.
        references: whether the file's references count; False where MODEL is itself an original.

    Raises:
        UsageError: flags contradict each other, the file is wrong, or an input is not named.
        InputError: the config file cannot be read.
    """
    from unaudit.plan import AuditPlan

    _refuse_contradictions(ctx)
    flags = overrides(ctx)
    if not references:
        flags["references"] = {"original": None, "retrained": None}
    if ctx.params.get("recipe") is not None:
        flags["recipe"] = _recipe(Path(ctx.params["recipe"]))
    config = find_config(ctx.params["config"], ctx.params["model"])
    if config is None:
        plan = AuditPlan.build(flags)
    else:
        plan = AuditPlan.from_toml(config.path, flags)
        _refuse_unasked_trust(ctx, config, plan)
        _refuse_loose_gate(config)
        other = _other_subject(plan, config) if references else ""
        note(f"using {config.path} ({config.place}){other}")
    _require_inputs(plan, config)
    _refuse_idle(ctx, plan)
    return Line(plan, _command(ctx, None), _command(ctx, config, public=True))


def _recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe file, which may stand under [recipe] or on their own.

    Raises:
        UsageError: they are not those of a recipe.
        InputError: the file cannot be read.
    """
    from unaudit.config import anchor_paths, read_values
    from unaudit.plan import AuditPlan

    values = read_values(path, "--recipe")
    others = [key for key in values if key not in ("recipe", "schema_version")]
    if "recipe" not in values:
        values = anchor_paths({"recipe": values}, path.parent)
    elif others:
        note(f"using the recipe of {path}, and nothing else of it ({', '.join(others)})")
    recipe = values["recipe"]
    if not isinstance(recipe, dict):
        raise UsageError(f"{path}: recipe must be a section, [recipe], with keys of its own")
    AuditPlan.build({"recipe": recipe}, source=f"--recipe {path}")
    return recipe


def _refuse_contradictions(ctx: click.Context) -> None:
    keys = {option.key for option, _ in given(ctx)}
    if {"policy.tau", "policy.preset"} <= keys:
        raise UsageError("--tau and --preset both set the margin; give one of them")
    if ctx.params.get("exit_zero") and "policy.fail_on" in keys:
        raise UsageError(
            "--exit-zero ignores the verdict and --fail-on gates on it; give one of them"
        )


_OF_SHADOWS = ("shadows.unlearner", "shadows.max_minutes", "run.show_examples")
"""Keys that change nothing without shadow models; attacks with them say which examples stand
out."""


def _refuse_idle(ctx: click.Context, plan: AuditPlan) -> None:
    """A flag on the line that would change nothing is a slip."""
    if plan.shadows.count:
        return
    for option, _ in given(ctx):
        if option.key in _OF_SHADOWS:
            raise UsageError(
                f"{option.opts[0]} is about shadow models, and none are asked for; add --shadows N"
            )


def _refuse_unasked_trust(ctx: click.Context, config: FoundConfig, plan: AuditPlan) -> None:
    """A config may have come in the same folder as the model that it would trust."""
    if plan.model.trust_code and not config.named and not ctx.params.get("trust_code"):
        raise UsageError(
            f"{config.path} sets trust_code, but a file found {config.place} may not allow code to "
            "run; say --trust-code, or name the file with --config"
        )


def _refuse_loose_gate(config: FoundConfig) -> None:
    """A config that came with the model must not open the gate or bring its own cache.

    Only the working directory is the auditor's own ground; anything else is named with --config.
    """
    from unaudit.config import read_values
    from unaudit.plan import AuditPlan, PolicySection

    if config.named or config.path.resolve().parent == Path.cwd().resolve():
        return
    stated = AuditPlan.from_toml(config.path)
    usual, policy = PolicySection(), stated.policy
    loosened = {
        "policy.tau": policy.margin > usual.margin,
        "policy.alpha": policy.alpha > usual.alpha,
        "policy.access": policy.access == "black-box",
        "policy.accept_black_box": policy.accept_black_box,
        "policy.fail_on": policy.fail_on != usual.fail_on,
        "probes": bool(read_values(config.path).get("probes")),
        "run.store": stated.run.store is not None,
        "run.show_examples": stated.run.show_examples,
        "recipe.base": stated.recipe is not None and stated.recipe.base is not None,
    }
    for key, found in loosened.items():
        if found:
            raise UsageError(
                f"{config.path} sets {key}, but a file found {config.place} may not loosen the "
                "gate, bring a cache or weights, or show texts; name it with --config if it is "
                "yours"
            )


def _other_subject(plan: AuditPlan, config: FoundConfig) -> str:
    """Say that the line names another model than the file. It may be a slip: in ``--retrained a b``
    the flag takes a, and b is what would be audited."""
    from unaudit.config import same_file

    stated = type(plan).from_toml(config.path).model.path
    audited = plan.model.path
    if stated is None or audited is None or same_file(stated) == same_file(audited):
        return ""
    return f", but auditing {audited} instead of its model.path"


def _require_inputs(plan: AuditPlan, config: FoundConfig | None) -> None:
    """Name everything that is missing at once, before a model is read."""
    path = plan.model.path
    missing = [] if path else ["the model (MODEL)"]
    # recorded outputs bring their own examples along
    if path is None or not path.startswith("outputs:"):
        missing += [] if plan.request.forget else ["the forget ids (--forget IDS)"]
        missing += [] if plan.data.train else ["the training data they refer to (--train DATA)"]
    if missing:
        where = f"in {config.path}" if config else "in unaudit.toml ('unaudit init' writes one)"
        raise UsageError(f"not given: {', '.join(missing)}; add them to the line or {where}")


def _command(ctx: click.Context, config: FoundConfig | None, *, public: bool = False) -> str:
    from unaudit.config import without_folders

    def shown(path: str) -> str:
        return without_folders(path) if public else path

    words = ["unaudit", "check"]
    if ctx.params["model"]:
        words.append(shown(ctx.params["model"]))
    if config is not None:
        words += ["--config", config.path.name]
    elif ctx.params["config"]:
        words += ["--config", ctx.params["config"]]
    if ctx.params.get("recipe"):
        words += ["--recipe", shown(ctx.params["recipe"])]
    for option, value in given(ctx):
        if public and not option.repeats:
            continue
        if option.is_flag:
            words.append(option.opts[0])
            continue
        for item in value if option.multiple else [value]:
            words += [option.opts[0], shown(item) if option.holds_path else str(item)]
    return shlex.join(words)


def writable_folder(folder: Path) -> None:
    """Make ``folder`` and prove that files can be created in it, before any long work.

    Raises:
        UsageError: it cannot be made or written.
    """
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or type(error).__name__
        raise UsageError(
            f"{folder}: cannot write reports there ({reason}); choose another folder with --out"
        ) from None
