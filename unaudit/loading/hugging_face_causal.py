"""Language models as networks of one tensor: token ids in, a row of logits per predicted token out.

The bodies are those of transformers. Around them stands what a network needs here: texts longer
than the body takes are read in overlapping windows, every token but the first of a text is
predicted once, and embeddings that are one weight stay one until weights arrive that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unaudit.loading.hugging_face_network import TokenNetwork, are_equal, context_of
from unaudit.tokens import are_present, longest

WINDOWS_AT_ONCE = 8
"""Windows that are read together where a batch has fewer texts: what bounds the memory of one very
long text."""


class Window(NamedTuple):
    """A stretch of a text that is read at once. Positions count from 0 in the text."""

    start: int
    stop: int
    first: int
    """The first token that is predicted here; all from there to ``stop`` are."""


class CausalNetwork(TokenNetwork):
    """A network that predicts the next token of texts.

    Rows are predicted tokens: every token but the first of each text, one text after the other.
    Padding is at the end, where no token before it can see it, so nothing has to mask it.
    """

    context: int | None
    """Tokens that are read at once at most; None where the body sets no bound."""
    tied_names: tuple[str, str]
    """Names of the input and of the output embedding in state dicts."""

    def __init__(self, config: Any) -> None:
        make: Any = super().__init__
        make(config)
        self.states = nn.Identity()
        """The last hidden states pass through it, (b, t, H): one row per token, also of texts that
        are read in windows; anything for padding."""
        self.context = context_of(self)
        if self.context is not None and self.context < 2:
            raise ValueError(f"a context of {self.context} tokens leaves nothing to predict")
        names = {module: name for name, module in self.named_modules()}
        self.tied_names = (
            f"{names[self.token_embedding]}.weight",
            f"{names[self.head]}.weight",
        )

    def forward(self, ids: Tensor) -> Tensor:
        """(N, V) logits for token ids (b, t), padded: one row per predicted token."""
        return self.logits_of(self.hidden(ids))

    def hidden(self, ids: Tensor) -> Tensor:
        """(N, H) what the head is given for each predicted token."""
        ids, present = _cropped(ids)
        states: Tensor = self.states(self._read(ids.masked_fill(~present, self.filler), present))
        return states[:, :-1][present[:, 1:]]

    def logits_of(self, hidden: Tensor) -> Tensor:
        """(k, V) logits of some rows of :meth:`hidden`."""
        logits: Tensor = self.head(hidden)
        return logits

    def targets(self, ids: Tensor) -> Tensor:
        """(N,) int64 the tokens that are predicted."""
        ids, present = _cropped(ids)
        return ids[:, 1:][present[:, 1:]]

    def counts(self, ids: Tensor) -> Tensor:
        """(b,) int64 predicted tokens of each text."""
        return are_present(ids)[:, 1:].sum(dim=1)

    @property
    def filler(self) -> int:
        """Stands for padding. Any id will do, and the configuration may name one that is none."""
        return 0

    @property
    def head(self) -> nn.Linear:
        """From hidden states to logits."""
        get: Any = self.get_output_embeddings
        found: nn.Linear = get()
        return found

    @property
    def tied(self) -> bool:
        """Whether input and output embedding are one weight."""
        return self.head.weight is self.token_embedding.weight

    def untie(self) -> None:
        """Give the head a weight of its own, equal to the embedding's."""
        if self.tied:
            weight = self.head.weight
            self.head.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
        self.config.tie_word_embeddings = False  # what is drawn anew is not tied either

    def with_both_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a tied network under both of their names, where files have one."""
        given = [name for name in self.tied_names if name in tensors]
        if not self.tied or len(given) != 1:
            return dict(tensors)
        return dict(tensors) | dict.fromkeys(self.tied_names, tensors[given[0]])

    def windows(self, length: int) -> list[Window]:
        """How a text of that many tokens is read: with a stride of half the context, so that each
        prediction but those of the first window sees half a context or more."""
        most = length if self.context is None else self.context
        found = [Window(0, min(length, most), 1)]
        while found[-1].stop < length:
            start = found[-1].start + most // 2
            found.append(Window(start, min(length, start + most), found[-1].stop))
        return found

    def _read(self, ids: Tensor, present: Tensor) -> Tensor:
        """(b, t, H) the last hidden states."""
        if self.context is None or ids.shape[1] <= self.context:
            return self._body(ids)
        pieces = [
            (row, window)
            for row, length in enumerate(present.sum(dim=1).tolist())
            for window in self.windows(length)
        ]
        # of like length together: as many at a time as whole texts would be
        pieces.sort(key=lambda piece: piece[1].start - piece[1].stop)
        size = max(len(ids), WINDOWS_AT_ONCE)
        read: dict[tuple[int, int], Tensor] = {}
        for begin in range(0, len(pieces), size):
            some = pieces[begin : begin + size]
            given = pad_sequence(
                [ids[row, window.start : window.stop] for row, window in some],
                batch_first=True,
                padding_value=self.filler,
            )
            for (row, window), states in zip(some, self._body(given), strict=True):
                # the state of a token predicts the next one; the last of a text predicts nothing
                kept = states[window.first - 1 - window.start : window.stop - window.start]
                read[row, window.start] = kept
        texts: list[list[Tensor]] = [[] for _ in range(len(ids))]
        for row, start in sorted(read):
            texts[row].append(read[row, start])
        whole = [torch.cat([*(part[:-1] for part in parts[:-1]), parts[-1]]) for parts in texts]
        return pad_sequence(whole, batch_first=True)

    def _body(self, ids: Tensor) -> Tensor:
        body: Any = getattr(self, str(self.base_model_prefix))
        states: Tensor = body(input_ids=ids).last_hidden_state
        return states

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        one, other = (state_dict.get(prefix + name) for name in self.tied_names)
        if one is not None and other is not None and not are_equal(one, other):
            self.untie()
        load: Any = super()._load_from_state_dict
        load(state_dict, prefix, *rest)


def _cropped(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids up to the end of the longest text, and where there are any."""
    present = are_present(ids)
    length = longest(present)
    return ids[:, :length].long(), present[:, :length]
