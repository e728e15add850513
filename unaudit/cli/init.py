"""``unaudit init``: ask, then write a commented ``unaudit.toml``."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from unaudit.cli.consoles import note
from unaudit.cli.options import AuditCommand
from unaudit.cli.progress import is_interactive
from unaudit.cli.surroundings import CONFIG, found_around, is_text_model, text_column
from unaudit.errors import InputError, UsageError

DEFAULT = "unaudit.toml"
RETRAINED = "references.retrained"
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("model.path", "The model to audit (file, Hugging Face folder, or outputs:FILE.npz)"),
    ("model.arch", "Its architecture, e.g. torchvision:resnet18?num_classes=10"),
    ("data.train", "The original's training data, forget examples included"),
    ("request.forget", "File of forget ids, one per line"),
    ("data.unseen", "Examples that no model was trained on"),
    ("references.original", "The model before unlearning"),
    (RETRAINED, "Models trained without the forget set, separated by spaces"),
)
EXAMPLES: Mapping[str, str] = {
    "model.path": "model.safetensors",
    "model.arch": "torchvision:resnet18?num_classes=10",
    "data.train": "train.npz",
    "request.forget": "forget.txt",
    "data.unseen": "unseen.npz",
    "references.original": "original.safetensors",
    RETRAINED: "retrained-1.safetensors retrained-2.safetensors",
    "data.text_column": "text",
}
NOTHING = "-"
"""The answer that leaves a question open for which something was found."""
TEMPLATE = """\
# What 'unaudit check' should do. Flags on the line stand above this file.
# Relative paths are taken from this file's folder. Lines that start with # are
# optional; what they show is the default, or an example where there is none.
schema_version = 1

[model]
# What is audited: a weights file (safetensors, .pt), a Hugging Face folder, or
# outputs:FILE.npz with recorded logits (black-box only).
{model.path}
# Its architecture, and that of the references: torchvision:NAME?num_classes=N,
# unaudit:resnet?depth=8, hf:DIR, or py:package.module:factory (needs
# trust_code). A Hugging Face folder says itself what it is.
{model.arch}
# The unlearning method as stated by whoever hands the model over; printed only.
# claimed_method = "fine-tuning"
# Allow code from the model's side to run, and who vouches for it. Counts only
# if --config names this file; otherwise say --trust-code on the line.
# trust_code = false
# trust_reason = "reviewed by the platform team"
# Where white-box probes look: modules from input to output, and the last linear
# layer. Default: found by running one batch.
# layers = ["layer1", "layer2", "layer3", "layer4"]
# head = "fc"

[data]
# npz, parquet, csv, jsonl, a folder of images, or torchvision:CIFAR10?root=DIR.
# The original's training data: forget and retain examples together.
{data.train}
# Examples that none of the models was trained on.
{data.unseen}
# Never-trained examples that an unlearner may have used; no probe uses them.
# validation = "validation.npz"
# What forget ids are: "index" (positions from 0) or "key" (the id column).
# Default: key where examples have ids, else index.
# id_type = "key"
# Columns or arrays. Default: the usual names, if just one of them is there.
# id_column = "id"
# input_column = "image"
# Texts for a language model need no labels: without them, leave this out.
# label_column = "label"
# Whose record an example is, where one person has several: the report then also
# combines evidence per person. Never an input.
# group_column = "person"
# Column of texts, instead of input_column (parquet, csv, jsonl).
{data.text_column}

[preprocess]
# From stored examples to the model's input, in this order.
# resize = [224, 224]           # height, width in pixels
# center_crop = [224, 224]      # height, width in pixels
# channels = "rgb"              # or "gray"
# layout = "as-is"              # "nhwc" if stored arrays end with the channels
# scale = 255.0                 # divisor; default 255 for images, uint8; or 1
# mean = [0.485, 0.456, 0.406]  # per channel, after scaling; together with std
# std = [0.229, 0.224, 0.225]
# For texts: a folder with tokenizer.json (default: the model's), tokens at most
# (default: what the model takes, at most 512; language models read whole
# texts), and whether longer ones lose their "end" or "start", or are an error
# ("refuse").
# tokenizer = "model"
# max_length = 512
# truncation = "end"

[request]
# What was asked to be removed: file of ids, one per line, # comments; or
# "class:NAME", or "keyword:WORD" for all texts with that word.
{request.forget}
# "class" (all of a class), "partial-class" or "sample". Default: detected.
# scenario = "sample"
# "erase" (default), or "relabel": labels of the forget set were swapped between
# two classes, and the confusion that they cause is to go. Data keep the labels
# that the original was trained on.
# kind = "relabel"
# The two classes of a relabeling. Default: those of the forget set.
# swapped = [0, 1]

[references]
# Models whose truth is known. Without them the audit reaches level 1 at most.
# The model before unlearning: the positive control.
{references.original}
# Trained without the forget set, with different seeds: the negative controls.
# Two are the least, five or more give narrow intervals.
{references.retrained}

# How the original was trained. With this section, references that are missing
# above are trained, and so are models that show what each probe is worth.
# [recipe]
# What is left out is filled in by what is usual for such a network.
# kind = "sgd"                  # or "adam", "adamw"
# lr = 0.1
# epochs = 30
# batch = 128
# momentum = 0.9
# weight_decay = 5e-4
# schedule = "cosine"           # or "constant"
# precision = "float32"         # or "bf16"
# augment = "crop-flip"         # of images; or "flip", "none"
# Weights to start from (file or Hugging Face folder, same architecture), which
# must never have seen the forget set. Default: random weights.
# base = "pretrained.safetensors"

[calibration]
# What is trained from the recipe: "smoke", "standard" or "full" (3, 5 or 10
# retrained models, and more and more unlearners) ...
# profile = "standard"
# ... or their number and the unlearners ('unaudit unlearners' lists them).
# retrained = 5
# unlearners = ["finetune", "head-distillation"]
# Processes that train side by side. Default: one per core.
# workers = 2

[shadows]
# Models trained by the recipe on random halves of the examples in question, so
# that attacks can tell members from others one by one. 0: none; 64 are usual.
# count = 64
# How the subject is said to have unlearned, so that they do so too (U-LiRA).
# unlearner = "finetune"
# Its hyperparameters, where they are not the defaults.
# parameters = { lr = 0.01 }
# How an example is shown; for images also "flip" and "shift dx,dy" in pixels.
# queries = ["plain", "flip"]
# Time that training them may take; their number is cut to fit.
# max_minutes = 60

[policy]
# What counts as a pass; fixed before the run and written into the record.
# Margin on the residual index (0 = like a retrained model, 1 = like the
# original): strict 0.2, standard 0.5, screening 0.75.
# preset = "standard"
# ... or the margin itself, instead of a preset:
# tau = 0.5
# Family-wise error rate.
# alpha = 0.05
# What probes may see: "black-box", outputs alone, or "white-box", activations
# and weights as well (default where weights and references are at hand).
# access = "white-box"
# Let a black-box audit pass although refitting the last layer can fake it.
# accept_black_box = false
# From which outcome on the exit code is not 0: "inconclusive" or "fail".
# fail_on = "inconclusive"

# Parameters by probe; 'unaudit probes NAME' lists them. enabled = false leaves
# a probe out, and the report says so.
# [probes.NAME]
# enabled = false

[run]
# How to run; nothing here but the seed changes a number.
# seed = 0
# bootstrap = 2000              # joint bootstrap replicates
# batch_size = 256
# device = "auto"               # or "cpu", "cuda"
# engine = "local"              # trains models; or "ray", "ray:ADDRESS"
# store = "cache"               # default: $UNAUDIT_STORE or the user's cache
# out = "unaudit-audit"         # folder for the record and the reports
# formats = ["html", "pdf"]     # besides record.json; also "html:DIR/A.html"
# show_examples = false         # true: reports show texts; do not publish them
"""


@click.command(cls=AuditCommand, short_help="Write a commented unaudit.toml.")
@click.argument("file", default=DEFAULT)
@click.option("-y", "--yes", is_flag=True, help="Ask nothing; write the defaults.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
def init(file: str, yes: bool, force: bool) -> None:
    """Ask for the files of an audit, then write a commented FILE (unaudit.toml by default).

    Files of usual names beside FILE (subject, original, retrained-1, train.jsonl, unseen.jsonl,
    forget.txt and the like) are proposed. Where FILE is a Hugging Face folder, unaudit.toml is
    written to audit that model.

    Asks nothing where nobody can answer (no terminal, CI, --yes).
    """
    found: dict[str, str] = {}
    if is_text_model(file):
        found, file = {"model.path": file}, DEFAULT
    target = Path(file)
    if target.is_dir():
        raise UsageError(
            f"{file} is a folder, and no Hugging Face folder ({CONFIG}); name the file to write"
        )
    if target.exists() and not force:
        raise UsageError(f"{file} exists; --force overwrites it, or name another file")
    found = found_around(target.parent) | found
    answers = found
    if not yes and is_interactive(sys.stdin):
        note(
            "press Enter to take what stands in brackets, or to leave an answer open (as "
            f"{NOTHING} does); every key is explained in the file"
        )
        answers = _asked(found, target)
    elif found:
        filled = ", ".join(f"{key} = {value}" for key, value in found.items())
        note(f"filled in from what lies here: {filled}; check it")
    if "model.path" in answers and "data.train" in answers:
        model, train = (target.parent / answers[key] for key in ("model.path", "data.train"))
        if (column := text_column(model, train)) is not None:
            answers = {**answers, "data.text_column": column}
    text = config_text(answers)
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}); name another file"
        ) from None
    click.echo(f"wrote {file}")
    named = "" if file == DEFAULT else f" --config {file}"
    note(f"next: fill it in, then 'unaudit plan{named}' says what 'unaudit check{named}' will do")


def _asked(found: Mapping[str, str], target: Path) -> dict[str, str]:
    """Answers by key, paths from ``target``'s folder; ``found`` proposed, open ones left out."""
    answers: dict[str, str] = {}
    for key, question in QUESTIONS:
        model = answers.get("model.path")
        if key == "model.arch" and model is not None and is_text_model(target.parent / model):
            continue
        proposed = found.get(key, "")
        answer = click.prompt(question, default=proposed, show_default=bool(proposed), err=True)
        if answer.strip() not in ("", NOTHING):
            answers[key] = _beside(target, key, answer.strip())
    return answers


def _beside(target: Path, key: str, answer: str) -> str:
    """An answer that is a path from here, as one from the folder of the file."""

    def moved(spec: str) -> str:
        # outputs:FILE, hf:DIR, torchvision:CIFAR10?root=DIR&train=…
        found = re.fullmatch(r"(outputs:|hf:|.*[?&]root=|)([^&]*)(.*)", spec)
        assert found is not None
        before, path, after = found.groups()
        beside, named = target.parent / path, key == "model.arch" and before != "hf:"
        if named or not path or beside.exists() or not Path(path).exists():
            return spec
        return before + os.path.relpath(path, target.parent) + after

    return " ".join(map(moved, answer.split())) if key == RETRAINED else moved(answer)


def config_text(answers: Mapping[str, str]) -> str:
    """The config file, with ``answers`` by dotted key; keys without one stay commented out."""
    text = TEMPLATE
    for key, example in EXAMPLES.items():
        answer = answers.get(key)
        line = f"{key.rpartition('.')[2]} = {_toml(key, answer or example)}"
        text = text.replace(f"{{{key}}}", line if answer else f"# {line}")
    return text


def _toml(key: str, answer: str) -> str:
    if key != RETRAINED:
        return _string(answer)
    return f"[{', '.join(_string(word) for word in answer.split())}]"


def _string(text: str) -> str:
    """A TOML basic string: JSON's escapes, and DEL, which JSON leaves alone."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
