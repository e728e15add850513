"""What templates do to strings on their way to the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from unaudit.report import text
from unaudit.text import shorten, size

_CODE = re.compile(r"`([^`]{1,80})`")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]{1,24}\b")
_TOGETHER = re.compile(r"\([^()]*[\s-][^()]*\)|[^\s()-]+-[^\s()]+")
_MOST = 16
"""Characters that are kept on one line."""
_FILE = re.compile(r"\s*([0-9a-f]{64})\s+(\S.*)")


@pass_context
def say(context: Context, words: str) -> str:
    """A sentence of the templates, in the words of this report."""
    return str(context["nouns"].say(words))


def coded(words: str) -> Markup:
    """Escaped, with what stands between backticks as code, and options on one line."""
    found = _CODE.sub(r"<code>\1</code>", str(escape(words)))
    return Markup(_OPTION.sub(r'<span class="nowrap">\g<0></span>', found))


def heading(words: str, length: int = 60) -> Markup:
    """A title, shortened and escaped, that does not break inside brackets or at a hyphen."""
    return Markup(
        _TOGETHER.sub(
            lambda found: (
                f'<span class="nowrap">{found.group()}</span>'
                if len(found.group()) <= _MOST
                else found.group()
            ),
            str(escape(shorten(words, length))),
        )
    )


@dataclass(frozen=True)
class Note:
    """A note on a file that was loaded."""

    said: str
    files: tuple[tuple[str, str], ...]
    """Names and SHA-256 of the files that it lists."""


def noted(note: str) -> Note:
    """Digests that a note lists, ``…; DIGEST NAME; DIGEST NAME``, apart from what it says."""
    said, *parts = note.split("; ")
    found = [_FILE.fullmatch(part) for part in parts]
    files = tuple((match[2], match[1]) for match in found if match)
    return Note(said, files) if files and len(files) == len(found) else Note(note, ())


FILTERS: Mapping[str, Callable[..., Any]] = {
    show.__name__: show
    for show in (
        text.number,
        text.significant,
        text.percent,
        text.level,
        text.count,
        text.p_value,
        text.interval,
        text.moment,
        text.duration,
        text.sentence,
        text.whole,
        size,
        shorten,
        say,
        coded,
        heading,
        noted,
    )
}
"""By the name that templates use."""
