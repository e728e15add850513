"""RFA-LoRA where inputs are texts: features without padding, attention and its kin adapted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from tests.hugging_face import (
    Kind,
    causal_folder,
    config_of,
    network_of,
    save,
    trained_tokenizer,
    words,
)
from tests.training.causal import CAUSAL_RECIPE, VOCABULARY, TinyCausal, some_texts
from tests.unlearners.text_toy import text_loss, text_task
from tests.unlearners.toy import run, same
from unaudit.loading import LoadedModel, load_model
from unaudit.tokens import PADDING
from unaudit.training import Recipe
from unaudit.training.model_job import weights_of
from unaudit.unlearners import Task
from unaudit.unlearners._lora import LowRank
from unaudit.unlearners._outputs import adaptable, outputs_of, presence, readable
from unaudit.unlearners.contract import head_of
from unaudit.unlearners.rfa_lora import RfaLora

RECIPE = Recipe(kind="adamw", lr=1e-3, epochs=2, batch=8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(folder: Path, kind: Kind) -> nn.Module:
    tokenizer = trained_tokenizer(words(), framed=kind != "gpt2")
    config = config_of(kind, tokenizer.get_vocab_size(), 3)
    model = load_model(str(save(folder, network_of(kind, config), tokenizer)), arch=None)
    assert isinstance(model, LoadedModel)
    return model.module


def causal(folder: Path) -> nn.Module:
    model = load_model(str(causal_folder(folder)), arch=None)
    assert isinstance(model, LoadedModel)
    return model.module


def texts(count: int, most: int = 12) -> Tensor:
    ids = torch.randint(4, 40, (count, most), generator=generator())
    lengths = torch.randint(3, most + 1, (count, 1), generator=generator(1))
    return torch.where(torch.arange(most) < lengths, ids, PADDING)


def asked(network: nn.Module, ids: Tensor) -> Task:
    forget = torch.arange(len(ids)) % 3 == 0
    labels = torch.arange(len(ids)) % 3
    return Task(network, ids, labels, forget, 3, "sample", RECIPE)


def adapted(network: nn.Module) -> list[str]:
    return adaptable(network, head_of(network), texts(2))


@pytest.mark.parametrize(
    ("kind", "each"),
    [
        ("bert", ("query", "key", "value", "attention.output.dense", "intermediate.dense")),
        ("distilbert", ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2")),
        ("gpt2", ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
    ],
)
def test_attention_and_what_follows_it_is_adapted(
    kind: Kind, each: tuple[str, ...], tmp_path: Path
) -> None:
    network = classifier(tmp_path, kind)
    found = adapted(network)
    for part in each:
        assert sum(name.endswith(part) for name in found) == 2, part  # of two layers
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    head = [name for name in linear if network.get_submodule(name) is head_of(network)]
    assert set(found) == set(linear) - set(head)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_features_of_texts_are_means_over_their_tokens(kind: Kind, tmp_path: Path) -> None:
    network, ids = classifier(tmp_path, kind), texts(5)
    layers = adapted(network)

    def features(batch: Tensor) -> dict[str, Tensor]:
        with outputs_of(network, layers, presence(batch)) as seen, torch.no_grad():
            network(batch)
        return seen

    together = features(nn.functional.pad(ids, (0, 3), value=PADDING))
    for row, text in enumerate(ids):
        alone = features(text[text != PADDING][None])
        for name in layers:
            torch.testing.assert_close(together[name][row], alone[name][0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_text_classifier_comes_back_merged(kind: Kind, tmp_path: Path) -> None:
    network = classifier(tmp_path, kind)
    given = asked(network, texts(24))
    layers = tuple(f"{name}.weight" for name in adapted(network))
    student = run("rfa-lora", given, rank=2, lr=0.01)
    assert list(student.state_dict()) == list(network.state_dict())
    assert same(network, student, skip=layers)
    for name in layers:
        change = student.get_parameter(name) - network.get_parameter(name)
        assert torch.linalg.matrix_rank(change, rtol=1e-3) == 2
    wider = replace(given, inputs=nn.functional.pad(given.inputs, (0, 4), value=PADDING))
    assert same(student, run("rfa-lora", wider, rank=2, lr=0.01))


def test_a_language_model_comes_back_merged_and_tied(tmp_path: Path) -> None:
    network = causal(tmp_path / "model")
    given = asked(network, texts(12))
    layers = tuple(f"{name}.weight" for name in adapted(network))
    assert len(layers) == 8
    student = run("rfa-lora", given, rank=2, lr=0.01)
    assert same(network, student, skip=layers)
    assert not same(network, student)
    again = causal(tmp_path / "again")
    again.load_state_dict(load(weights_of(student)))
    with torch.no_grad():
        torch.testing.assert_close(again(given.inputs), student(given.inputs))


def test_one_step_is_that_of_equation_6() -> None:
    """On a language model, by hand: text by text, without padding."""
    given = text_task(recipe=replace(CAUSAL_RECIPE, batch=64))
    method = RfaLora(epochs=1, lr=0.01, rank=3, alpha=0.7, beta=0.3, lam=0.9, mu=0.4, gamma=0.6)
    student = method(given, generator(1))
    network = given.teacher()
    layers = ["mix", "back"]
    updates = LowRank(network, layers, 3, generator(1))
    # B is 0 at first, so that only its gradient is not; a step of AdamW moves it by the rate
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    logits = []
    for row in given.inputs:
        with outputs_of(network, layers) as now:
            logits.append(updates(row[row != PADDING][None]))
        for name in layers:
            seen[name].append(now[name].reshape(-1, len(network.get_parameter(f"{name}.bias"))))
    moved = torch.zeros(())
    for name in layers:
        means = torch.stack([part.mean(0) for part in seen[name]])
        before = means.detach()
        kept, mean = before[~given.forget], before[~given.forget].mean(0)
        away = (means[given.forget] - mean).norm(dim=1).mean()
        moved = moved + 0.3 * away / kept.norm(dim=1).mean()
    tokens = [row[row != PADDING][1:] for row in given.inputs]
    retained = torch.cat([part for part, f in zip(tokens, given.forget, strict=True) if not f])
    average = retained.bincount(minlength=VOCABULARY) / len(retained)
    kept_logits = torch.cat([x for x, f in zip(logits, given.forget, strict=True) if not f])
    gone_logits = torch.cat([x for x, f in zip(logits, given.forget, strict=True) if f])
    told = 0.9 * nn.functional.cross_entropy(kept_logits, retained)
    told = told - 0.4 * (gone_logits.log_softmax(1) * average).sum(1).mean()
    objective = 0.6 / 2 * moved + 0.4 * told
    ups = [updates.factors[f"{name}.weight"][0] for name in layers]
    for name, gradient in zip(layers, torch.autograd.grad(objective, ups), strict=True):
        down = updates.factors[f"{name}.weight"][1].detach()
        # Adam's first step: the sign of the gradient, and little less where it is near its ε
        step = -0.01 * gradient / (gradient.abs() + 1e-8)
        change = student.get_parameter(f"{name}.weight") - network.get_parameter(f"{name}.weight")
        torch.testing.assert_close(change.detach(), step @ down, rtol=1e-2, atol=1e-4)


def test_the_texts_go_and_the_others_stay() -> None:
    given = text_task()
    student = run("rfa-lora", given)
    rise = [
        text_loss(student, given, mask) - text_loss(given.original, given, mask)
        for mask in (given.forget, ~given.forget)
    ]
    assert rise[0] > 0.5 > rise[1]


def test_long_texts_are_cut_into_what_is_read_at_once() -> None:
    network = TinyCausal()
    ids = some_texts(6, 3, least=2, most=9)
    whole, part = readable(network, ids)
    assert whole is ids
    assert part.tolist() == list(range(6))
    network.context = 4
    cut, part = readable(network, ids)
    assert cut.shape[1] == 4
    for row, text in enumerate(ids):
        text = text[text != PADDING]
        pieces = [piece for piece in text.split(4) if len(piece) > 1]
        found = [piece[piece != PADDING] for piece in cut[part == row]]
        assert len(found) == len(pieces)
        assert all(torch.equal(a, b) for a, b in zip(found, pieces, strict=True))


def test_texts_beyond_the_context_are_unlearned(tmp_path: Path) -> None:
    network = causal(tmp_path)
    given = asked(network, texts(9, most=50))
    student = run("rfa-lora", given, rank=1)
    assert not same(network, student)
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())


@pytest.mark.parametrize("name", ["head-distillation", "cf-k"])
def test_an_untied_head_survives_being_stored(name: str, tmp_path: Path) -> None:
    network = causal(tmp_path / "model")
    given = asked(network, texts(12))
    student = run(name, given)
    assert student.get_parameter("lm_head.weight") is not student.get_parameter(
        "transformer.wte.weight"
    )
    again = causal(tmp_path / "again")
    again.load_state_dict(load(weights_of(student)))
    with torch.no_grad():
        found, wanted = again(given.inputs), student(given.inputs)
        torch.testing.assert_close(found, wanted)
        assert not torch.allclose(wanted, network(given.inputs))
    assert same(again, student)
    tied = causal(tmp_path / "tied")
    tied.load_state_dict(load(weights_of(network)))
    assert tied.get_parameter("lm_head.weight") is tied.get_parameter("transformer.wte.weight")
