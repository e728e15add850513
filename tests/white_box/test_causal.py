"""The inside of language models: one row per token, means over texts, long texts by their start."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.hugging_face import causal_config, causal_network, trained_tokenizer, transformers
from tests.hugging_face import save as save_folder
from tests.hugging_face import words as known_words
from unaudit.errors import InputError
from unaudit.evidence import SplitName
from unaudit.loading import LoadedModel, load_model
from unaudit.tokens import PADDING
from unaudit.white_box import FEATURES, WhiteBox, examine
from unaudit.white_box.causal_tail import CausalTail
from unaudit.white_box.cutting import cut
from unaudit.white_box.hearing import hearing

from .causal import CONTEXT, WIDTH, Causal, Texts, causal, texts
from .worlds import case_of, digest, forward_of

LENGTHS = (9, 3, 2, CONTEXT, 7, 5)
LONG = (9, 20, 2, CONTEXT, 31, CONTEXT + 1)
"""Some of them longer than the context."""

LAYERS = {
    "own": ("blocks.0", "blocks.1", "blocks.2"),
    "own, tied": ("blocks.0", "blocks.1", "blocks.2"),
    "gpt2": ("transformer.h.0", "transformer.h.1"),
    "llama": ("model.layers.0", "model.layers.1"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Networks by name, those of transformers from folders."""

    def loaded(network: nn.Module, name: str) -> nn.Module:
        tokenizer = trained_tokenizer(known_words(), framed=False)
        folder = save_folder(tmp_path_factory.mktemp(name) / name, network, tokenizer)
        model = load_model(str(folder), arch=None)
        assert isinstance(model, LoadedModel)
        return model.module

    @cache
    def get(name: str) -> Any:
        if name.startswith("own"):
            return causal(tied="tied" in name)
        size = len(known_words()) + 4
        if name == "gpt2":
            config = causal_config(size, n_positions=CONTEXT, n_embd=16)
            return loaded(causal_network(config, spread=0.3), name)
        config = transformers().LlamaConfig(
            vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=32, max_position_embeddings=CONTEXT,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return loaded(transformers().LlamaForCausalLM(config), name)

    return get


every_network = pytest.mark.parametrize("name", LAYERS)


def heard(network: nn.Module, ids: Tensor, *layers: str) -> tuple[dict[str, Tensor], Tensor]:
    """What is recorded of layers and features, and the logits of the same pass."""
    anatomy = examine(network, ids[:3])
    found: dict[str, Tensor] = {}

    def sink(layer: str) -> Any:
        return lambda values: found.__setitem__(layer, values.clone())

    sinks = {layer: sink(layer) for layer in (*layers, FEATURES)}
    with torch.no_grad(), hearing(network, anatomy, sinks) as ear:
        logits = network(ear.meet(ids))
    return found, logits


@every_network
def test_blocks_head_and_features_are_found(name: str, folders: Any) -> None:
    network = folders(name)
    found = examine(network, texts(LENGTHS)[:3])
    assert found.layers == LAYERS[name]
    assert (found.head, found.states) == ("lm_head", "states")
    assert found.shape(FEATURES) == (WIDTH,)
    assert all(found.shape(layer) == (CONTEXT, WIDTH) for layer in found.layers)
    assert set(found.layers) <= found.tokenwise & found.cuts
    with pytest.raises(
        InputError, match=rf"means over the tokens.*choose one of '{LAYERS[name][0]}"
    ):
        found.check_cut(FEATURES)
    with pytest.raises(InputError, match="information passes around it"):
        found.check_cut("states")


def test_shapes_are_those_of_the_first_window() -> None:
    network = causal()
    assert examine(network, texts(LONG)).shape("blocks.1") == (CONTEXT, WIDTH)
    assert examine(network, texts([2, 2])).shape("blocks.1") == (2, WIDTH)
    assert examine(causal(context=None), texts(LONG)).shape("blocks.1") == (31, WIDTH)
    named = examine(network, texts(LENGTHS), layers=("blocks.2", FEATURES, "blocks.0"))
    assert named.layers == ("blocks.0", "blocks.2")


def test_a_language_model_without_states_or_a_head_says_so() -> None:
    class Headless(Causal):
        @property
        def head(self) -> Any:
            return nn.Sequential(self.lm_head)

    class Stateless(Causal):
        def __init__(self) -> None:
            super().__init__()
            del self.states

        def __getattr__(self, name: str) -> Any:
            return nn.Identity() if name == "states" else super().__getattr__(name)

    with pytest.raises(InputError, match=r"head of this language model.*policy\.access"):
        examine(Headless().eval(), texts(LENGTHS))
    network = Stateless()
    with pytest.raises(InputError, match=r"called 'states'.*policy\.access"):
        examine(network.eval(), texts(LENGTHS))


@every_network
def test_padding_is_nothing(name: str, folders: Any) -> None:
    network = folders(name)
    layers = LAYERS[name]
    ids = texts(LENGTHS, width=CONTEXT)
    together, _ = heard(network, ids, *layers)
    for row, length in enumerate(LENGTHS):
        alone, _ = heard(network, ids[row : row + 1, :length], *layers)
        for layer in layers:
            rows = together[layer][row]
            torch.testing.assert_close(rows[:length], alone[layer][0], rtol=0, atol=1e-5)
            assert rows[:length].any(dim=1).all()
            assert not rows[length:].any()
        torch.testing.assert_close(together[FEATURES][row], alone[FEATURES][0], rtol=0, atol=1e-5)


def test_features_are_means_of_hidden_states_and_rows_those_of_blocks() -> None:
    network = causal()
    ids = texts(LENGTHS)
    found, _ = heard(network, ids, "blocks.1")
    for row, length in enumerate(LENGTHS):
        text = ids[row, :length]
        with torch.no_grad():
            states = network.token_embedding(text) + network.places(torch.arange(length))
            allowed = torch.ones(length, length).tril().bool()
            for at, block in enumerate(network.blocks):
                states = block(states[None], allowed[None])[0]
                if at == 1:
                    torch.testing.assert_close(found["blocks.1"][row, :length], states)
            states = network.norm(states)
        mean = torch.stack([states[place] for place in range(length)]).mean(dim=0)
        torch.testing.assert_close(found[FEATURES][row], mean)


@every_network
def test_of_a_long_text_the_first_window_is_looked_at(name: str, folders: Any) -> None:
    network = folders(name)
    layer = LAYERS[name][-1]
    whole, _ = heard(network, texts(LONG), layer)
    start, _ = heard(network, texts(LONG)[:, :CONTEXT], layer)
    for key in (layer, FEATURES):
        assert torch.equal(whole[key], start[key])


def test_what_is_run_besides_is_not_heard() -> None:
    network, ids = causal(), texts(LONG)
    anatomy = examine(network, ids)
    seen: list[tuple[int, ...]] = []
    sinks = {
        layer: lambda values: seen.append(tuple(values.shape)) for layer in ("blocks.0", FEATURES)
    }
    with torch.no_grad(), hearing(network, anatomy, sinks) as ear:
        for some in (ids, ids[[0, 2, 3]]):
            shown = ear.meet(some)
            assert shown.shape == (len(some), CONTEXT)
            assert ear.whole == (some is not ids)
            network.hidden(shown)
            network(some)  # all windows, of any shape
    assert seen == [(6, CONTEXT, WIDTH), (6, WIDTH), (3, CONTEXT, WIDTH), (3, WIDTH)]
    assert not any(module._forward_hooks for module in network.modules())


class World:
    """One language model, its texts, its view."""

    def __init__(self, folder: Path, *, batch: int = 8, network: nn.Module | None = None) -> None:
        self.network: Any = causal() if network is None else network
        sizes: Mapping[SplitName, int] = {"forget": 11, "retain": 20, "unseen": 9}
        rng = np.random.default_rng(0)
        self.data = {
            name: Texts(texts(rng.integers(2, 30, size), seed, width=30))
            for seed, (name, size) in enumerate(sizes.items())
        }
        self.case = case_of({"subject": self.network}, self.data)  # type: ignore[arg-type]
        self.forward = forward_of(self.case, folder, batch_size=batch)
        self.view: WhiteBox = self.forward.white_view(self.case.subject)


def test_what_is_recorded_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    one, many = (World(tmp_path / str(size), batch=size) for size in (1, 64))
    layers = (*one.view.layers, FEATURES)
    for world in (one, many):
        world.view.request("retain", layers)
    for layer in layers:
        found = [np.array(world.view.activations("retain", layer)) for world in (one, many)]
        np.testing.assert_allclose(*found, rtol=0, atol=1e-5)
    lengths = one.data["retain"].lengths
    assert (lengths > CONTEXT).sum() > 3
    rows = np.array(one.view.activations("retain", "blocks.0"))
    # one row per token that is looked at, and no text is left out
    np.testing.assert_array_equal(rows.any(axis=2).sum(axis=1), np.minimum(lengths, CONTEXT))


def test_features_are_the_same_with_scores_and_alone(tmp_path: Path) -> None:
    together, alone = (World(tmp_path / name) for name in "ab")
    scores = together.view.tokens("retain")
    assert scores is together.view.predictions("retain")
    assert np.array_equal(together.view.features("retain"), alone.view.features("retain"))
    with torch.no_grad():
        ids = torch.cat(list(together.data["retain"].batches(np.arange(20), 20)))
        log_p = together.network(ids).log_softmax(dim=1)
        own = log_p.gather(1, together.network.targets(ids)[:, None])[:, 0]
    np.testing.assert_allclose(scores.log_p, own.numpy(), rtol=0, atol=1e-5)
    assert together.view.predicts_tokens
    with pytest.raises(TypeError):
        together.view.outputs("retain")


def test_inputs_are_whole_and_inside_they_are_first_windows(tmp_path: Path) -> None:
    world = World(tmp_path)
    rows = np.array([5, 1, 1])
    (ids,) = world.view.inputs("retain", rows)
    (shown,) = world.view.inputs_inside("retain", rows)
    assert ids.shape == (3, 30)
    assert torch.equal(shown, ids[:, :CONTEXT])


@every_network
def test_every_layer_can_be_cut(name: str, folders: Any) -> None:
    network = folders(name)
    ids = texts(LENGTHS)
    anatomy = examine(network, ids)
    with torch.no_grad():
        counts = network.counts(ids).tolist()
    for layer in LAYERS[name]:
        given, logits = heard(network, ids, layer)
        # long texts are cut like others, by their first window
        tail = cut(copy.deepcopy(network), anatomy, layer, texts([20, *LENGTHS[:3]]))
        assert isinstance(tail, CausalTail)
        with torch.no_grad():
            together = tail(given[layer])
            alone = [tail(example[None]) for example in given[layer]]
            features = tail.features(given[layer])
        assert [len(rows) for rows in alone] == counts
        torch.testing.assert_close(together, logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.cat(alone), logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(features, given[FEATURES], rtol=0, atol=1e-5)


@every_network
def test_gradients_behind_a_cut_are_the_networks_own(name: str, folders: Any) -> None:
    network = copy.deepcopy(folders(name)).requires_grad_(True)
    ids, layer = texts(LENGTHS), LAYERS[name][0]
    given = heard(network, ids, layer)[0][layer]
    tail = cut(copy.deepcopy(network), examine(network, ids), layer, ids[:4])
    behind = dict(tail.named_parameters())
    # shared with the embedding, the head has no gradient of its own in the whole network
    own = {id(weight) for weight in tail.module.get_submodule("lm_head").parameters()}
    compared = {key: value for key, value in behind.items() if id(value) not in own}
    assert len(compared) == len(behind) - 1 >= 10
    whole = [network.get_parameter(key.removeprefix("module.")) for key in compared]
    targets = network.targets(ids)
    found = torch.autograd.grad(loss(tail(given), targets), list(compared.values()))
    expected = torch.autograd.grad(loss(network(ids), targets), whole)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tail_without_its_head_keeps_it(tied: bool) -> None:
    network, ids = causal(tied=tied), texts(LENGTHS)
    tail = cut(copy.deepcopy(network), examine(network, ids), "blocks.1", ids)
    assert isinstance(tail, CausalTail)
    given = heard(network, ids, "blocks.1")[0]["blocks.1"]
    before = digest(network.lm_head)
    tail.leave_head()
    names = [key for key, _ in tail.named_parameters()]
    assert len(names) == 14
    assert all(key.startswith(("module.blocks.2", "module.norm")) for key in names)
    features = tail.features(given)
    assert torch.autograd.grad(features.sum(), list(tail.parameters()))
    tail.reinitialize(torch.Generator().manual_seed(0))
    assert (tail.features(given) - features).abs().max() > 0.01
    assert digest(tail.module.get_submodule("lm_head")) == before


def test_a_tail_says_what_it_does_not_know(tmp_path: Path) -> None:
    view = World(tmp_path).view
    with pytest.raises(InputError, match=r"cannot be cut at 'features'.*'blocks.0'"):
        view.tail(FEATURES)
    assert isinstance(view.tail("blocks.2"), CausalTail)
    assert view.head.weight.shape == (24, WIDTH)
    copied: Any = view.private_copy()
    assert digest(copied) == view.digest


def test_ties_survive_copies(tmp_path: Path) -> None:
    copied: Any = World(tmp_path, network=causal(tied=True)).view.private_copy()
    assert copied.lm_head.weight is copied.token_embedding.weight


class Leaky(Causal):
    """Lets its logits see how long a text is, past every layer but the first."""

    def hidden(self, ids: Tensor) -> Tensor:
        return super().hidden(ids) * (1.0 + 0.1 * (ids == 3).sum())


def test_what_leaks_around_a_cut_is_noticed() -> None:
    network = Leaky().eval()
    ids = texts(LENGTHS)
    ids[0, :4] = torch.tensor([3, 3, 3, 3])
    assert (ids != PADDING).sum() == sum(LENGTHS)
    with pytest.raises(InputError, match=r"run from there it gives other logits; choose one of"):
        cut(copy.deepcopy(network), examine(network, ids), "blocks.1", ids)
