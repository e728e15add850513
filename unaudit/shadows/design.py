"""Which examples each shadow model is trained on, and which of them it unlearns.

The examples in question are a pool of forget, unseen and, where they are too few, retain examples.
Each is in half of the models: these come in pairs, one trained on a random half of the pool, the
other on the rest (Carlini et al. 2022, §V-A). What else is retained is in all of them, or as much
of it as makes the training set as large as the subject's.

Where the models unlearn, each does so once, with half of the pool examples that it was trained on
as its forget set. A pool example is then in one of three states in each model: never in (m/2
models), in and kept (m/4), in and unlearned (m/4). So m models and m unlearnings serve all
examples at once, where Hayes et al. 2024 unlearn each base with many forget sets. Classes that are
to be forgotten as a whole are unlearned as a whole, and nothing of them is in and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unaudit.errors import InputError, UsageError
from unaudit.evidence import IntArray, Scenario, SplitName
from unaudit.shadows._halves import BoolArray, half, split

POOL: tuple[SplitName, ...] = ("forget", "unseen", "retain")
"""Splits that a pool is made of, in the order of its columns."""
SHRUNK = 0.1
"""Share of the subject's training set that shadow models may lack so that their forget sets come
nearer to the real one: each retain example of the pool is missing in half of the models."""
GROUP = 4
"""Models whose forget sets are drawn together; those of fewer models stay as more are added."""


@dataclass(frozen=True, eq=False)
class Design:
    """Training and forget sets of m shadow models over a pool of k examples, as masks."""

    rows: Mapping[SplitName, IntArray]
    """(k_s,) int64 of each split of the pool: positions in the split, ascending."""
    member: BoolArray
    """(m, k): whether the model is trained on the example; columns are those of ``rows``, one split
    after the other."""
    core: IntArray
    """(c,) int64: retain examples that all models are trained on, ascending."""
    erased: BoolArray | None = None
    """(m, k): whether the model unlearns the example, a part of ``member``; None: none unlearns."""
    notes: tuple[str, ...] = field(default=())
    """What was reached, and what was given up; one sentence each."""

    @property
    def models(self) -> int:
        return len(self.member)

    @property
    def train_size(self) -> int:
        """Examples that a model is trained on; one fewer in some where the pool is odd."""
        return len(self.core) + int(self.member.sum(axis=1).max())

    @property
    def columns(self) -> Mapping[SplitName, slice]:
        """Where the splits are in ``member`` and ``erased``."""
        ends = np.cumsum([len(rows) for rows in self.rows.values()]).tolist()
        starts = [0, *ends[:-1]]
        return {name: slice(a, b) for name, a, b in zip(self.rows, starts, ends, strict=True)}

    @property
    def digest(self) -> str:
        """Of everything but the notes."""
        digest = hashlib.sha256()
        for name, rows in self.rows.items():
            digest.update(f"{name}:{len(rows)}\0".encode() + rows.astype("<i8").tobytes())
        digest.update(f"{self.member.shape}\0".encode() + self.core.astype("<i8").tobytes())
        for mask in (self.member, self.erased):
            digest.update(b"-" if mask is None else np.packbits(mask, axis=1).tobytes())
        return digest.hexdigest()


def make_design(
    labels: Mapping[SplitName, IntArray],
    models: int,
    seed: int,
    *,
    scenario: Scenario,
    unlearning: bool = False,
    retain: int | None = None,
) -> Design:
    """Draw a pool, training sets and forget sets.

    The pool holds every forget example. Without unlearning it also holds every unseen one, and as
    many retain examples as forget examples, or as training sets can spare. With unlearning it holds
    four times as many examples of each class as the forget set (twice, where classes are forgotten
    as a whole), so that a model's forget set is like the real one; unseen examples come first,
    retain examples fill up.

    The training set is as large as the one that the subject's original had, forget and retain
    together, class by class as far as there are examples.

    Args:
        labels: (n,) int64 of forget, retain and, where there are any, unseen.
        models: how many; an even number puts each pool example in exactly half of them.
        seed: decides every draw. More models with the same seed: the first ones stay, in whole
            groups of :data:`GROUP`.
        scenario: of the request; decides what is unlearned.
        unlearning: whether forget sets are drawn.
        retain: examples of the retain split in the pool, at most; default: see above.

    Raises:
        UsageError: too few models.
        InputError: too few examples.
    """
    if models < (least := GROUP if unlearning else 2):
        raise UsageError(
            f"{models} shadow {'model is' if models == 1 else 'models are'} too few; take at least "
            f"{least}, better 16 or more"
        )
    sizes = {name: len(labels.get(name, ())) for name in POOL}
    if not sizes["forget"] or not sizes["retain"]:
        raise InputError("shadow models need forget and retain examples; there are none")
    classes, by_class = _count(labels)
    pool = _pool(by_class, scenario, unlearning, retain)
    rng = np.random.default_rng([seed, 0])
    rows = {
        name: _draw(np.searchsorted(classes, labels[name]), pool[name], rng)
        for name in POOL
        if pool[name].any()
    }
    if unlearning and sum(map(len, rows.values())) < GROUP:
        raise InputError(
            f"a pool of {sum(map(len, rows.values()))} examples leaves shadow models nothing to "
            "unlearn; add --unseen DATA or forget more examples"
        )
    kind = np.concatenate([np.searchsorted(classes, labels[name][at]) for name, at in rows.items()])
    origin = np.repeat(np.arange(len(rows)), [len(at) for at in rows.values()])
    member = _members(kind, origin, models, seed)
    erased = None
    if unlearning and scenario == "class":
        erased = member.copy()
    elif unlearning:
        erased = _forget_sets(member, kind, origin, seed)
    core = _core(labels["retain"], classes, by_class, pool, rows.get("retain"), rng)
    design = Design(rows, member, core, erased)
    return replace(design, notes=_notes(design, by_class, kind))


def _count(labels: Mapping[SplitName, IntArray]) -> tuple[IntArray, dict[SplitName, IntArray]]:
    """Classes, and how many examples of each every split has."""
    classes = np.unique(np.concatenate([labels[name] for name in POOL if name in labels]))
    empty = np.empty(0, dtype=np.int64)
    counts: dict[SplitName, IntArray] = {
        name: np.bincount(
            np.searchsorted(classes, labels.get(name, empty)), minlength=len(classes)
        ).astype(np.int64)
        for name in POOL
    }
    return classes, counts


def _pool(
    by_class: Mapping[SplitName, IntArray], scenario: Scenario, unlearning: bool, retain: int | None
) -> dict[SplitName, IntArray]:
    """How many examples of each class every split gives to the pool."""
    forget, unseen, kept = (by_class[name] for name in POOL)
    size, trained = int(forget.sum()), int((forget + kept).sum())
    wanted = kept
    if unlearning:
        wanted = forget * (1 if scenario == "class" else 3)
        unseen = np.minimum(unseen, wanted)
        wanted = np.minimum(wanted - unseen, kept)
    # a pool that is no larger than twice the training set leaves half of itself room there
    unseen = _spread(2 * trained - size, unseen)
    # with more retain examples than these, training sets are smaller than the subject's
    limit = int(unseen.sum()) - size
    if retain is not None:
        limit = retain
    elif unlearning:
        limit += int(2 * SHRUNK * trained)
    else:
        limit = min(limit, size)
    limit = min(limit, 2 * trained - size - int(unseen.sum()))
    return {"forget": forget, "unseen": unseen, "retain": _spread(limit, wanted)}


def _members(kind: IntArray, origin: IntArray, models: int, seed: int) -> BoolArray:
    """(m, k), one pair of models after the other."""
    levels = (kind * len(POOL) + origin, kind, np.zeros_like(kind))
    member = np.empty((models, len(kind)), dtype=np.bool_)
    for pair in range(0, models, 2):
        chosen = half(levels, np.random.default_rng([seed, 1, pair]))
        member[pair] = chosen
        if pair + 1 < models:
            member[pair + 1] = ~chosen
    return member


def _forget_sets(member: BoolArray, kind: IntArray, origin: IntArray, seed: int) -> BoolArray:
    """(m, k): half of each model's members, such that each example is in half of the forget sets
    that it could be in."""
    erased = np.zeros_like(member)
    stratum = kind * len(POOL) + origin
    for start in range(0, len(member), GROUP):
        model, example = member[start : start + GROUP].nonzero()
        by_model = [
            model * (int(level.max()) + 1) + level[example]
            for level in (stratum, kind, np.zeros_like(kind))
        ]
        chosen = split([example], by_model, np.random.default_rng([seed, 2, start]))
        erased[start + model[chosen], example[chosen]] = True
    return erased


def _core(
    labels: IntArray,
    classes: IntArray,
    by_class: Mapping[SplitName, IntArray],
    pool: Mapping[SplitName, IntArray],
    taken: IntArray | None,
    rng: np.random.Generator,
) -> IntArray:
    """Retain examples outside the pool that bring training sets to the size of the subject's."""
    trained = by_class["forget"] + by_class["retain"]
    halves = (pool["forget"] + pool["unseen"] + pool["retain"]) / 2
    room = by_class["retain"] - pool["retain"]
    count = min(int(trained.sum() - np.ceil(halves.sum())), int(room.sum()))
    given = np.minimum(np.maximum(np.round(trained - halves), 0).astype(np.int64), room)
    lacking = count - int(given.sum())
    given = given + _spread(lacking, room - given) - _spread(-lacking, given)
    free = np.ones(len(labels), dtype=np.bool_)
    if taken is not None:
        free[taken] = False
    rows = free.nonzero()[0]
    return np.asarray(rows[_draw(np.searchsorted(classes, labels[rows]), given, rng)])


def _draw(kinds: IntArray, counts: IntArray, rng: np.random.Generator) -> IntArray:
    """Positions, ascending, of ``counts`` random elements of each kind."""
    order = rng.permutation(len(kinds))
    order = order[np.argsort(kinds[order], kind="stable")]
    start = np.searchsorted(kinds[order], np.arange(len(counts)))
    rank = np.arange(len(order)) - start[kinds[order]]
    drawn: IntArray = np.sort(order[rank < counts[kinds[order]]]).astype(np.int64)
    return drawn


def _spread(total: int, room: IntArray) -> IntArray:
    """Whole numbers in proportion to ``room``, with the sum ``total``, at least 0 and at most all
    that there is room for."""
    whole = int(room.sum())
    total = min(max(total, 0), whole)
    if total == whole:
        return np.array(room, dtype=np.int64)
    # in whole numbers: no rounding error may exceed the room
    given, rest = np.divmod(room * total, whole)
    largest = np.argsort(-rest, kind="stable")[: total - int(given.sum())]
    given[largest] += 1
    return np.asarray(given, dtype=np.int64)


def _notes(
    design: Design, by_class: Mapping[SplitName, IntArray], kind: IntArray
) -> tuple[str, ...]:
    trained = int((by_class["forget"] + by_class["retain"]).sum())
    parts = [
        f"{len(design.rows[name])} of {int(by_class[name].sum())} {name}"
        for name in POOL
        if name in design.rows
    ]
    notes = [
        f"Half of the {design.models} shadow models hold each of these examples: {_listed(parts)}.",
        f"Each is trained on {design.train_size} examples, the subject's original on {trained}"
        + ("." if design.train_size >= trained else "; there are too few unseen ones."),
    ]
    if design.erased is not None:
        wanted = by_class["forget"]
        counts = design.erased.sum(axis=1)
        reached = np.bincount(kind, design.erased.sum(axis=0), minlength=len(wanted))
        apart = np.abs(reached / max(reached.sum(), 1) - wanted / wanted.sum()).sum() / 2
        low, high = int(counts.min()), int(counts.max())
        size = str(low) if low == high else f"{low} to {high}"
        notes.append(
            f"Each unlearns {size} of them once, the request is for {int(wanted.sum())}; "
            f"{100 * (1 - apart):.0f} % of the class make-up is the same."
        )
    return tuple(notes)


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
