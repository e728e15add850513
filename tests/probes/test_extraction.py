"""Extraction: what flags of single tokens say, against decoding by hand and by transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from attacks.black_box.extraction import Extraction, runs
from tests.hugging_face import transformers
from unaudit.errors import UsageError
from unaudit.evidence import FloatArray, IntArray, Scores, Skipped
from unaudit.token_outputs import TokenOutputs
from unaudit.views import BlackBox

from .language_worlds import make_language_world, make_view, token_outputs

VOCABULARY = 13


def tiny_model() -> Any:
    """A GPT-2 that has no doubts: what it writes does not hang on the order of additions."""
    package = transformers()
    config = package.GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = package.GPT2LMHeadModel(config).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.6)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def decoded(model: Any, text: torch.Tensor, prefix: int) -> torch.Tensor:
    """The text as far as its prefix goes, then what the library's greedy decoding writes."""
    made: torch.Tensor = model.generate(
        text[None, :prefix],
        attention_mask=torch.ones(1, prefix, dtype=torch.long),
        max_new_tokens=len(text) - prefix,
        do_sample=False,
        num_beams=1,
        use_cache=False,
    )
    return made[0]


def some_texts(model: Any, count: int, prefix: Callable[[int], int]) -> list[torch.Tensor]:
    """Texts of which the model itself would write some to the end, and some for a while."""
    generator = torch.Generator().manual_seed(0)

    def draw(high: int, low: int = 0, size: int = 1) -> torch.Tensor:
        return torch.randint(low, high, (size,), generator=generator)

    texts = []
    for number in range(count):
        length = int(draw(25, 4))
        text = draw(VOCABULARY, size=length)
        text = decoded(model, text, prefix(length))
        if number % 3 == 1:  # one other word after the prefix
            place = int(draw(length, prefix(length)))
            text[place] = (text[place] + 1) % VOCABULARY
        elif number % 3 == 2:
            text = draw(VOCABULARY, size=length)
        texts.append(text)
    return texts


def outputs_of(model: Any, texts: list[torch.Tensor]) -> TokenOutputs:
    """What the model says of each token when it is given all true ones before it."""
    rows, targets = [], []
    for text in texts:
        rows.append(model(text[None]).logits[0, :-1].double().numpy())
        targets.append(text[1:].numpy())
    counts = np.array([len(text) - 1 for text in texts])
    return token_outputs(np.concatenate(rows), np.concatenate(targets), counts)


def run(probe: Extraction, view: BlackBox) -> Scores:
    evidence = probe(view, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    return evidence


@pytest.mark.parametrize(
    ("probe", "prefix", "most"),
    [
        (Extraction(), lambda length: (length + 1) // 2, 50),
        (Extraction(prefix_tokens=3, suffix_tokens=6), lambda length: 3, 6),
        (Extraction(prefix_share=0.25, least_suffix=1), lambda length: -(-length // 4), 50),
    ],
    ids=("half", "tokens", "quarter"),
)
def test_the_flags_say_what_greedy_decoding_writes(
    probe: Extraction, prefix: Callable[[int], int], most: int
) -> None:
    """Every text is really decoded, with the library's generation and without its cache."""
    model = tiny_model()
    with torch.no_grad():
        texts = some_texts(model, 45, prefix)
        evidence = run(probe, make_view({"forget": outputs_of(model, texts)}))
        expected, exact, scored = [], [], []
        for number, text in enumerate(texts):
            given = prefix(len(text))
            if len(text) - given < probe.least_suffix:
                continue
            rest = slice(given, min(len(text), given + most))
            same = (decoded(model, text, given)[rest] == text[rest]).numpy()
            expected.append(np.cumprod(same).sum() / len(same))
            exact.append(bool(same.all()))
            scored.append(number)
    np.testing.assert_array_equal(evidence.forget, expected)
    np.testing.assert_array_equal(evidence.rows.get("forget", np.arange(len(texts))), scored)
    assert evidence.detail["exact_match"] == {"forget": np.mean(exact)}
    assert 0.1 < np.mean(exact) < 0.9
    assert len(np.unique(expected)) > 4
    assert evidence.statistic == "mean"


def plain_runs(flags: list[bool], start: int, length: int) -> int:
    found = 0
    while found < length and flags[start + found]:
        found += 1
    return found


def test_runs_are_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.5, 0.9, 1.0):
        flags = rng.random(200) < share
        start = rng.integers(0, 180, 50)
        length = rng.integers(1, 21, 50)
        expected = [
            plain_runs(flags.tolist(), a, b)
            for a, b in zip(start.tolist(), length.tolist(), strict=True)
        ]
        np.testing.assert_array_equal(runs(flags, start, length), expected)


def flagged(counts: IntArray, greedy: FloatArray) -> TokenOutputs:
    """Texts with these flags."""
    logits = np.zeros((len(greedy), 2))
    logits[:, 1] = np.where(greedy, 1.0, -1.0)
    return token_outputs(logits, np.ones(len(greedy), np.int64), counts)


def test_a_run_does_not_go_on_into_the_next_text() -> None:
    counts = np.array([9, 9])
    view = make_view({"forget": flagged(counts, np.ones(18))})
    assert run(Extraction(), view).forget.tolist() == [1.0, 1.0]
    # of ten tokens five are given, and the flags from the fifth on count
    before, after = np.ones(18), np.ones(18)
    before[3], after[4] = 0, 0
    assert run(Extraction(), make_view({"forget": flagged(counts, before)})).forget[0] == 1.0
    assert run(Extraction(), make_view({"forget": flagged(counts, after)})).forget[0] == 0.0


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("least", [1, 4, 7])
def test_which_texts_are_long_enough(share: float, least: int) -> None:
    """By trying every length: at least a token is given, and the share is rounded up."""
    probe = Extraction(prefix_share=share, least_suffix=least)
    lengths = np.arange(2, 1200)
    rest = [
        length - max(1, -(-length * round(share * 1000) // 1000)) for length in lengths.tolist()
    ]
    expected = lengths[np.array(rest) >= least].min()
    assert probe.least_tokens == expected - 1
    given = probe.prefixes(lengths - 1)
    enough = np.array(rest) >= least
    np.testing.assert_array_equal((lengths - given)[enough], np.array(rest)[enough])


def test_texts_with_too_short_a_rest_are_left_out() -> None:
    counts = np.array([5, 6, 7, 8])
    view = make_view({"forget": flagged(counts, np.ones(26))})
    evidence = run(Extraction(), view)
    assert evidence.rows["forget"].tolist() == [2, 3]
    assert evidence.detail["forget_too_short"] == 2
    evidence = run(Extraction(prefix_tokens=3), view)
    assert evidence.rows["forget"].tolist() == [1, 2, 3]
    none = Extraction(prefix_tokens=50)(view, np.random.default_rng(0))
    assert none == Skipped("needs at least 1 forget text with at least 54 tokens, found 0")


def test_the_detail_has_the_rate_of_exact_matches_of_every_split() -> None:
    world = make_language_world("sample", retrained=1)
    evidence = run(Extraction(), world.original)
    rates = evidence.detail["exact_match"]
    for name, own in (
        ("forget", evidence.forget),
        ("unseen", evidence.unseen),
        ("retain", evidence.retain),
    ):
        assert own is not None
        assert rates[name] == np.mean([score == 1.0 for score in own])
    assert rates["forget"] > rates["unseen"]
    assert evidence.detail["prefix"] == "0.5 of each text"
    assert run(Extraction(prefix_tokens=8), world.original).detail["prefix"] == "8 tokens"


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"prefix_share": 0.0}, "prefix_share"),
        ({"prefix_share": 1.0}, "prefix_share"),
        ({"prefix_tokens": 0}, "prefix_tokens"),
        ({"prefix_tokens": 2.5}, "prefix_tokens"),
        ({"suffix_tokens": 3}, "suffix_tokens"),
        ({"least_suffix": 0}, "least_suffix"),
    ],
)
def test_refuses_parameters(parameters: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=rf"probes\.extraction\.{key} must be"):
        Extraction(**parameters)
