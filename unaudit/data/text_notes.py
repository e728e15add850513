"""What a reader of a report must know of how texts were read."""

from __future__ import annotations

from collections.abc import Iterator

from unaudit.data.tokenize import Tokenization
from unaudit.evidence import IntArray

MOST_UNKNOWN = 0.1
"""Share of tokens that may be unknown before a note says so. This number is ours: a tokenizer that
was made for such texts knows nearly all of them, one of another language or alphabet few."""


def notes_on(
    name: str, lengths: IntArray, tokenization: Tokenization, *, cut: int, unknown: int
) -> Iterator[str]:
    """One sentence each.

    Args:
        name: of the data set.
        lengths: (n,) tokens of each text.
        tokenization: what made them.
        cut: texts that lost tokens.
        unknown: tokens that stand for what the tokenizer does not know.
    """
    share = unknown / int(lengths.sum())
    if share > MOST_UNKNOWN:
        yield (
            f"{100 * share:.0f} % of the tokens of {name} are unknown to the tokenizer; check "
            "preprocess.tokenizer"
        )
    if cut:
        yield (
            f"{cut} of {len(lengths)} texts of {name} were cut to {tokenization.max_length} tokens "
            "(preprocess.max_length)"
        )
    context = tokenization.context
    longer = int((lengths > context).sum()) if context is not None else 0
    if longer:
        yield (
            f"{longer} of {len(lengths)} texts of {name} are longer than the {context} tokens that "
            "the model takes, and were read in overlapping windows; probes that look inside see "
            "the first window"
        )
