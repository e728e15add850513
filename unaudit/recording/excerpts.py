"""How the texts begin that stand out most, for an auditor who asked to see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unaudit.config import hide_folders
from unaudit.data.text_dataset import TextDataset
from unaudit.errors import UnauditError
from unaudit.report.record import Worst
from unaudit.splits import Split
from unaudit.text import clean, plain

LENGTH = 160
"""Characters of a text that are shown."""
CONTAINS = "contains texts of examples; do not publish"
_IGNORED = "no text of an example is shown, although run.show_examples asks for it"


def with_texts(
    lists: Sequence[Worst], forget: Split, name_of: Callable[[str], str]
) -> tuple[tuple[Worst, ...], str]:
    """The lists with how each text begins, and what a reader must be told.

    What stands in the way is told and costs the texts alone: an audit does not end for want of what
    decides nothing.

    Args:
        lists: from :func:`unaudit.recording.worst.worst`.
        forget: the forget set.
        name_of: what the lists were named by.
    """
    dataset = forget.dataset
    if not isinstance(dataset, TextDataset):
        return tuple(lists), f"{_IGNORED}: the examples are no texts"
    listed = {example.name for found in lists for example in found.examples}
    if not listed:
        return (
            tuple(lists),
            f"{_IGNORED}: single examples are listed by attacks with shadow models alone "
            "(--shadows N)",
        )
    names = [name_of(forget.id_of(position)) for position in range(len(forget))]
    places = [position for position, name in enumerate(names) if name in listed]
    try:
        texts = dataset.texts(forget.rows[np.array(places, dtype=np.int64)])
    except UnauditError as stop:
        return tuple(lists), f"{_IGNORED}: {hide_folders(plain(stop, 200))}"
    begins = {names[at]: beginning(text) for at, text in zip(places, texts, strict=True)}
    return tuple(_told(found, begins) for found in lists), CONTAINS


def beginning(text: str) -> str:
    """The first characters on one line, without any that could drive a terminal."""
    # what is taken out must leave enough, and no more than this is looked at
    head = text[: 4 * LENGTH]
    line = " ".join(clean(head).split())
    return line if len(line) <= LENGTH and head == text else f"{line[: LENGTH - 1]}…"


def _told(found: Worst, begins: dict[str, str]) -> Worst:
    examples = tuple(
        example.model_copy(update={"text": begins[example.name]}) for example in found.examples
    )
    return found.model_copy(update={"examples": examples})
