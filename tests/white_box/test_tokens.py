"""The inside of networks of texts: padding is nothing, and every layer can be cut."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hugging_face import CONTEXT, KINDS, Kind, config_of, network_of, save, trained_tokenizer
from tests.hugging_face import words as known_words
from unaudit.errors import InputError
from unaudit.loading import LoadedModel, load_model
from unaudit.tokens import PADDING, are_present
from unaudit.white_box import FEATURES, Anatomy, examine
from unaudit.white_box.cutting import cut
from unaudit.white_box.tokens import Padding
from unaudit.white_box.trace import listening

LENGTHS = (9, 3, 1, 14, 7)
LAYERS = {
    "bert": ("bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"),
    "distilbert": (
        "distilbert.embeddings",
        "distilbert.transformer.layer.0",
        "distilbert.transformer.layer.1",
    ),
    "gpt2": ("transformer.h.0", "transformer.h.1"),
}
HEADS = {"bert": "classifier", "distilbert": "classifier", "gpt2": "score"}


class Subject:
    """A network as unaudit has it and as transformers has it, and some texts."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        tokenizer = trained_tokenizer(known_words())
        self.kind = kind
        self.own: Any = network_of(kind, config_of(kind, tokenizer.get_vocab_size(), 3))
        model = load_model(str(save(folder / kind, self.own, tokenizer)), arch=None)
        assert isinstance(model, LoadedModel)
        self.network = model.module
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.full((len(LENGTHS), 16), PADDING)
        for row, length in enumerate(LENGTHS):
            self.ids[row, :length] = torch.randint(4, 40, (length,), generator=generator)
        self.anatomy: Anatomy = examine(self.network, self.ids[:3])

    def activations(self, layer: str) -> Tensor:
        """As they are recorded."""
        found: list[Tensor] = []
        padding = Padding(self.anatomy.tokenwise)
        padding.meet(self.ids)
        outputs = {} if layer == FEATURES else {layer: found.append}
        inputs = {self.anatomy.head: found.append} if layer == FEATURES else {}
        with torch.no_grad(), listening(self.network, padding.around(outputs), inputs):
            self.network(self.ids)
        return found[0]


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(request.param, tmp_path_factory.mktemp("tokens"))


def test_blocks_and_head_are_found(subject: Subject) -> None:
    found = subject.anatomy
    assert found.layers == LAYERS[subject.kind]
    assert found.head == HEADS[subject.kind]
    assert found.shapes[FEATURES] == (16,)
    assert all(found.shapes[layer] == (16, 16) for layer in found.layers)
    assert set(found.layers) <= found.tokenwise
    with pytest.raises(InputError, match="cannot be cut"):
        found.check_cut(next(name for name in found.tokenwise if name.endswith("dropout")))


def test_hidden_states_are_those_of_transformers_and_zero_for_padding(subject: Subject) -> None:
    blocks = [layer for layer in subject.anatomy.layers if layer[-1].isdigit()]
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            text = subject.ids[row : row + 1, :length]
            base = getattr(subject.own, subject.own.base_model_prefix)
            states = base(text, output_hidden_states=True).hidden_states
        # the last state of GPT-2 is behind its last normalization
        for block, state in zip(blocks[:-1], states[1:], strict=False):
            found = subject.activations(block)[row]
            torch.testing.assert_close(found[:length], state[0], rtol=0, atol=1e-5)
            assert not found[length:].any()


def test_every_layer_can_be_cut_for_texts_of_any_length(subject: Subject) -> None:
    with torch.no_grad():
        logits = subject.network(subject.ids)
    for layer in (*subject.anatomy.layers, FEATURES):
        given = subject.activations(layer)
        tail = cut(copy.deepcopy(subject.network), subject.anatomy, layer, subject.ids[:4])
        with torch.no_grad():
            together = tail(given)
            alone = torch.cat([tail(example[None]) for example in given])
        torch.testing.assert_close(together, logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(alone, logits, rtol=0, atol=1e-5)
        features = tail.features(given)
        torch.testing.assert_close(features, subject.activations(FEATURES), rtol=0, atol=1e-5)


def test_gradients_behind_a_cut_are_the_networks_own(subject: Subject) -> None:
    """Masks must hold backwards too, also for a text of one token."""
    labels = torch.tensor([0, 1, 2, 0, 1])
    layer = subject.anatomy.layers[0]
    tail = cut(copy.deepcopy(subject.network), subject.anatomy, layer, subject.ids[:4])
    given = subject.activations(layer)
    behind = dict(tail.named_parameters())
    whole = {name: subject.network.get_parameter(name.removeprefix("module.")) for name in behind}
    assert len(behind) >= 15
    for rows in (slice(0, 5), *(slice(row, row + 1) for row in range(5))):
        found = gradients(tail(given[rows]), labels[rows], behind)
        expected = gradients(subject.network(subject.ids[rows]), labels[rows], whole)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def gradients(logits: Tensor, labels: Tensor, of: dict[str, nn.Parameter]) -> tuple[Tensor, ...]:
    loss = nn.functional.cross_entropy(logits, labels)
    return torch.autograd.grad(loss, list(of.values()))


def test_a_tail_is_trained_and_drawn_anew(subject: Subject) -> None:
    layer = subject.anatomy.layers[0]
    tail = cut(copy.deepcopy(subject.network), subject.anatomy, layer, subject.ids[:4])
    given = subject.activations(layer)
    before = {name: value.clone() for name, value in tail.module.state_dict().items()}
    with torch.no_grad():
        logits = tail(given)
    tail.reinitialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (tail(given) - logits).abs().max() > 0.01
    changed = {
        name for name, value in tail.module.state_dict().items()
        if not torch.equal(value, before[name])
    }  # fmt: skip
    reached = {name.removeprefix("module.") for name, _ in tail.named_parameters()}
    assert changed <= reached
    optimizer = torch.optim.SGD(tail.parameters(), lr=0.1)
    labels, losses = torch.tensor([0, 1, 2, 0, 1]), []
    for _ in range(30):
        loss = nn.functional.cross_entropy(tail(given), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


class Grid(nn.Module):
    """Gives something for every pair of tokens."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ rows.transpose(1, 2)


class Own(nn.Module):
    """A network of tokens that transformers knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 8)
        self.grid = Grid()
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        present = are_present(ids)
        rows = self.table(ids.clamp(min=0)) * present[:, :, None]
        rows = self.mix(torch.tanh(self.grid(rows)) @ rows) * present[:, :, None]
        logits: Tensor = self.head(rows.sum(dim=1))
        return logits


def test_any_network_of_tokens_can_be_examined() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Own().eval()
        ids = torch.randint(4, 40, (4, 6))
    ids[1, 2:] = PADDING
    found = examine(network, ids)
    assert found.head == "head"
    assert "mix" in found.tokenwise
    # as wide as texts are long: no shape that would hold for all
    assert "grid" not in found.shapes
    with pytest.raises(InputError, match="no single tensor per example"):
        found.shape("grid")


def test_a_text_of_one_token_alone_is_no_batch(tmp_path: Path) -> None:
    subject = Subject("gpt2", tmp_path)
    ids = torch.tensor([[7], [9]])
    with torch.no_grad():
        found = subject.network(ids)
        wide = subject.network(nn.functional.pad(ids, (0, CONTEXT - 1), value=PADDING))
    torch.testing.assert_close(found, wide, rtol=0, atol=1e-5)
    assert examine(subject.network, ids).head == "score"
