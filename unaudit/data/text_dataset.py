"""Data sets of texts: tokenized once, kept in the store, fed as rows of token ids."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from unaudit.data.dataset import Dataset
from unaudit.data.fingerprint import SIZE
from unaudit.data.indexed import Index, IndexedDataset
from unaudit.data.rows import rows_of
from unaudit.data.source import Source
from unaudit.data.text_notes import notes_on
from unaudit.data.tokenize import BadTextError, Tokenization
from unaudit.engine.store import Store, content_key
from unaudit.errors import InputError
from unaudit.evidence import IntArray
from unaudit.tokens import PADDING

AT_ONCE = 1024
"""Texts that are tokenized at a time."""
COUNTED = 1 << 20
"""Tokens that are counted at a time."""
Texts = Callable[[], Iterator[Sequence[object]]]
"""Reads the texts from the beginning, some at a time, in their order."""


class TextDataset(IndexedDataset):
    """Texts as token ids, (b, t) int64 and padded; t is that of the longest text that a case holds.

    Padding changes no output, so t is not part of the digest. Texts are read and tokenized once, in
    a stream; what stays in memory is the length of each.
    """

    input_dtype = np.dtype(np.int64)

    def __init__(
        self,
        source: Source,
        index: Index,
        texts: Texts,
        tokenization: Tokenization,
        store: Store,
        notes: tuple[str, ...] = (),
        *,
        labeled: bool = True,
    ) -> None:
        """
        Args:
            source: for messages.
            index: labels, ids and content.
            texts: of all examples.
            tokenization: what becomes of them.
            store: keeps token ids.
            notes: what a reader of a report must know of the data.
            labeled: whether labels mean something.

        Raises:
            InputError: there are no examples, or a text cannot be used; names its id.
        """
        super().__init__(source, index)
        self.labeled = labeled
        """Whether labels were given; where not, all are zero."""
        self._texts, self._tokenization, self._store = texts, tokenization, store
        self.digest = self._digest()
        lengths, tokens = self._tokenized()
        self.lengths: IntArray = np.asarray(lengths[:, 0], dtype=np.int64)
        """(n,) tokens of each text."""
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._tokens = rows_of(tokens)
        self.input_shape = (int(self.lengths.max()),)
        cut, unknown = int(lengths[:, 1].sum()), self._unknown(tokens)
        told = notes_on(self.name, self.lengths, tokenization, cut=cut, unknown=unknown)
        self.notes = (*notes, *told)

    def batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        rows = np.asarray(rows, dtype=np.int64)
        self._check_rows(rows)
        for start in range(0, len(rows), size):
            yield torch.from_numpy(self._padded(rows[start : start + size], *self.input_shape))

    def narrow_batches(self, rows: IntArray, size: int) -> Iterator[torch.Tensor]:
        """The same batches, each as wide as its longest text: (≤ size, t).

        One very long text makes one large batch of them, and not all batches.
        """
        for start in range(0, len(rows), size):
            part = np.asarray(rows[start : start + size], dtype=np.int64)
            self._check_rows(part)
            yield torch.from_numpy(self._padded(part, int(self.lengths[part].max())))

    def cheapest_order(self, rows: IntArray) -> IntArray:
        """Texts of like length together: a batch costs as much as its longest text."""
        return np.argsort(-self.lengths[rows], kind="stable").astype(np.int64)

    @property
    def tokenizer(self) -> bytes:
        """The ``tokenizer.json`` that made the tokens."""
        return self._tokenization.content

    def compressed_sizes(self) -> IntArray:
        """(n,) int64 bytes of each text after zlib at its default level: of
        ``zlib.compress(text.encode("utf-8", "surrogatepass"))``."""
        key = content_key(
            "text compressed sizes", content=self.index.content, zlib=zlib.ZLIB_RUNTIME_VERSION
        )

        def fill(array: npt.NDArray[Any]) -> None:
            self._each(array, lambda text: len(zlib.compress(text)))

        self.source.check_unchanged()
        return self._store.array(key, (len(self),), np.int64, fill)

    def fingerprints(self) -> npt.NDArray[np.uint8]:
        key = content_key("text fingerprints", content=self.index.content)

        def print_of(text: bytes) -> npt.NDArray[np.uint8]:
            digest = hashlib.blake2b(b"text" + text, digest_size=SIZE).digest()
            return np.frombuffer(digest, dtype=np.uint8)

        def fill(array: npt.NDArray[Any]) -> None:
            self._each(array, print_of)

        self.source.check_unchanged()
        return self._store.array(key, (len(self), SIZE), np.uint8, fill)

    def matching(self, holds: Callable[[str], bool]) -> IntArray:
        """(k,) rows of the texts for which ``holds`` is true, ascending; all texts are read."""
        return np.array([row for row, text in enumerate(self._checked()) if holds(text)], np.int64)

    def texts(self, rows: IntArray) -> list[str]:
        """The texts of ``rows``, in that order; what lies behind the last of them is not read.

        Raises:
            InputError: the file is no longer what it was.
        """
        self.source.check_unchanged()
        wanted = set(rows.tolist())
        last = max(wanted, default=-1)
        read = enumerate(islice(self._checked(), last + 1))
        found = {row: text for row, text in read if row in wanted}
        self.source.check_unchanged()
        return [found[row] for row in rows.tolist()]

    def pad_to(self, length: int) -> None:
        """Deliver rows of ``length``, at least that of the longest text."""
        self.input_shape = (max(length, int(self.lengths.max())),)

    def _each(self, array: npt.NDArray[Any], compute: Callable[[bytes], Any]) -> None:
        """Write to each row what ``compute`` makes of its text as UTF-8."""
        done = 0
        for row, text in enumerate(self._checked()):
            array[row] = compute(text.encode("utf-8", "surrogatepass"))
            done += 1
        self._check_count(done)
        self.source.check_unchanged()

    def _check_rows(self, rows: IntArray) -> None:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in [0, {len(self)})")

    def _padded(self, rows: IntArray, width: int) -> npt.NDArray[np.int64]:
        lengths = self.lengths[rows]
        batch = np.full((len(rows), width), PADDING, dtype=np.int64)
        ends = np.cumsum(lengths)
        # of each token, its place among all of the data set
        places = np.arange(ends[-1]) + np.repeat(self._starts[rows] - ends + lengths, lengths)
        batch[np.arange(batch.shape[1]) < lengths[:, None]] = self._tokens.read(places)
        return batch

    def _unknown(self, tokens: npt.NDArray[Any]) -> int:
        """How many of all tokens are the unknown one."""
        unknown = self._tokenization.unknown
        if unknown is None:
            return 0

        def count(array: npt.NDArray[Any]) -> None:
            parts = (tokens[at : at + COUNTED] for at in range(0, len(tokens), COUNTED))
            array[0] = sum(np.count_nonzero(part == unknown) for part in parts)

        key = content_key("unknown tokens", **self._decides)
        return int(self._store.array(key, (1,), np.int64, count)[0])

    def _digest(self) -> str:
        digest = hashlib.sha256(
            json.dumps([self.index.content, self._tokenization.digest, self.classes]).encode()
        )
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        if self.ids is not None:
            digest.update("\n".join(self.ids.tolist()).encode())
        return digest.hexdigest()

    @property
    def _decides(self) -> dict[str, str]:
        """What token ids follow from."""
        return {"content": self.index.content, "tokenization": self._tokenization.digest}

    def _tokenized(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(n, 2) tokens of each text and whether it was cut, and (total,) int32 all token ids."""
        decides = self._decides
        with tempfile.TemporaryFile() as held:
            written = False

            def measure(array: npt.NDArray[Any]) -> None:
                nonlocal written
                self._tokenize(array, held)
                written = True

            lengths = self._store.array(
                content_key("token counts", **decides), (len(self), 2), np.int32, measure
            )

            def copy(array: npt.NDArray[Any]) -> None:
                if not written:
                    self._tokenize(np.empty((len(self), 2), dtype=np.int32), held)
                held.seek(0)
                done = 0
                while block := held.read(1 << 22):
                    part = np.frombuffer(block, dtype=np.int32)
                    array[done : done + len(part)] = part
                    done += len(part)

            total = int(lengths[:, 0].sum(dtype=np.int64))
            tokens = self._store.array(content_key("tokens", **decides), (total,), np.int32, copy)
        return lengths, tokens

    def _tokenize(self, counts: npt.NDArray[Any], held: IO[bytes]) -> None:
        """Write token ids to ``held`` and their counts to ``counts``."""
        self.source.check_unchanged()
        held.seek(0)
        held.truncate()
        done = 0
        for texts in _in_pieces(self._checked(), AT_ONCE):
            try:
                tokens, cut = self._tokenization(texts)
            except BadTextError as problem:
                raise self._bad(done + problem.row, problem) from None
            stop = done + len(texts)
            counts[done:stop, 0] = [len(ids) for ids in tokens]
            counts[done:stop, 1] = cut
            held.write(np.concatenate(tokens).tobytes())
            done = stop
        self._check_count(done)
        self.source.check_unchanged()

    def _checked(self) -> Iterator[str]:
        """Every text.

        Raises:
            InputError: something that is none; names its id.
        """
        row = 0
        for some in self._texts():
            for text in some:
                if not isinstance(text, str):
                    what = "has no text" if text is None else "has something else than a text"
                    raise self._bad(row, f"{what}; fill it or remove the example")
                yield text
                row += 1

    def _bad(self, row: int, reason: object) -> InputError:
        return self.source.error(f"{self.index.describe(row)} {reason}")

    def _check_count(self, found: int) -> None:
        if found != len(self):
            raise self.source.error("the file changed while it was being read; run again")


def pad_alike(datasets: Iterable[Dataset]) -> None:
    """Give all data sets of texts among these rows of one length, so that they can be mixed."""
    texts = [dataset for dataset in datasets if isinstance(dataset, TextDataset)]
    longest = max((dataset.input_shape[0] for dataset in texts), default=0)
    for dataset in texts:
        dataset.pad_to(longest)


def _in_pieces(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    piece: list[str] = []
    for text in texts:
        piece.append(text)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
