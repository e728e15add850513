"""Train the shadow models of a design, and put together what they say."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unaudit.engine.answers import code_digest
from unaudit.engine.jobs import Executor, Job, results_of
from unaudit.engine.store import Store, content_key
from unaudit.errors import UsageError
from unaudit.evidence import IntArray, Scenario, SplitName
from unaudit.loading.libraries import libraries
from unaudit.progress import SILENT, Progress
from unaudit.shadows.design import Design
from unaudit.shadows.examples import lay_out
from unaudit.shadows.job import WORK
from unaudit.shadows.queries import PLAIN, check_queries
from unaudit.shadows.scores import Shadows, ShadowScores

IN_MEMORY = 1 << 26
"""Bytes of confidences from which arrays lie in the store."""
AT_ONCE = 1 << 28
"""Bytes of results that are held at a time."""
CODE = (
    "unaudit.loading",
    "unaudit.shadows",
    "unaudit.token_outputs",
    "unaudit.tokens",
    "unaudit.training",
    "unaudit.unlearners",
)
"""Code that decides what a shadow model says."""


def shadow_jobs(
    design: Design,
    rows: Mapping[SplitName, IntArray],
    store: Store,
    *,
    shape: tuple[int, ...],
    sizes: tuple[int, int],
    arch: str,
    trusted: bool,
    recipe: Mapping[str, Any],
    augment: str,
    seed: int,
    n_classes: int,
    scenario: Scenario,
    head: str | None,
    device: str,
    data: str,
    queries: Sequence[str] = (PLAIN,),
    unlearner: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    base: str | None = None,
) -> list[Job]:
    """One job for each shadow model.

    Args:
        design: of positions in splits.
        rows: (n,) of each split, its positions in its data: unseen in the unseen data, forget and
            retain in the training data.
        store: keeps the masks.
        shape: of one example.
        sizes: of the training data and of the unseen data.
        arch, trusted: how the network is built, and whether code of its side may run.
        recipe, augment: how the subject was trained; fields of a Recipe.
        seed: decides, with the number of the model, its weights and batches.
        n_classes, scenario, head: of the case, for the unlearner.
        device: where each job runs.
        data: digest of the training, unseen and validation data.
        queries: how examples are altered.
        unlearner, parameters: what each model is made to unlearn with; None: nothing.
        base: digest of the weights that each model starts from; None: random ones.

    Raises:
        UsageError: no such unlearner or query, an unlearner that was not made for the scenario, or
            one with a design that has no forget sets.
        InputError: a query that these inputs cannot be put to.
    """
    check_queries(queries, shape)
    foreign = () if unlearner is None else _checked(unlearner, design, scenario)
    masks, digests = lay_out(design, rows, sizes, store)
    shared = {
        "arch": arch,
        "trusted": trusted,
        "recipe": dict(recipe),
        "augment": augment,
        "n_classes": n_classes,
        "scenario": scenario,
        "head": head,
        "device": device,
        "queries": list(queries),
        "unlearner": unlearner,
        "parameters": dict(parameters or {}),
        "data": data,
        "base": base,
        "torch": libraries(arch),
        "code": code_digest(*CODE, *foreign),
    }
    return [
        Job(
            WORK,
            {**shared, "number": number, "seed": _seed(seed, number), "masks": digest},
            masks,
            f"shadow {number + 1} of {design.models}",
        )
        for number, digest in enumerate(digests)
    ]


def train_shadows(
    design: Design,
    jobs: Sequence[Job],
    executor: Executor,
    store: Store,
    progress: Progress = SILENT,
    *,
    places: Callable[[], Mapping[str, str]] = dict,
) -> Shadows:
    """Run what the store does not hold, and put the results together.

    Args:
        design: and its jobs, see :func:`shadow_jobs`.
        executor: where they run.
        store: keeps the result of every job as soon as it is there.
        progress: told of every model.
        places: lays out the arrays ``inputs``, ``labels`` and, where there are such data, the same
            with ``unseen_`` and ``validation_`` before them, and ``base``; asked only if a model is
            to be made.

    Raises:
        UnauditError: a model diverged, or the unlearner cannot work here.
    """
    first = jobs[0].inputs
    size = 4 * len(first["queries"]) * design.member.shape[1] * (2 if first["unlearner"] else 1)
    each = max(AT_ONCE // max(size, 1), 1)
    stage = "training shadow models" + (", which unlearn" if first["unlearner"] else "")
    with progress.stage(stage, len(jobs)) as step:

        def results() -> Iterator[bytes]:
            for start in range(0, len(jobs), each):
                part = jobs[start : start + each]
                yield from results_of(part, store, executor, done, places=places)

        def done(_: int) -> None:
            step(1)

        return collect(
            results(),
            design,
            queries=tuple(first["queries"]),
            unlearner=first["unlearner"],
            store=store,
            key=[job.key for job in jobs],
        )


def collect(
    results: Iterable[bytes],
    design: Design,
    *,
    queries: tuple[str, ...] = (PLAIN,),
    unlearner: str | None = None,
    store: Store | None = None,
    key: Sequence[str] = (),
) -> Shadows:
    """What all shadow models say, from the results of their jobs.

    Results are read one at a time. Arrays that would take more than :data:`IN_MEMORY` lie in the
    store and are memory-mapped; if they are there already, no result is asked for.

    Args:
        results: in the order of the models.
        design: what they were trained on.
        queries, unlearner: of the jobs.
        store: None: all arrays are in memory.
        key: what decides the results.
    """
    kinds = ("scores", "unlearned") if unlearner is not None else ("scores",)
    places = design.columns
    shape = (design.models, len(queries))
    forms = {
        (kind, name): (*shape, place.stop - place.start)
        for kind in kinds
        for name, place in places.items()
    }

    def fill(arrays: Mapping[tuple[str, SplitName], npt.NDArray[Any]]) -> None:
        for number, result in enumerate(results):
            with np.load(io.BytesIO(result), allow_pickle=False) as said:
                parts = {kind: said[kind] for kind in kinds}
            for (kind, name), array in arrays.items():
                array[number] = parts[kind][:, places[name]]

    if store is None or 4 * sum(int(np.prod(form)) for form in forms.values()) <= IN_MEMORY:
        found: dict[tuple[str, SplitName], npt.NDArray[Any]] = {
            part: np.empty(form, dtype=np.float32) for part, form in forms.items()
        }
        fill(found)
    else:
        keys: dict[str, tuple[str, SplitName]] = {
            content_key("shadow-scores", jobs=list(key), what=kind, split=name): (kind, name)
            for kind, name in forms
        }
        kept = store.arrays(
            {key: (forms[part], np.float32) for key, part in keys.items()},
            lambda missing: fill({keys[key]: array for key, array in missing.items()}),
        )
        found = {part: kept[key] for key, part in keys.items()}
    splits = {
        name: ShadowScores(
            rows=design.rows[name],
            scores=found["scores", name],
            member=design.member[:, place],
            unlearned=found["unlearned", name] if unlearner is not None else None,
            erased=design.erased[:, place]
            if unlearner is not None and design.erased is not None
            else None,
        )
        for name, place in places.items()
    }
    return Shadows(splits, queries, unlearner, design.train_size, design.notes)


def _checked(unlearner: str, design: Design, scenario: Scenario) -> tuple[str, ...]:
    """The package of an unlearner, where it is not ours."""
    from unaudit.unlearners import load_unlearners

    method = load_unlearners().get(unlearner)
    if design.erased is None:
        raise UsageError(f"the design has no forget sets; make one for {unlearner} (unlearning)")
    if scenario not in method.card.scenarios:
        known = " and ".join(sorted(method.card.scenarios))
        raise UsageError(
            f"{unlearner} is for the {known} scenario, this request is {scenario}; "
            "name another unlearner"
        )
    package = method.__module__.partition(".")[0]
    return () if package == "unaudit" else (package,)


def _seed(root: int, number: int) -> int:
    """Seed of one model, from the root seed and its number."""
    digest = hashlib.sha256(f"{root}:shadow {number + 1}".encode()).digest()
    return int.from_bytes(digest[:7], "little")
