"""Language models in Hugging Face folders: transformers' own predictions, each token once."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from tests.hugging_face import (
    CAUSAL_CONTEXT,
    CONTEXT,
    causal_config,
    causal_folder,
    causal_network,
    save,
    trained_tokenizer,
    transformers,
    words,
)
from tests.loading.test_hugging_face import EXTRA, SPECIAL_IDS, VOCABULARY, ids_of, loaded
from unaudit.errors import InputError
from unaudit.loading.architectures import build_architecture, parse_architecture
from unaudit.loading.hugging_face_causal import WINDOWS_AT_ONCE, CausalNetwork
from unaudit.loading.hugging_face_config import CAUSAL_FAMILIES
from unaudit.tokens import PADDING, predicts_tokens, truth
from unaudit.training import initialize
from unaudit.training.model_job import weights_of

LENGTHS = (12, 3, 7, 2, 9)
LONG = (12, 100, 2, 33, 47)
"""Of texts of which some are longer than :data:`CAUSAL_CONTEXT`."""
TIED = {"bloom", "gemma", "gpt2", "gpt_neo", "opt"}
"""Families that tie their embeddings where ``config.json`` does not say."""


def family_network(family: str, **settings: Any) -> Any:
    """A tiny language model of any family, as transformers makes it from its usual settings."""
    package = transformers()
    kind = package.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": CONTEXT,
    }  # fmt: skip
    special = dict(zip(SPECIAL_IDS, (0, 1, 2, 1, 2), strict=True))
    stem = kind.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    config = getattr(package, f"{stem}Config")(
        **{**shape, **special, **EXTRA.get(family, {}), **settings}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(package, kind)(config).eval()
        for weight in network.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.3)
    return network


def saved(path: Path, network: Any) -> Path:
    return save(path, network, trained_tokenizer(words(20), framed=False))


def causal(path: Path | str, arch: str | None = None) -> CausalNetwork:
    module = loaded(path, arch).module
    assert isinstance(module, CausalNetwork)
    return module


def texts_in(ids: Tensor) -> list[Tensor]:
    return [row[row != PADDING] for row in ids]


def by_transformers(network: Any, ids: Tensor) -> Tensor:
    """Logits of transformers' own network, one text at a time, without padding, shifted."""
    return torch.cat([network(input_ids=text[None]).logits[0, :-1] for text in texts_in(ids)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("causal") / "model")


@pytest.fixture
def network(folder: Path) -> CausalNetwork:
    return causal(folder)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder that may be changed."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def rewrite(folder: Path, **changes: Tensor | None) -> Path:
    """Other weights; ``None`` takes one out. Dots are written as two underscores."""
    weights = load((folder / "model.safetensors").read_bytes())
    for name, value in changes.items():
        weights.pop(name.replace("__", "."), None)
        if value is not None:
            weights[name.replace("__", ".")] = value.clone()
    save_file(weights, folder / "model.safetensors")
    return folder


def settings(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    held = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in held.items() if value is not None}))
    return folder


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_logits_are_those_of_transformers_and_padding_changes_none(
    family: str, tmp_path: Path
) -> None:
    theirs, ids = family_network(family), ids_of(LENGTHS)
    ours = causal(saved(tmp_path / "model", theirs))
    with torch.no_grad():
        expected = by_transformers(theirs, ids)
        alone = torch.cat([ours(row[None]) for row in ids])
        found = [ours(ids), alone, ours(nn.functional.pad(ids, (0, 30), value=PADDING))]
        hidden = ours.hidden(ids)
        found += [ours.head(hidden), torch.cat([ours.logits_of(row[None]) for row in hidden])]
    assert expected.shape == (sum(LENGTHS) - len(LENGTHS), VOCABULARY)
    assert expected.std(dim=0).mean() > 0.1  # otherwise equality would say nothing
    for logits in found:
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert ours.tied == (family in TIED)
    assert ours.context == (None if family == "bloom" else CONTEXT)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_ties_are_as_the_configuration_says(family: str, tied: bool, tmp_path: Path) -> None:
    theirs, ids = family_network(family, tie_word_embeddings=tied), ids_of(LENGTHS)
    model = loaded(saved(tmp_path / "model", theirs))
    assert isinstance(model.module, CausalNetwork)
    assert model.module.tied == tied
    with torch.no_grad():
        torch.testing.assert_close(
            model.module(ids), by_transformers(theirs, ids), rtol=0, atol=2e-5
        )
    count = sum(weight.numel() for weight in theirs.parameters())
    assert model.provenance.parameters == count
    assert not any("embeddings" in note for note in model.provenance.notes)
    assert model.arch is not None
    built = build_architecture(parse_architecture(model.arch), None)
    assert isinstance(built.module, CausalNetwork)
    assert built.module.tied == tied
    assert built.spec == model.arch


def test_targets_and_counts_say_what_each_row_is_of(network: CausalNetwork) -> None:
    ids = ids_of(LONG, 120)
    expected = torch.cat([text[1:] for text in texts_in(ids)])
    assert predicts_tokens(network)
    assert torch.equal(network.targets(ids), expected)
    assert torch.equal(truth(network, ids, torch.zeros(5)), expected)
    assert network.counts(ids).tolist() == [length - 1 for length in LONG]
    assert len(network(ids % 44 * (ids >= 0) - 1 * (ids < 0))) == len(expected)


@pytest.mark.parametrize("context", [2, 3, 8, 31, 32])
def test_windows_predict_every_token_once_with_half_a_context_before_it(
    context: int, network: CausalNetwork
) -> None:
    network.context = context
    for length in range(2, 5 * context):
        found = network.windows(length)
        predicted = [token for window in found for token in range(window.first, window.stop)]
        assert predicted == list(range(1, length))
        for number, (start, stop, first) in enumerate(found):
            assert 0 <= start < first < stop <= length
            assert stop - start <= context
            assert number == 0 or first - start >= context / 2
        strides = {after.start - before.start for before, after in pairwise(found)}
        assert strides <= {context // 2}
        assert (len(found) == 1) == (length <= context)
    network.context = None
    assert network.windows(10**6) == [(0, 10**6, 1)]


def in_windows(theirs: Any, text: Tensor, context: int, stride: int) -> Tensor:
    """Each token from the first window that holds it and is not the text's first token."""
    rows: list[Tensor] = []
    start = 0
    while len(rows) < len(text) - 1:
        logits = theirs(input_ids=text[None, start : start + context]).logits[0]
        rows += list(logits[len(rows) - start : -1])
        start += stride
    return torch.stack(rows)


@pytest.mark.parametrize("together", [True, False])
def test_long_texts_are_read_in_windows(
    together: bool, folder: Path, network: CausalNetwork
) -> None:
    theirs = transformers().GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = small(ids_of(LONG, 120))
    with torch.no_grad():
        expected = [in_windows(theirs, text, 32, 16) for text in texts_in(ids)]
        found = network(ids) if together else torch.cat([network(row[None]) for row in ids])
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=2e-5)
    assert found.std(dim=0).mean() > 0.1


def small(ids: Tensor) -> Tensor:
    """The same texts in the vocabulary of :func:`causal_folder`."""
    return torch.where(ids >= 0, ids % 44, ids)


def test_one_very_long_text_is_not_read_at_once(network: CausalNetwork) -> None:
    sizes: list[torch.Size] = []
    network.transformer.register_forward_hook(
        lambda _, __, output: sizes.append(output.last_hidden_state.shape[:2])
    )
    with torch.no_grad():
        network(small(ids_of((1000, 20), 1000)))
    assert max(sizes) == (WINDOWS_AT_ONCE, CAUSAL_CONTEXT)
    assert sum(rows for rows, _ in sizes) == len(network.windows(1000)) + 1
    sizes.clear()
    with torch.no_grad():
        network(small(ids_of((20, 32, 7), 1000)))
    assert sizes == [(3, 32)]


@pytest.mark.parametrize("lengths", [LENGTHS, LONG])
def test_hooks_see_one_row_of_states_per_token(
    lengths: Sequence[int], network: CausalNetwork
) -> None:
    seen: list[Tensor] = []
    network.states.register_forward_hook(lambda _, __, output: seen.append(output))
    ids = small(ids_of(lengths, 120))
    with torch.no_grad():
        hidden = network.hidden(ids)
    (states,) = seen
    assert states.shape == (len(lengths), max(lengths), 32)
    rows = [states[row, : length - 1] for row, length in enumerate(lengths)]
    assert torch.equal(torch.cat(rows), hidden)
    # of the last tokens too, which predict nothing
    with torch.no_grad():
        last = network.transformer(input_ids=ids[:1, :12]).last_hidden_state[0, -1]
    torch.testing.assert_close(states[0, 11], last, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [LENGTHS, LONG])
@pytest.mark.parametrize("tied", [True, False])
def test_training_keeps_ties(tied: bool, lengths: Sequence[int], tmp_path: Path) -> None:
    network = causal(causal_folder(tmp_path / "model", tie_word_embeddings=tied))
    ids = small(ids_of(lengths, 120))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(network(ids), truth(network, ids, torch.zeros(5)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert network.tied == tied
    weights = load(weights_of(network))
    assert torch.equal(*(weights[name] for name in network.tied_names)) == tied
    again = copy.deepcopy(network)
    assert again.tied == tied
    again.load_state_dict(weights)
    assert again.tied == tied
    with torch.no_grad():
        assert torch.equal(again(ids), network(ids))


def test_two_different_weights_untie_a_network(network: CausalNetwork) -> None:
    weights = load(weights_of(network))
    own, head = network.tied_names
    weights[head] = weights[head] + 1
    holder = nn.Sequential(network)
    holder.load_state_dict({f"0.{name}": value for name, value in weights.items()})
    assert not network.tied
    for name in (own, head):
        assert torch.equal(network.state_dict()[name], weights[name])
    weights[head] = weights[own]
    network.load_state_dict(weights)
    assert not network.tied  # equal once, but two
    assert torch.equal(network.state_dict()[head], weights[own])


def test_files_with_both_names_with_one_and_with_two_weights(
    copied: Path, network: CausalNetwork
) -> None:
    digest = loaded(copied).digest
    table = load((copied / "model.safetensors").read_bytes())["transformer.wte.weight"]
    both = loaded(rewrite(copied, lm_head__weight=table))
    assert both.digest == digest
    half = loaded(rewrite(copied, lm_head__weight=table.bfloat16().float()))
    assert isinstance(half.module, CausalNetwork)
    assert not half.module.tied
    assert any("embeddings of inputs and outputs" in note for note in half.provenance.notes)
    assert half.provenance.parameters == sum(w.numel() for w in network.parameters()) + 44 * 32
    assert torch.equal(half.module.lm_head.weight, table.bfloat16().float())  # type: ignore[arg-type]
    other = loaded(rewrite(copied, transformer__wte__weight=None, lm_head__weight=table))
    assert other.digest == digest


def test_files_of_wrappers_are_untied_as_well(copied: Path, tmp_path: Path) -> None:
    weights = load((copied / "model.safetensors").read_bytes())
    weights["lm_head.weight"] = weights["transformer.wte.weight"] + 1
    save_file({f"module.{name}": value for name, value in weights.items()}, tmp_path / "w.st")
    module = causal(tmp_path / "w.st", f"hf:{copied}")
    assert not module.tied
    assert torch.equal(module.head.weight, weights["lm_head.weight"])


def test_files_of_older_versions_fit(copied: Path) -> None:
    """A body saved alone, with the masks that its layers once held."""
    digest = loaded(copied).digest
    weights = load((copied / "model.safetensors").read_bytes())
    old = {name.removeprefix("transformer."): value for name, value in weights.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    old["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(old, copied / "model.safetensors")
    model = loaded(copied)
    assert model.digest == digest
    assert {"buffer h.0.attn.bias", "buffer h.1.attn.masked_bias"} <= set(model.provenance.ignored)
    rewrite(copied, h__0__attn__other=torch.ones(2))
    with pytest.raises(InputError, match="unexpected"):
        loaded(copied)


def test_an_untied_model_needs_both_weights(copied: Path) -> None:
    with pytest.raises(InputError, match=r"1 missing \('lm_head.weight'\)"):
        loaded(settings(copied, tie_word_embeddings=False))


def test_what_is_brought_for_texts(folder: Path) -> None:
    text = loaded(folder).text
    assert text is not None
    assert text.causal
    assert text.labels is None
    assert (text.vocabulary, text.context) == (44, CAUSAL_CONTEXT)


def test_labels_in_a_configuration_mean_nothing(copied: Path) -> None:
    digest = loaded(copied).digest
    changed = settings(copied, id2label={"5": "a"}, num_labels=32, problem_type="regression")
    assert loaded(changed).digest == digest


@pytest.mark.parametrize("padding", [-1, 0, 5, 10**6])
def test_what_a_configuration_calls_padding_means_nothing(padding: int, copied: Path) -> None:
    ids = small(ids_of(LONG, 120))
    with torch.no_grad():
        expected = causal(copied)(ids)
        assert torch.equal(causal(settings(copied, pad_token_id=padding))(ids), expected)


def test_no_context_at_all_is_refused(copied: Path) -> None:
    with pytest.raises(InputError, match="a context of 1 tokens leaves nothing to predict"):
        loaded(settings(copied, n_positions=1))


@pytest.mark.parametrize("tied", [True, False])
def test_the_spec_makes_the_same_network_anywhere(tied: bool, tmp_path: Path) -> None:
    model = loaded(causal_folder(tmp_path / "model", tie_word_embeddings=tied))
    assert model.arch is not None
    shutil.rmtree(tmp_path / "model")
    module = build_architecture(parse_architecture(model.arch), None).module
    module.load_state_dict(load(weights_of(model.module)))
    ids = small(ids_of(LONG, 120))
    with torch.no_grad():
        assert torch.equal(module(ids), model.module(ids))


@pytest.mark.parametrize("tied", [True, False])
def test_fresh_weights_follow_their_generator_and_nothing_else(tied: bool, tmp_path: Path) -> None:
    network = causal(causal_folder(tmp_path / "model", tie_word_embeddings=tied))
    before = torch.random.get_rng_state()
    initialize(network, torch.Generator().manual_seed(1))
    first = {name: value.clone() for name, value in network.state_dict().items()}
    initialize(network, torch.Generator().manual_seed(2))
    assert not torch.equal(first["lm_head.weight"], network.head.weight)
    torch.manual_seed(3)
    initialize(network, torch.Generator().manual_seed(1))
    torch.random.set_rng_state(before)
    assert all(torch.equal(first[name], value) for name, value in network.state_dict().items())
    assert network.tied == tied
    assert torch.equal(*(first[name] for name in network.tied_names)) == tied
    network.untie()
    initialize(network, torch.Generator().manual_seed(1))
    assert not torch.equal(network.head.weight, network.token_embedding.weight)


def test_a_causal_network_has_no_labels_but_texts_of_one_row_each(network: CausalNetwork) -> None:
    """The smallest batches: one text of two tokens, and columns that nobody fills."""
    with torch.no_grad():
        assert network(torch.tensor([[4, 5]])).shape == (1, 44)
        assert network(torch.tensor([[4, 5, -1, -1]])).shape == (1, 44)
        assert network(torch.tensor([[4, 5, -1, -1]], dtype=torch.int32)).shape == (1, 44)


def test_settings_of_the_helpers_are_those_of_the_files(folder: Path) -> None:
    theirs = causal_network(causal_config(44))
    weights = load((folder / "model.safetensors").read_bytes())
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in weights.items())
