"""``unaudit canary``: what whoever prepares an audit in advance plants in the training data."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unaudit.cli.consoles import note
from unaudit.cli.options import AuditCommand
from unaudit.cli.surroundings import holds_texts
from unaudit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from unaudit.canaries import Canaries, Design
    from unaudit.data import Dataset
    from unaudit.plan import AuditPlan

IDS, REQUEST, MANIFEST = "ids.txt", "request.txt", "manifest.json"
LEAST = 20
"""Canaries on either side with fewer of which no probe compares."""


@click.group(
    invoke_without_command=True,
    short_help="Plant canaries before training.",
)
@click.pass_context
def canary(ctx: click.Context) -> None:
    """Prepare an audit in advance: plant outliers whose removal can be tested."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(int(ExitCode.BAD_INPUT))


@canary.command(cls=AuditCommand, short_help="Make canaries, half to plant, half to hold out.")
@click.argument("data", required=False)
@click.option(
    "--unseen",
    metavar="DATA",
    help="The data that the held-out half will be added to; needed where examples have no ids.",
)
@click.option(
    "--config", metavar="FILE", help="unaudit.toml whose data and preprocess sections apply."
)
@click.option("--forget", metavar="IDS", help="Ids to be forgotten besides; go into the lists.")
@click.option(
    "--count",
    type=click.IntRange(min=LEAST),
    default=50,
    show_default=True,
    metavar="N",
    help="Canaries to plant, and as many to hold out.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    help="Makes the same canaries again. Default: drawn, and written to manifest.json.",
)
@click.option(
    "--scramble",
    type=click.Choice(["pixels", "values"]),
    default="pixels",
    show_default=True,
    help="Shuffle whole pixels, or every value on its own.",
)
@click.option(
    "--labels",
    type=click.Choice(["keep", "random"]),
    default="keep",
    show_default=True,
    help="Keep the label of what is scrambled, or draw one.",
)
@click.option(
    "--class",
    "classes",
    metavar="CLASS",
    multiple=True,
    help="Scramble examples of this class only; repeatable. Default: any.",
)
@click.option(
    "--id-type",
    type=click.Choice(["index", "key"]),
    help="How the lists name examples: positions from 0, or keys. Default by data format.",
)
@click.option("--store", metavar="DIR", help="Folder of the cache, as for 'unaudit check'.")
@click.option(
    "--out", default="unaudit-canaries", show_default=True, metavar="DIR", help="Folder to write."
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def make(data: str | None, forget: str | None, out: str, force: bool, **line: Any) -> None:
    """Scramble examples of DATA (the training data) and plant a random half of them.

    Add planted to the training data and held-out to the unseen data, behind what is there, then
    train. Later 'unaudit check --forget ids.txt' tells whether planted canaries are still known
    better than those that no model ever saw.
    """
    from unaudit.canaries import Design, draw, write
    from unaudit.canaries.names import list_text, name_canaries, request_text
    from unaudit.data import locate
    from unaudit.data.ids import read_forget_list
    from unaudit.data.labels import class_number

    plan = _plan(data, line)
    train, unseen = _open(plan)
    id_type = plan.data.id_type or train.default_id_type
    listed = None if forget is None else read_forget_list(forget)
    if listed is not None:
        locate(listed.ids, train, id_type)
    design = Design(
        count=line["count"],
        seed=secrets.randbits(48) if line["seed"] is None else line["seed"],
        scramble=line["scramble"],
        labels=line["labels"],
        classes=tuple(class_number(train, name, "--class") for name in line["classes"]),
    )
    canaries = draw(train, design)
    names = name_canaries(canaries, train, unseen, by_position=id_type == "index", seed=design.seed)

    def texts(planted: Path, held_out: Path) -> dict[str, str]:
        written = {
            IDS: list_text(listed, names, canaries),
            REQUEST: request_text(listed, names, canaries),
        }
        digests = {path.name: _digest(path) for path in (planted, held_out)}
        digests |= {
            name: hashlib.sha256(text.encode()).hexdigest() for name, text in written.items()
        }
        return written | {MANIFEST: _manifest(design, train, canaries, names.listed, digests)}

    paths = write(Path(out), canaries, names, train, plan.data, texts, overwrite=force)
    rows = "copy them into" if paths.planted.is_dir() else "add them at the end of"
    told = (
        (paths.planted, f"{design.count} canaries: {rows} the training data, then train"),
        (paths.held_out, f"{design.count} canaries: {rows} the unseen data; never train on them"),
        (paths.others[0], "for 'unaudit check --forget'; keep it to yourself"),
        (paths.others[1], "the same without marks: what to ask the unlearner for"),
        (paths.others[2], "seed, settings and digests; keep it to yourself"),
    )
    for path, what in told:
        click.echo(f"{path}: {what}")
    note(f"the seed is {design.seed}; with it, the same line makes the same files")


def _plan(data: str | None, line: dict[str, Any]) -> AuditPlan:
    """Where the data is and how it is read."""
    from unaudit.plan import AuditPlan

    stated = {
        "data": {"train": data, "unseen": line["unseen"], "id_type": line["id_type"]},
        "run": {"store": line["store"]},
    }
    given = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in stated.items()
    }
    config = line["config"]
    plan = AuditPlan.build(given) if config is None else AuditPlan.from_toml(Path(config), given)
    if plan.data.train is None:
        raise UsageError("no training data given; name it on the line (DATA) or with --config")
    return plan


def _open(plan: AuditPlan) -> tuple[Dataset, Dataset | None]:
    """Training and unseen data; inputs are values as stored, of the size that a model is fed.

    Scrambled pixels must not be resized any more, or little would be left of them.
    """
    from unaudit.data import open_dataset
    from unaudit.data.tokenize import NotForTextsError
    from unaudit.engine.store import Store
    from unaudit.text import plain

    assert plan.data.train is not None
    texts = UsageError(
        f"{plain(plan.data.train, 400)} holds texts; canaries are made of images and other arrays "
        "of numbers"
    )
    # texts without labels are data as well, for a language model
    if plan.data.input_column is None and holds_texts(plan.data.train):
        raise texts
    stored = plan.preprocess.model_copy(
        update={"scale": 1.0, "mean": None, "std": None, "center_crop": None}
    )
    store = Store(None if plan.run.store is None else Path(plan.run.store))
    try:
        train = open_dataset(plan.data.train, plan.data, stored, store)
    except NotForTextsError:
        raise texts from None
    if plan.data.unseen is None:
        return train, None
    classes = train.classes or ()
    return train, open_dataset(plan.data.unseen, plan.data, stored, store, classes=classes)


def _manifest(
    design: Design,
    train: Dataset,
    canaries: Canaries,
    names: Sequence[str],
    digests: dict[str, str],
) -> str:
    """Everything that is needed to make the canaries again, and to see that they are the same."""
    import dataclasses
    from importlib.metadata import version

    made = [
        {
            "id": name,
            "planted": planted,
            "label": label,
            "template": str(row) if train.ids is None else str(train.ids[row]),
        }
        for name, planted, label, row in zip(
            names,
            canaries.planted.tolist(),
            canaries.labels.tolist(),
            canaries.templates.tolist(),
            strict=True,
        )
    ]
    content = {
        "unaudit": version("unaudit"),
        "design": dataclasses.asdict(design),
        "data": {"name": train.name, "examples": len(train), "sha256": train.digest},
        "sha256": digests,
        "canaries": made,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _digest(path: Path) -> str:
    """Of a file, or of the names and files of a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.png")):
        digest.update(f"{file.relative_to(path).as_posix()}\0{_digest(file)}\n".encode())
    return digest.hexdigest()
