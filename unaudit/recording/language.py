"""Perplexities of language models, and the texts that they continue word for word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from unaudit.case import Candidate, Case
from unaudit.report import record as schema
from unaudit.token_outputs import TokenOutputs, perplexity_of
from unaudit.views import BlackBox

Shown = Literal["forget", "retain", "unseen"]
SHOWN: tuple[Shown, ...] = ("forget", "retain", "unseen")


def language(case: Case, view_of: Mapping[str, BlackBox]) -> schema.Language | None:
    """What every model makes of the texts; None where the models are classifiers.

    Args:
        case: what is audited.
        view_of: outputs of every model, by label.
    """
    if case.task != "language-modeling":
        return None
    everyone = (*case.candidates, *case.calibrators)
    text = getattr(case.subject.model, "text", None)
    context = None if text is None else text.context
    subject = view_of[case.subject.label]
    return schema.Language(
        context=context,
        texts=tuple(
            _sizes(name, subject.tokens(name), context) for name in SHOWN if name in subject.splits
        ),
        perplexity=tuple(_perplexity(model, view_of[model.label]) for model in everyone),
        extraction=tuple(_extraction(model, view_of[model.label]) for model in everyone),
    )


def perplexity(tokens: TokenOutputs) -> float | None:
    """exp of the mean loss over all tokens of all texts; None without texts."""
    if not len(tokens):
        return None
    return perplexity_of(float(np.mean(tokens.log_p, dtype=np.float64)))


def reproduced(tokens: TokenOutputs) -> npt.NDArray[np.bool_]:
    """(n,) whether greedy decoding continues the first half of a text with its second half.

    Of an odd number of tokens the first half has one more. Decoding need not be run: it gives the
    true tokens if and only if each is the most probable one after the true ones before it.
    """
    if not len(tokens):
        return np.empty(0, dtype=np.bool_)
    ends = tokens.starts + tokens.counts
    # the first token of a text is predicted by nothing, but is one of it
    halves = (tokens.counts + 1) // 2
    edges = np.stack([ends - halves, ends], axis=1).ravel()[:-1]
    return np.asarray(np.logical_and.reduceat(np.asarray(tokens.greedy), edges)[::2])


def _sizes(split: Shown, tokens: TokenOutputs, context: int | None) -> schema.TextSplit:
    lengths = tokens.counts + 1
    return schema.TextSplit(
        split=split,
        texts=len(tokens),
        tokens=int(tokens.counts.sum()),
        longer=0 if context is None else int((lengths > context).sum()),
    )


def _perplexity(model: Candidate, view: BlackBox) -> schema.ModelPerplexity:
    return schema.ModelPerplexity.model_validate(_by_split(model, view, perplexity))


def _extraction(model: Candidate, view: BlackBox) -> schema.ModelExtraction:
    def share(tokens: TokenOutputs) -> float | None:
        return float(reproduced(tokens).mean()) if len(tokens) else None

    return schema.ModelExtraction.model_validate(_by_split(model, view, share))


def _by_split(
    model: Candidate, view: BlackBox, of: Callable[[TokenOutputs], float | None]
) -> dict[str, object]:
    values: dict[str, object] = {
        name: of(view.tokens(name)) if name in view.splits else None for name in SHOWN
    }
    return {"model": model.label, "role": model.role} | values
