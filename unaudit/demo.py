"""The embedded world: scikit-learn's digits, models of known truth, the files that an audit takes.

Everything is written to a folder just as a user would hand it in, so the demo runs the very same
pipeline as ``unaudit check`` and can be repeated with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unaudit.engine.threads import threads_for
from unaudit.errors import InputError
from unaudit.evidence import IntArray, Scenario
from unaudit.loading.networks import mlp
from unaudit.plan import CONFIG_NAME, AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.training import Recipe, fit, initialize
from unaudit.unlearners import Task, load_unlearners

Subject = Literal["original", "finetuned", "head-distilled", "retrained"]
SUBJECTS: tuple[Subject, ...] = ("finetuned", "head-distilled", "retrained", "original")
Setting = Literal["sample", "class"]

UNLEARNED: Mapping[Subject, tuple[str, Mapping[str, float]]] = {
    "finetuned": ("finetune", {"lr": 0.01, "epochs": 10}),
    "head-distilled": ("head-distillation", {}),
}
"""How those subjects come about that are made from the original; shadow models go the same way."""

RECIPE = Recipe(lr=0.1, epochs=60, batch=64)
N_CLASSES = 10
PIXEL_MAX = 16
"""Gray levels of the digits run from 0 to 16."""


@dataclass(frozen=True)
class Layout:
    """How the digits are cut and what network learns them."""

    train: int
    """Examples that the original is trained on."""
    forget: int | None
    """Forget examples, drawn over all classes; None: a whole class."""
    forget_class: int
    widths: tuple[int, ...]


LAYOUTS: dict[Setting, Layout] = {
    "sample": Layout(train=1200, forget=200, forget_class=-1, widths=(64, 128, 128, 10)),
    # a narrow penultimate layer keeps what the head needs and little else
    "class": Layout(train=1100, forget=None, forget_class=8, widths=(64, 32, 12, 10)),
}


@dataclass(frozen=True, eq=False)
class Digits:
    """The digits, shuffled and cut."""

    inputs: Tensor
    """(1797, 64) float32 in [0, 1]."""
    labels: Tensor
    """(1797,) int64."""
    train: IntArray
    """Positions of the training examples."""
    forget: IntArray
    """Positions of the forget examples, all within ``train``."""
    unseen: IntArray

    @property
    def retain(self) -> IntArray:
        return np.setdiff1d(self.train, self.forget)


def build_world(
    folder: Path,
    subject: Subject = "finetuned",
    scenario: Setting = "sample",
    seed: int = 0,
    progress: Progress = SILENT,
    retrained: int = 5,
    shadows: int = 0,
) -> AuditPlan:
    """Train the models, write models, data, forget ids and ``unaudit.toml`` into ``folder``.

    Args:
        folder: created if it does not exist.
        subject: what the audited model really is.
        scenario: 200 digits over all classes, or every 8.
        seed: decides the cut and every model.
        progress: told of each model.
        retrained: number of references.
        shadows: number of shadow models that the audit is to train; with any, ``unaudit.toml``
            holds the recipe, and the audit makes calibrators as well.

    Raises:
        InputError: the folder cannot be written.
    """
    layout = LAYOUTS[scenario]
    digits = load_digits(layout, seed)
    with progress.stage("training", 2 + retrained) as step, threads_for(0):
        original = train_model(digits, digits.train, layout.widths, seed, 0)
        step(1)
        references = []
        for number in range(1, retrained + 1):
            references.append(train_model(digits, digits.retain, layout.widths, seed, number))
            step(1)
        audited = make_subject(subject, original, digits, scenario, seed)
        step(1)
    models = {"original": original, "subject": audited}
    models |= {f"retrained-{number}": model for number, model in enumerate(references, start=1)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_data(folder, digits)
        for name, model in models.items():
            save_file(model.state_dict(), folder / f"{name}.safetensors")
        config = folder / CONFIG_NAME
        training = _training(shadows, subject) if shadows else ""
        config.write_text(_config(layout, len(references), training), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write the demo's files ({error.strerror}); choose another --out"
        ) from None
    return AuditPlan.from_toml(config)


def load_digits(layout: Layout, seed: int) -> Digits:
    """Shuffle and cut the digits; the same seed gives the same cut."""
    from sklearn.datasets import load_digits as read

    raw = read()
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(raw.target))
    train, unseen = order[: layout.train], order[layout.train :]
    if layout.forget is None:
        forget = train[raw.target[train] == layout.forget_class]
    else:
        forget = rng.choice(train, layout.forget, replace=False)
    return Digits(
        inputs=torch.tensor(raw.data / PIXEL_MAX, dtype=torch.float32),
        labels=torch.tensor(raw.target, dtype=torch.int64),
        train=np.sort(train),
        forget=np.sort(forget),
        unseen=np.sort(unseen),
    )


def train_model(
    digits: Digits, rows: IntArray, widths: Sequence[int], seed: int, number: int
) -> nn.Module:
    """A network trained on some of the digits; (seed, number) decides its weights and batches."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    model = initialize(mlp(widths), generator)
    return fit(model, digits.inputs[rows], digits.labels[rows], RECIPE, generator)


def make_subject(
    subject: Subject, original: nn.Module, digits: Digits, scenario: Setting, seed: int
) -> nn.Module:
    """The model that is handed in, made as its name says."""
    if subject == "original":
        return original
    if subject == "retrained":
        return train_model(digits, digits.retain, LAYOUTS[scenario].widths, seed, 1000)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 2000)
    name, settings = UNLEARNED[subject]
    method = load_unlearners().get(name)(**settings)
    return method(task(original, digits, scenario), generator)


def task(original: nn.Module, digits: Digits, scenario: Scenario) -> Task:
    """What an unlearner is given."""
    rows = digits.train
    return Task(
        original=original,
        inputs=digits.inputs[rows],
        labels=digits.labels[rows],
        forget=torch.from_numpy(np.isin(rows, digits.forget)),
        n_classes=N_CLASSES,
        scenario=scenario,
        recipe=RECIPE,
    )


def _write_data(folder: Path, digits: Digits) -> None:
    for name, rows in (("train", digits.train), ("unseen", digits.unseen)):
        np.savez(
            folder / f"{name}.npz",
            x=(digits.inputs[rows] * PIXEL_MAX).round().to(torch.uint8).numpy(),
            y=digits.labels[rows].numpy(),
            id=np.array([f"digit-{row:04d}" for row in rows]),
        )
    ids = [f"digit-{row:04d}" for row in digits.forget]
    text = "# digits that the model was asked to forget\n" + "\n".join(ids) + "\n"
    (folder / "forget.txt").write_text(text, encoding="utf-8")


def _config(layout: Layout, retrained: int, training: str) -> str:
    names = ", ".join(f'"retrained-{n}.safetensors"' for n in range(1, retrained + 1))
    widths = "-".join(str(width) for width in layout.widths)
    return f"""\
# The embedded demo: scikit-learn's digits. Repeat it with: unaudit check subject.safetensors
schema_version = 1

[model]
path = "subject.safetensors"
arch = "unaudit:mlp?widths={widths}"

[data]
train = "train.npz"
unseen = "unseen.npz"

[preprocess]
scale = {PIXEL_MAX}

[request]
forget = "forget.txt"

[references]
original = "original.safetensors"
retrained = [{names}]
{training}"""


def _training(shadows: int, subject: Subject) -> str:
    stated = ""
    if subject in UNLEARNED:
        method, settings = UNLEARNED[subject]
        values = ", ".join(f"{name} = {value}" for name, value in settings.items())
        stated = f'unlearner = "{method}"\n' + (f"parameters = {{ {values} }}\n" if values else "")
    return f"""
[recipe]
lr = {RECIPE.lr}
epochs = {RECIPE.epochs}
batch = {RECIPE.batch}

[calibration]
unlearners = ["finetune", "head-distillation"]

[shadows]
count = {shadows}
{stated}"""
