"""Every flag that fills the plan, once: what it is called, what it sets, how it is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from unaudit.cli.options import DATA, MODELS, POLICY, RUN, PlainOption, PlanOption

F = TypeVar("F", bound=Callable[..., Any])


def _choice(*values: str) -> click.Choice[str]:
    return click.Choice(values, case_sensitive=False)


def plan_options() -> list[PlanOption]:
    """The flags of ``check`` and ``plan`` in the order of their help."""
    fraction = click.FloatRange(0, 1, min_open=True, max_open=True)
    positive = click.IntRange(min=1)
    return [
        PlanOption(
            "--original",
            key="references.original",
            heading=MODELS,
            metavar="MODEL",
            holds_path=True,
            help="The model before unlearning: the positive control.",
        ),
        PlanOption(
            "--retrained",
            key="references.retrained",
            heading=MODELS,
            metavar="MODEL",
            holds_path=True,
            multiple=True,
            help="A model trained without the forget set; repeat the flag for each, five or "
            "more if possible.",
        ),
        PlanOption(
            "--arch",
            key="model.arch",
            heading=MODELS,
            metavar="SPEC",
            help="Architecture of the weights, e.g. torchvision:resnet18?num_classes=10, hf:FOLDER "
            "or py:pkg.mod:factory.",
        ),
        PlanOption(
            "--trust-code",
            key="model.trust_code",
            heading=MODELS,
            is_flag=True,
            help="Allow code from the model's side to run (py: factories).",
        ),
        PlanOption(
            "--trust-reason",
            key="model.trust_reason",
            heading=MODELS,
            metavar="TEXT",
            help="Who trusts that code and why; printed in the report.",
        ),
        PlanOption(
            "--forget",
            key="request.forget",
            heading=DATA,
            metavar="IDS",
            holds_path=True,
            help="File of forget ids, one per line, # comments; or class:NAME, or keyword:WORD "
            "for all texts with that word.",
        ),
        PlanOption(
            "--train",
            key="data.train",
            heading=DATA,
            metavar="DATA",
            holds_path=True,
            help="The original's training data, forget examples included: npz, "
            "parquet, csv, jsonl, image folder, torchvision:NAME?root=DIR.",
        ),
        PlanOption(
            "--unseen",
            key="data.unseen",
            heading=DATA,
            metavar="DATA",
            holds_path=True,
            help="Examples that none of the models was trained on.",
        ),
        PlanOption(
            "--validation",
            key="data.validation",
            heading=DATA,
            metavar="DATA",
            holds_path=True,
            help="Never-trained examples that the unlearner may have used.",
        ),
        PlanOption(
            "--id-type",
            key="data.id_type",
            heading=DATA,
            type=_choice("index", "key"),
            help="What forget ids are: positions from 0, or keys. Default by data format.",
        ),
        PlanOption(
            "--scenario",
            key="request.scenario",
            heading=DATA,
            type=_choice("class", "partial-class", "sample"),
            help="What the forget set is. Default: detected from its labels.",
        ),
        PlanOption(
            "--access",
            key="policy.access",
            heading=POLICY,
            type=_choice("black-box", "white-box"),
            help="What probes may see: outputs alone, or activations and weights too. Default: all "
            "that the models allow.",
        ),
        PlanOption(
            "--preset",
            key="policy.preset",
            heading=POLICY,
            type=_choice("strict", "standard", "screening"),
            help="Margin on the residual index: strict 0.2, standard 0.5 (default), screening "
            "0.75.",
        ),
        PlanOption(
            "--tau",
            key="policy.tau",
            heading=POLICY,
            type=fraction,
            metavar="NUMBER",
            help="The margin itself, between 0 and 1, instead of a preset.",
        ),
        PlanOption(
            "--accept-black-box",
            key="policy.accept_black_box",
            heading=POLICY,
            is_flag=True,
            help="Let a black-box audit pass although refitting the last layer can fake its "
            "evidence.",
        ),
        PlanOption(
            "--fail-on",
            key="policy.fail_on",
            heading=POLICY,
            type=_choice("fail", "inconclusive"),
            help="From which outcome on the exit code is not 0. Default: inconclusive.",
        ),
        PlanOption(
            "--profile",
            key="calibration.profile",
            heading=RUN,
            type=_choice("smoke", "standard", "full"),
            help="How much is trained from a recipe: 3, 5 (default) or 10 retrained models, and "
            "more and more unlearners.",
        ),
        PlanOption(
            "--shadows",
            key="shadows.count",
            heading=RUN,
            type=click.IntRange(min=0),
            metavar="N",
            help="Shadow models to train from the recipe, for attacks on single examples (LiRA, "
            "RMIA); default 0, 64 are usual.",
        ),
        PlanOption(
            "--unlearner",
            key="shadows.unlearner",
            heading=RUN,
            metavar="METHOD",
            help="How the subject is said to have unlearned; shadow models then do so too "
            "(U-LiRA).",
        ),
        PlanOption(
            "--max-minutes",
            key="shadows.max_minutes",
            heading=RUN,
            type=click.FloatRange(min=0, min_open=True),
            metavar="M",
            help="Time that shadow models may take; their number is cut to fit.",
        ),
        PlanOption(
            "--seed",
            key="run.seed",
            heading=RUN,
            type=click.IntRange(min=0),
            metavar="N",
            help="Root seed; default 0.",
        ),
        PlanOption(
            "--device",
            key="run.device",
            heading=RUN,
            metavar="NAME",
            repeats=False,
            help="auto (default), cpu or cuda.",
        ),
        PlanOption(
            "--engine",
            key="run.engine",
            heading=RUN,
            metavar="NAME",
            repeats=False,
            help="Where models are trained: local (default), ray or ray:ADDRESS.",
        ),
        PlanOption(
            "--batch-size",
            key="run.batch_size",
            heading=RUN,
            type=positive,
            metavar="N",
            repeats=False,
            help="Examples per forward pass; default 256.",
        ),
        PlanOption(
            "--store",
            key="run.store",
            heading=RUN,
            metavar="DIR",
            repeats=False,
            help="Folder of the cache. Default: $UNAUDIT_STORE or the user's cache folder.",
        ),
        PlanOption(
            "--out",
            key="run.out",
            heading=RUN,
            metavar="DIR",
            repeats=False,
            help="Folder for record.json and the reports; default unaudit-audit.",
        ),
        PlanOption(
            "-o",
            "formats",
            key="run.formats",
            heading=RUN,
            metavar="FORMAT[:PATH]",
            repeats=False,
            multiple=True,
            help="Report to write besides record.json, repeatable: html, pdf, json. "
            "Default: html and pdf, into --out.",
        ),
        PlanOption(
            "--show-examples",
            key="run.show_examples",
            heading=RUN,
            is_flag=True,
            help="With --shadows: write how the texts begin that stand out most into record.json "
            "and the reports. Without it no text is shown.",
        ),
    ]


def audit_flags(command: F) -> F:
    """Give a command MODEL, ``--config``, ``-q`` and every flag that fills the plan."""
    flags: list[click.Parameter] = [
        click.Argument(["model"], required=False),
        _config_flag(),
        _recipe_flag(),
        *plan_options(),
    ]
    command.__click_params__ = [*getattr(command, "__click_params__", []), *reversed(flags)]  # type: ignore[attr-defined]
    return command


def flags_of(keys: Sequence[str]) -> Callable[[F], F]:
    """Give a command ``--config``, ``--recipe`` and the flags that fill these keys of the plan."""
    chosen = [option for option in plan_options() if option.key in keys]

    def give(command: F) -> F:
        flags = [_config_flag(), _recipe_flag(), *chosen]
        command.__click_params__ = [*getattr(command, "__click_params__", []), *reversed(flags)]  # type: ignore[attr-defined]
        return command

    return give


def _config_flag() -> PlainOption:
    return PlainOption(
        ["--config"],
        metavar="FILE",
        help="unaudit.toml to read. Default: the one next to MODEL, else in the working directory.",
    )


def _recipe_flag() -> PlainOption:
    return PlainOption(
        ["--recipe"],
        metavar="FILE",
        help="TOML file with the keys of [recipe]: how the original was trained.",
    )


def quiet_flag(command: F) -> F:
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        cls=PlainOption,
        help="No progress, and one line for a result.",
    )(command)
