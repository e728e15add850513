"""Where models are made from a recipe: jobs of models, and models of their results.

What is made is kept in the store under the digest of everything that decided it, and used again by
every later audit of the same request.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import nn

from unaudit.case import Candidate, Case, Role
from unaudit.data import Dataset
from unaudit.devices import choose_device
from unaudit.engine.answers import code_digest
from unaudit.engine.choose import engine_from
from unaudit.engine.jobs import Job, results_of
from unaudit.engine.store import Store, content_key
from unaudit.errors import InputError, UsageError
from unaudit.fidelity import MADE
from unaudit.loading import LoadedModel, Provenance, Trust
from unaudit.loading.architectures import build_architecture, parse_architecture
from unaudit.loading.fit import digest_of
from unaudit.loading.libraries import libraries
from unaudit.plan import AuditPlan, RecipeSection
from unaudit.progress import SILENT, Progress
from unaudit.text import plain
from unaudit.training.base import Base, Reader, load_base
from unaudit.training.defaults import Setting, setting_of
from unaudit.training.model_job import model_job, task_of, weights_of
from unaudit.training.together import Together
from unaudit.unlearners import Task, UnlearnerCard, load_unlearners

BATCH = 1024
"""Examples at a time while data are laid out for workers."""
MOST_TEXT = 8 << 30
"""Bytes of token ids of one data set, padding included, that are laid out for workers."""
CODE = ("unaudit.training", "unaudit.unlearners", "unaudit.loading", "unaudit.tokens")
"""What decides the weights of a model that is made."""


class Workshop:
    """Makes models by the recipe of one plan on the data of one case."""

    def __init__(self, case: Case, plan: AuditPlan, store: Store) -> None:
        """
        Args:
            case: whose training data the recipe is run on.
            plan: with the recipe; what it leaves open is filled in.
            store: keeps data and models.

        Raises:
            InputError: the subject or the training data are known by recorded outputs only.
        """
        model = case.subject.model
        arch = model.arch or plan.model.arch if isinstance(model, LoadedModel) else None
        if not isinstance(model, LoadedModel) or arch is None:
            raise InputError(
                "a recipe needs the subject's weights and architecture to train others like it; "
                "hand in its file, or take the recipe out"
            )
        self.case, self.store = case, store
        self.arch, self.trusted = arch, plan.model.trust_code
        self.shown_arch = model.provenance.arch
        self.seed = plan.run.seed
        self.head = plan.model.head
        self.device = choose_device(plan.run.device).type
        self.train = case.splits["forget"].dataset
        held = [case.splits["validation"].labels] if "validation" in case.splits else []
        self.n_classes = 1 + max(int(labels.max()) for labels in (self.train.labels, *held))
        self.module = model.module
        recipe = plan.recipe or RecipeSection()
        self._starts_from, self._stated_arch = recipe.base, plan.model.arch
        self._reads = Reader.of(self.train, plan.preprocess.tokenizer or model.provenance.name)
        self.setting: Setting = setting_of(
            recipe.model_dump(exclude={"base"}),
            self.module,
            self.train.input_shape,
            pretrained=recipe.base is not None,
        )
        # an accelerator is kept busy by one process; a cluster has more of them
        alone = self.device != "cpu" and plan.run.engine == "local"
        workers = 1 if alone else plan.calibration.workers
        self.executor = Together(engine_from(plan.run.engine, workers))

    @cached_property
    def base(self) -> Base | None:
        """What originals, retrained and shadow models start from; None: random weights.

        Raises:
            UsageError: it is of another architecture, or a model that saw the forget set.
            InputError, UnsafeModelError: its file cannot be used.
        """
        if self._starts_from is None:
            return None
        case = self.case
        saw_all = {
            candidate.label: candidate.model.module
            for candidate in (case.subject, case.original)
            if candidate is not None and isinstance(candidate.model, LoadedModel)
        }
        return load_base(self._starts_from, self.module, self._stated_arch, saw_all, self._reads)

    def make(
        self,
        jobs: Mapping[str, Job],
        progress: Progress,
        stage: str,
        original: nn.Module | None = None,
    ) -> dict[str, bytes]:
        """Weights by label; data are laid out only if one of them is not in the store yet.

        Args:
            jobs: by label.
            progress: told of ``stage``.
            stage: what this is called.
            original: what unlearners start from.

        Raises:
            DivergedError: training left the finite numbers.
        """
        if not jobs:
            return {}
        with progress.stage(stage, len(jobs)) as step:
            results = results_of(
                list(jobs.values()),
                self.store,
                self.executor,
                lambda _: step(1),
                places=lambda: self.places(original),
            )
        return dict(zip(jobs, results, strict=True))

    def job(self, method: str, label: str, original: LoadedModel | None = None) -> Job:
        """The job that makes one model; its label decides its seed."""
        return model_job(
            label,
            method=method,
            parameters={},
            **self.world(),
            seed=self.seed_of(label),
            torch=libraries(self.arch),
            data=self.case.splits["forget"].digest,
            validation=self._validation_digest(method),
            original=None if original is None else original.digest,
            code=code_digest(*CODE),
        )

    def world(self) -> dict[str, Any]:
        """What every job of this workshop is told: architecture, recipe, request.

        Raises:
            UsageError, InputError, UnsafeModelError: see :attr:`base`.
        """
        return {
            "arch": self.arch,
            "trusted": self.trusted,
            "recipe": dataclasses.asdict(self.setting.recipe),
            "augment": self.setting.augment,
            "base": None if self.base is None else self.base.digest,
            "scenario": self.case.scenario,
            "n_classes": self.n_classes,
            "head": self.head,
            "device": self.device,
        }

    def task(self, progress: Progress = SILENT) -> Task:
        """What an unlearner is given whose original is the case's subject."""
        return task_of(self.world(), self.places(), self.module, progress)

    def seed_of(self, label: str) -> int:
        """Seed of one model, from the root seed and its label, never from its place in a list."""
        digest = hashlib.sha256(f"{self.seed}:{label}".encode()).digest()
        return int.from_bytes(digest[:7], "little")

    def generator(self, label: str) -> torch.Generator:
        """Decided by the root seed and the label of what is to be made."""
        return torch.Generator().manual_seed(self.seed_of(label))

    def candidate(self, role: Role, label: str, weights: bytes) -> Candidate:
        """A model that was made, as if it had been handed in."""
        trust = Trust("the plan trusts it") if self.trusted else None
        built = build_architecture(parse_architecture(self.arch), trust)
        built.module.load_state_dict(load(weights))
        # a calibrator starts from the original
        base = self.base if role in ("original", "retrained") else None
        provenance = Provenance(
            name=label,
            sha256=hashlib.sha256(weights).hexdigest(),
            size_bytes=len(weights),
            format="safetensors",
            tier="T0" if built.code_sha256 is None else "T2",
            arch=self.shown_arch,
            parameters=sum(value.numel() for value in built.module.parameters()),
            notes=(MADE, *(() if base is None else base.notes)),
        )
        digest = digest_of(built.module, built.spec or self.arch, built.code_sha256 or "")
        return Candidate(role, label, LoadedModel(built.module, provenance, digest))

    def places(self, original: nn.Module | None = None) -> dict[str, str]:
        """Files that workers read: preprocessed inputs, labels, the forget mask, the original, and
        the weights that training starts from."""
        forget = self.case.splits["forget"]
        mask = np.zeros(len(self.train), dtype=bool)
        mask[forget.rows] = True
        places = {
            "inputs": self.inputs(self.train),
            "labels": self.array("labels", self.train.digest, self.train.labels),
            "forget": self.array("forget", forget.digest, mask),
        }
        if "validation" in self.case.splits:
            places |= self.held("validation")
        if original is not None:
            weights = weights_of(original)
            digest = hashlib.sha256(weights).hexdigest()
            places["original"] = self._bytes("weights", digest, weights)
        if self.base is not None:
            places["base"] = self._bytes("weights", self.base.digest, self.base.weights)
        return places

    def held(self, name: Literal["unseen", "validation"]) -> dict[str, str]:
        """Files of data that were held out."""
        data = self.case.splits[name].dataset
        return {
            f"{name}_inputs": self.inputs(data),
            f"{name}_labels": self.array("labels", data.digest, data.labels),
        }

    def inputs(self, dataset: Dataset) -> str:
        """The file of all preprocessed inputs of a data set.

        Raises:
            UsageError: texts that would all be padded to the length of an endless one.
        """
        shape = (len(dataset), *dataset.input_shape)
        size = math.prod(shape) * dataset.input_dtype.itemsize
        if dataset.input_dtype.kind == "i" and size > MOST_TEXT:
            raise UsageError(
                f"{plain(dataset.name)}: padded to its longest text of {shape[1]:,} tokens, the "
                f"data take {size >> 30} GiB to train on; set preprocess.max_length"
            )

        def fill(array: npt.NDArray[Any]) -> None:
            at = 0
            for batch in dataset.batches(np.arange(len(dataset), dtype=np.int64), BATCH):
                array[at : at + len(batch)] = batch.numpy()
                at += len(batch)

        return self._file("inputs", dataset.digest, shape, dataset.input_dtype, fill)

    def array(self, what: str, digest: str, values: npt.NDArray[Any]) -> str:
        """The file of an array that ``digest`` decides."""

        def fill(array: npt.NDArray[Any]) -> None:
            array[:] = values

        return self._file(what, digest, values.shape, values.dtype, fill)

    def _bytes(self, what: str, digest: str, content: bytes) -> str:
        return self.array(what, digest, np.frombuffer(content, dtype=np.uint8))

    def _file(
        self,
        what: str,
        digest: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        fill: Callable[[npt.NDArray[Any]], None],
    ) -> str:
        array = self.store.array(content_key(what, data=digest), shape, dtype, fill)
        assert isinstance(array, np.memmap)
        return str(array.filename)

    def _validation_digest(self, method: str) -> str | None:
        """Of the validation data where ``method`` consumes them; they decide nothing elsewhere."""
        known = load_unlearners()
        if method not in known or "validation" not in known.get(method).card.consumes:
            return None
        held = self.case.splits.get("validation")
        return None if held is None else held.digest


def can_work(card: UnlearnerCard, case: Case) -> bool:
    """Whether a method makes a calibrator of this case: an approximate one, for such models and
    this scenario, with the data that it consumes."""
    lacks = "validation" in card.consumes and "validation" not in case.splits
    texts = case.splits["forget"].dataset.input_dtype.kind != "f"
    fits = case.scenario in card.scenarios and case.task in card.tasks
    return not card.exact and fits and not (texts and card.moves_inputs) and not lacks
