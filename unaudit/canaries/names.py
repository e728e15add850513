"""What canaries are called in lists of ids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unaudit.canaries.draw import Canaries
from unaudit.data import Dataset
from unaudit.data.ids import CANARY, HELD_OUT, ForgetList
from unaudit.errors import InputError, UsageError
from unaudit.text import plain, quote

_HEAD = (
    "# For 'unaudit check --forget': what is to be forgotten, canaries marked. Keep this list from",
    "# whoever trains or unlearns the model, for it says which canaries were held out.",
)
_NUMBER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class Names:
    """How each canary is told from others."""

    listed: list[str]
    """(n,) in lists of ids: what is stored, or positions."""
    stored: list[str] | None
    """(n,) in the data; None where examples have no ids."""
    groups: list[str] | None = None
    """(n,) whose record each is said to be, every one somebody's of its own; None where the data do
    not say."""


def name_canaries(
    canaries: Canaries, train: Dataset, unseen: Dataset | None, *, by_position: bool, seed: int
) -> Names:
    """Names of canaries once the planted ones stand behind the training data and the others behind
    the unseen data.

    What is stored is the next free number where ids are numbers, a file's path in a folder of
    images, else a name of its own.

    Raises:
        UsageError: they are told by position, and the number of unseen examples is not known.
        InputError: an id or a group is taken.
    """
    stored = None if train.ids is None else _fresh_ids(canaries, train, unseen, seed)
    groups = None if train.groups is None else _fresh_groups(canaries, train, unseen, seed)
    if by_position:
        return Names(_positions(canaries, train, unseen), stored, groups)
    if stored is None or (unseen is not None and unseen.ids is None):
        bare = train if stored is None or unseen is None else unseen
        raise UsageError(
            f"{plain(bare.name)}: the data has no ids, so canaries cannot be told by key; use "
            "--id-type index, or name the column with data.id_column"
        )
    return Names(stored, stored, groups)


def list_text(listed: ForgetList | None, names: Names, canaries: Canaries) -> str:
    """The list of ids for the audit: what was ``listed`` before, then the canaries with marks."""
    listed = listed or ForgetList(())
    planted = dict(zip(names.listed, canaries.planted.tolist(), strict=True))
    marked = [
        *(f"{name}\t{CANARY}" if name in listed.canaries else name for name in listed.ids),
        *(f"{name}\t{HELD_OUT}" for name in listed.held_out),
        *(f"{name}\t{CANARY if own else HELD_OUT}" for name, own in planted.items()),
    ]
    return "".join(f"{line}\n" for line in [*_HEAD, *marked])


def request_text(listed: ForgetList | None, names: Names, canaries: Canaries) -> str:
    """The list of ids to be forgotten, without marks."""
    planted = [name for name, own in zip(names.listed, canaries.planted, strict=True) if own]
    return "".join(f"{name}\n" for name in [*(listed.ids if listed else ()), *planted])


def is_image_folder(dataset: Dataset) -> bool:
    """Whether examples are files whose ids are their paths."""
    return bool(getattr(getattr(dataset, "source", None), "is_folder", False))


def _positions(canaries: Canaries, train: Dataset, unseen: Dataset | None) -> list[str]:
    if is_image_folder(train):
        raise UsageError(
            f"{plain(train.name)}: files that are added to a folder change the positions of "
            "others; use --id-type key"
        )
    if unseen is None:
        raise UsageError(
            "examples are told by position, so canaries that are held out get theirs behind the "
            "unseen examples; add --unseen"
        )
    places = {True: len(train), False: len(unseen)}
    names = []
    for planted in canaries.planted.tolist():
        names.append(str(places[planted]))
        places[planted] += 1
    return names


def _fresh_ids(canaries: Canaries, train: Dataset, unseen: Dataset | None, seed: int) -> list[str]:
    taken = {str(name) for data in (train, unseen) if data is not None for name in _ids(data)}
    names = _free_names(taken, len(canaries.labels), seed)
    if is_image_folder(train):
        folders = train.classes or ()
        pairs = zip(canaries.labels.tolist(), names, strict=True)
        names = [f"{folders[label]}/{name}.png" for label, name in pairs]
    _refuse_taken(train, "id", names, taken)
    return names


def _fresh_groups(
    canaries: Canaries, train: Dataset, unseen: Dataset | None, seed: int
) -> list[str]:
    known = [data.groups for data in (train, unseen) if data is not None]
    taken = {str(name) for groups in known if groups is not None for name in groups}
    names = _free_names(taken, len(canaries.labels), seed)
    _refuse_taken(train, "group", names, taken)
    return names


def _free_names(taken: set[str], count: int, seed: int) -> list[str]:
    """The next numbers if all that are ``taken`` are numbers, else names that say what they are."""
    if not all(_NUMBER.fullmatch(name) for name in taken):
        return [f"canary-{seed}-{number:04d}" for number in range(count)]
    first = max(map(int, taken)) + 1
    return [str(first + number) for number in range(count)]


def _refuse_taken(train: Dataset, what: str, names: list[str], taken: set[str]) -> None:
    for name in names:
        if name in taken:
            raise InputError(
                f"{plain(train.name)}: the {what} {quote(name)} is taken; were these canaries "
                "added before? Choose another --seed"
            )


def _ids(dataset: Dataset) -> list[str]:
    return [] if dataset.ids is None else dataset.ids.tolist()
