"""From texts to token ids: a declared tokenizer, a declared length, and what happens beyond it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from unaudit.errors import InputError, UnauditError, UsageError
from unaudit.plan import PreprocessSection
from unaudit.text import plain, quote

if TYPE_CHECKING:
    from unaudit.loading import TextInput

T = TypeVar("T")

CODE_VERSION = 1
"""Raise when a change of code changes which tokens come out."""
USUAL_LENGTH = 512
"""Tokens, where nobody says how many; fewer where a network takes fewer."""
FILE = "tokenizer.json"
FILE_BYTES = 64 << 20

_FOR_PIXELS = ("resize", "center_crop", "channels", "scale", "mean", "std")


class BadTextError(Exception):
    """Why a text cannot be used; whoever knows its id turns this into an InputError."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        """Position among the texts that were given."""


class NotForTextsError(UsageError):
    """A setting of pixels, where the data are texts."""


class Tokenization:
    """The ``[preprocess]`` section at work on texts.

    Special tokens are added as the tokenizer says, and count. What lies beyond ``max_length`` is
    cut off at the end or the start; for language models nothing is, unless a length is stated. A
    tokenizer's own settings of length and padding do not apply.
    """

    max_length: int | None
    """Tokens of a text at most; None where texts stay whole."""
    context: int | None
    """Tokens that the model takes at once; None where it sets no bound."""
    causal: bool
    """Whether the tokens are for a model that predicts each from those before it."""
    content: bytes
    """Of the ``tokenizer.json``."""
    unknown: int | None
    """The id that stands for whatever the tokenizer does not know; None where it knows all."""

    def __init__(self, settings: PreprocessSection, text: TextInput | None) -> None:
        """
        Args:
            settings: of the plan.
            text: what the model brings, if it brings something.

        Raises:
            UsageError: there is no tokenizer, the settings are for other data, or the length does
                not fit the model.
            InputError: the tokenizer cannot be read.
        """
        for name in _FOR_PIXELS:
            if getattr(settings, name) is not None:
                raise NotForTextsError(f"preprocess.{name} is not for texts; take it out")
        self.context = None if text is None else text.context
        self.causal = text is not None and text.causal
        self.max_length = _length(settings.max_length, self.context, self.causal)
        self.truncation = settings.truncation
        self._vocabulary = None if text is None else text.vocabulary
        if settings.tokenizer is not None:
            where, content = quote(settings.tokenizer, 300), _read(Path(settings.tokenizer))
        elif text is not None:
            where, content = "the model's", text.tokenizer
        else:
            raise UsageError(
                "holds texts, but there is no tokenizer; hand in the model as a Hugging Face "
                f"folder, or set preprocess.tokenizer to a folder with {FILE}"
            )
        self.content = content
        self._tokenizer = _made(content, where)
        self.unknown = _unknown(content, self._tokenizer)
        try:
            reserved = int(self._tokenizer.num_special_tokens_to_add(False))
        except Exception:
            reserved = 0
        if self.max_length is not None and self.max_length <= reserved:
            raise UsageError(
                f"preprocess.max_length of {self.max_length} leaves no room beside the "
                f"{reserved} special tokens; raise it"
            )
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if self.max_length is not None and self.truncation != "refuse":
            direction = "right" if self.truncation == "end" else "left"
            self._tokenizer.enable_truncation(self.max_length, direction=direction)
        self.digest = hashlib.sha256(
            json.dumps(
                [
                    CODE_VERSION,
                    tokenizer_digest(content),
                    _library_version(),
                    *([] if self.max_length is None else [self.max_length, self.truncation]),
                    *(["causal"] if self.causal else []),
                ]
            ).encode()
        ).hexdigest()
        """Of everything that decides which tokens a text becomes."""

    def __call__(
        self, texts: Sequence[str]
    ) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """The token ids of each text, and (k,) which of them were cut.

        Raises:
            BadTextError: a text without a token (for language models: with fewer than two), with
                one that the model does not know, or, where nothing is to be cut, with too many.
        """
        encode = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        try:
            encodings = _guarded(lambda: encode(list(texts)))
        except _FailedError as error:
            raise BadTextError(self._culprit(texts), f"cannot be tokenized ({error})") from None
        tokens, cut = [], np.zeros(len(texts), dtype=np.bool_)
        for row, encoding in enumerate(encodings):
            ids = np.array(encoding.ids, dtype=np.int64)
            cut[row] = bool(encoding.overflowing)
            self._check(row, ids)
            tokens.append(ids.astype(np.int32))
        return tokens, cut

    def _check(self, row: int, ids: npt.NDArray[np.int64]) -> None:
        if not len(ids):
            raise BadTextError(row, "has no tokens; fill the text or remove the example")
        if self.causal and len(ids) < 2:
            raise BadTextError(
                row,
                "has one token, before which nothing is that would predict it; give a longer text "
                "or remove the example",
            )
        if self.max_length is not None and len(ids) > self.max_length:
            raise BadTextError(
                row,
                f"has {len(ids)} tokens, more than preprocess.max_length ({self.max_length}); "
                "raise it, or set preprocess.truncation = 'end'",
            )
        top = int(ids.max())
        if self._vocabulary is not None and top >= self._vocabulary:
            token = quote(self._tokenizer.id_to_token(top), 40)
            raise BadTextError(
                row,
                f"holds the token {token} of id {top}, but the model knows {self._vocabulary} "
                "tokens only; give the tokenizer that it was trained with",
            )

    def _culprit(self, texts: Sequence[str]) -> int:
        """The first text that fails on its own; 0 if none does."""
        return next((row for row, text in enumerate(texts) if self._fails(text)), 0)

    def _fails(self, text: str) -> bool:
        try:
            _guarded(lambda: self._tokenizer.encode(text))
        except _FailedError:
            return True
        return False


def tokenizer_digest(content: bytes) -> str:
    """Of a ``tokenizer.json``, its settings of length and padding left out.

    Raises:
        InputError: it is no JSON object.
    """
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{FILE} is not a JSON object; save the tokenizer again")
    kept = {key: value for key, value in settings.items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def tokens_of(content: bytes, where: str) -> dict[int, str]:
    """The tokens of a ``tokenizer.json`` by id, added ones included.

    Args:
        content: of the file.
        where: what comes before its name in messages.

    Raises:
        InputError: the library does not read it.
    """
    vocabulary = _made(content, where).get_vocab(with_added_tokens=True)
    return {number: token for token, number in vocabulary.items()}


def _length(stated: int | None, context: int | None, causal: bool) -> int | None:
    """Tokens of a text at most.

    Raises:
        UsageError: the stated number does not fit the model.
    """
    if causal:
        if stated == 1:
            raise UsageError(
                "preprocess.max_length of 1 leaves nothing to predict; raise it or take it out"
            )
        return stated
    length = stated or min(context or USUAL_LENGTH, USUAL_LENGTH)
    if context is not None and length > context:
        raise UsageError(
            f"preprocess.max_length of {length} exceeds the {context} tokens that the model takes; "
            "lower it"
        )
    return length


class _FailedError(Exception):
    """The tokenizer gave up; says why in a few words."""


def _guarded(work: Callable[[], T]) -> T:
    """What ``work`` returns. A panic in the library is no Exception, and must not end an audit
    without a word."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit, MemoryError, UnauditError):
        raise
    except BaseException as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _FailedError(plain(lines[0], 80)) from None


def _made(content: bytes, where: str) -> Any:
    from unaudit.loading.hugging_face_library import import_tokenizers

    library = import_tokenizers()
    try:
        return _guarded(lambda: library.Tokenizer.from_buffer(content))
    except _FailedError as error:
        raise InputError(
            f"{where} {FILE} is not one that the installed tokenizers reads ({error}); save the "
            "tokenizer again"
        ) from None


def _unknown(content: bytes, tokenizer: Any) -> int | None:
    """The id of the unknown token; which one that is the file says alone."""
    model = json.loads(content).get("model")
    settings = model if isinstance(model, dict) else {}
    number, token = settings.get("unk_id"), settings.get("unk_token")
    found = tokenizer.token_to_id(token) if isinstance(token, str) else number
    return found if isinstance(found, int) else None


def _library_version() -> str:
    from unaudit.loading.hugging_face_library import import_tokenizers

    return str(getattr(import_tokenizers(), "__version__", ""))


def _read(place: Path) -> bytes:
    path = place / FILE if place.is_dir() else place
    shown = f"preprocess.tokenizer = {quote(place, 300)}"
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{shown}: no {FILE} there ({error.strerror or error})") from None
    if len(content) > FILE_BYTES:
        raise InputError(f"{shown}: larger than {FILE_BYTES >> 20} MiB, which no tokenizer is")
    return content
