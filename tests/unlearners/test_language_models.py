"""Unlearners on language models: tokens are what is learned and forgotten."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tests.training.causal import CAUSAL_RECIPE, VOCABULARY, TinyCausal, some_texts
from tests.unlearners.text_toy import text_loss, text_task
from tests.unlearners.toy import run, same
from tests.unlearners.toy import task as classifier_task
from unaudit.cli.main import main
from unaudit.errors import InputError, UsageError
from unaudit.evidence import ANY_TASK, CLASSIFICATION
from unaudit.tokens import PADDING, truth
from unaudit.training import DivergedError, fit, initialize
from unaudit.unlearners import UNLEARNERS, check_kind, check_task
from unaudit.unlearners._guard import check_alive, retain_accuracy
from unaudit.unlearners._losses import distillation
from unaudit.unlearners._rows import n_outcomes, of_rows, own_head
from unaudit.unlearners.contract import head_of
from unaudit.unlearners.random_labels import WrongTargets
from unaudit.unlearners.scrub import _wrong

ABLE = [name for name, kind in UNLEARNERS.items() if kind.card.tasks == ANY_TASK]
UNABLE = [name for name, kind in UNLEARNERS.items() if kind.card.tasks == CLASSIFICATION]
HEAD = "head."


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def test_these_know_language_models() -> None:
    assert set(ABLE) == {
        *("retrain", "finetune", "finetune-head", "random-labels", "gradient-ascent"),
        *("neggrad-plus", "bad-teacher", "cf-k", "eu-k", "scrub", "l1-sparse", "salun", "ssd"),
        *("head-distillation", "rfa-lora"),
    }


@pytest.mark.parametrize("name", UNABLE)
def test_the_others_are_refused_in_one_line(name: str) -> None:
    card = UNLEARNERS.get(name).card
    given = text_task(scenario=min(card.scenarios))
    message = f"^{name} is for classifiers, not for language models; take another unlearner$"
    with pytest.raises(UsageError, match=message):
        check_task(card, given)
    check_kind(card, "classification")


@pytest.mark.parametrize("name", ABLE)
def test_what_holds_for_all(name: str) -> None:
    given = text_task()
    check_task(UNLEARNERS.get(name).card, given)
    before, ids = state(given.original), given.inputs.clone()
    global_state = torch.get_rng_state()
    student = run(name, given)
    assert torch.equal(global_state, torch.get_rng_state()), "uses global randomness"
    assert all(torch.equal(before[key], own) for key, own in given.original.state_dict().items())
    assert torch.equal(ids, given.inputs)
    assert not student.training
    assert list(student.state_dict()) == list(before)
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())
    assert all(parameter.requires_grad for parameter in student.parameters())
    own = {value.data_ptr() for value in given.original.state_dict().values()}
    assert own.isdisjoint(value.data_ptr() for value in student.state_dict().values())
    assert same(run(name, given), student)
    rise = text_loss(student, given, given.forget) - text_loss(given.original, given, given.forget)
    kept = text_loss(student, given, ~given.forget) - text_loss(
        given.original, given, ~given.forget
    )
    assert rise > max(kept, 0.05)
    check_alive(student, given, name)


@pytest.mark.parametrize("name", ABLE)
def test_only_what_it_consumes_is_read(name: str) -> None:
    given = text_task()
    consumes = UNLEARNERS.get(name).card.consumes
    spoiled = given.inputs.clone()
    other = some_texts(len(spoiled), 99)
    if "forget" not in consumes:
        spoiled[given.forget] = other[given.forget]
    if "retain" not in consumes:
        spoiled[~given.forget] = other[~given.forget]
    assert same(run(name, given), run(name, replace(given, inputs=spoiled, validation=None)))


@pytest.mark.parametrize("name", ABLE)
def test_more_padding_changes_nothing_but_draws(name: str) -> None:
    """Of random targets as many are drawn as there are places."""
    given = text_task()
    wider = nn.functional.pad(given.inputs, (0, 5), value=PADDING)
    equal = same(run(name, given), run(name, replace(given, inputs=wider)))
    assert equal != (name in ("random-labels", "salun"))


def test_finetuning_is_training_on_the_retain_texts() -> None:
    given = text_task()
    student = run("finetune", given, lr=0.01, epochs=2)
    recipe, draws = replace(CAUSAL_RECIPE, lr=0.01, epochs=2), generator(1)
    naive = fit(
        given.student(), given.inputs[~given.forget], given.labels[~given.forget], recipe, draws
    )
    assert same(student, naive)


def test_retraining_starts_from_the_base() -> None:
    other = TinyCausal(tied=False)
    base = state(initialize(other, generator(5)))
    given = text_task(tied=False, base=lambda: base)
    kept = ~given.forget
    for part in (base, {key: value for key, value in base.items() if not key.startswith(HEAD)}):
        student = run("retrain", replace(given, base=lambda part=part: part))
        draws = generator(1)
        naive = initialize(TinyCausal(tied=False), draws)
        naive.load_state_dict(part, strict=False)
        assert same(
            student, fit(naive, given.inputs[kept], given.labels[kept], CAUSAL_RECIPE, draws)
        )
    assert not same(run("retrain", given), run("retrain", text_task(tied=False)))


def test_wrong_tokens_are_drawn_evenly_and_are_never_the_true_ones() -> None:
    given = text_task()
    wrong, draws = WrongTargets(given), generator()
    network = given.original
    rows = torch.arange(len(given.inputs))
    true = truth(network, given.inputs, given.labels)
    forget = of_rows(network, given.inputs, given.forget)
    counts = torch.zeros(VOCABULARY)
    shifts = torch.zeros(VOCABULARY)
    for _ in range(300):
        wrong.draw(draws)
        told = wrong(network, rows, given.inputs)
        assert torch.equal(told[~forget], true[~forget])
        counts += told[forget].bincount(minlength=VOCABULARY)
        shifts += ((told[forget] - true[forget]) % VOCABULARY).bincount(minlength=VOCABULARY)
    total = int(forget.sum()) * 300
    assert shifts[0] == 0
    expected = total / (VOCABULARY - 1)
    assert ((shifts[1:] - expected).abs() < 5 * math.sqrt(expected)).all()
    # in another order of rows, the same text is told the same
    some = torch.tensor([8, 3, 0])
    parts = [wrong(network, row[None], given.inputs[row[None]]) for row in some]
    assert torch.equal(wrong(network, some, given.inputs[some]), torch.cat(parts))


def test_wrong_tokens_may_be_drawn_once() -> None:
    given = text_task()
    assert not same(run("random-labels", given), run("random-labels", given, redraw=False))
    assert not same(run("random-labels", given), run("random-labels", given, true_too=True))


def test_the_ascent_ends_a_tenth_of_the_way_to_a_uniform_guess() -> None:
    given = text_task(recipe=replace(CAUSAL_RECIPE, batch=64))
    before = text_loss(given.original, given, given.forget)
    for scenario, share in (("sample", 0.1), ("class", 1.0)):
        student = run("gradient-ascent", replace(given, scenario=scenario), lr=1e-4, epochs=4000)
        way = share * (math.log(VOCABULARY) - before)
        after = text_loss(student, given, given.forget)
        assert before + way <= after < before + way + 0.1
    stopped = run("gradient-ascent", given, lr=1e-4, epochs=4000, stop=1.5)
    assert text_loss(stopped, given, given.forget) == pytest.approx(1.5, abs=0.05)


def test_the_ascent_is_not_over_before_it_began() -> None:
    """Some texts have more loss than all of them on average will have in the end."""
    given = text_task()
    fewer = replace(given, recipe=replace(CAUSAL_RECIPE, batch=1))
    assert not same(run("gradient-ascent", fewer), given.original)


def test_neggrad_climbs_tokens_up_to_a_uniform_guess() -> None:
    """One step of plain SGD, by hand."""
    recipe = replace(CAUSAL_RECIPE, kind="sgd", momentum=0.0, lr=0.1, batch=64, schedule="constant")
    given = text_task(recipe=recipe)
    ours = run("neggrad-plus", given, epochs=1, alpha=0.6)
    naive = given.student()

    def losses(mask: Tensor) -> Tensor:
        texts = [row[row != PADDING] for row in given.inputs[mask]]
        each = [
            nn.functional.cross_entropy(naive(text[None]), text[1:], reduction="none")
            for text in texts
        ]
        return torch.cat(each)

    climbed = losses(given.forget).clamp(max=math.log(VOCABULARY)).mean()
    objective = 0.6 * losses(~given.forget).mean() - 0.4 * climbed
    gradients = torch.autograd.grad(objective, list(naive.parameters()))
    for one, other, gradient in zip(ours.parameters(), naive.parameters(), gradients, strict=True):
        torch.testing.assert_close(one, other - 0.1 * gradient, rtol=1e-4, atol=1e-5)


def test_the_fool_speaks_of_forget_tokens_and_the_original_of_the_others() -> None:
    recipe = replace(CAUSAL_RECIPE, kind="sgd", momentum=0.0, lr=0.1, batch=64, schedule="constant")
    given = text_task(recipe=recipe)
    ours = run("bad-teacher", given, lr=0.1, epochs=1, retain_share=1.0)
    naive, bad = given.student(), given.teacher()
    initialize(bad, generator(1))
    divergences = []
    for row, foolish in zip(given.inputs, given.forget, strict=True):
        ids = row[row != PADDING][None]
        teacher = bad(ids) if foolish else given.original(ids)
        divergences.append(distillation(naive(ids), teacher) * len(teacher))
    tokens = (given.inputs != PADDING)[:, 1:].sum()
    objective = torch.stack(divergences).sum() / tokens
    gradients = torch.autograd.grad(objective, list(naive.parameters()))
    for one, other, gradient in zip(ours.parameters(), naive.parameters(), gradients, strict=True):
        torch.testing.assert_close(one, other - 0.1 * gradient, rtol=1e-4, atol=1e-5)


def test_scrub_rewinds_by_errors_per_text() -> None:
    given = text_task()
    found = _wrong(given.student(), given, (given.inputs, given.labels), given.forget_rows)
    for share, row in zip(found, given.inputs[given.forget], strict=True):
        text = row[row != PADDING]
        with torch.no_grad():
            misses = given.original(text[None]).argmax(1) != text[1:]
        assert float(share) == pytest.approx(float(misses.double().mean()))
    back, on = run("scrub", given, rewind=True, epochs=6), run("scrub", given, epochs=6)
    ends = [text_loss(model, given, given.forget) for model in (back, on)]
    assert ends[0] >= ends[1]  # unseen texts are hardly predicted at all
    with pytest.raises(InputError, match="needs validation examples"):
        run("scrub", text_task(validation=None), rewind=True)


def test_salun_trains_the_salient_half() -> None:
    given = text_task()
    student = run("salun", given)
    pairs = zip(given.original.parameters(), student.parameters(), strict=True)
    moved = torch.cat([(one != other).flatten() for one, other in pairs])
    assert 0.3 < float(moved.float().mean()) <= 0.5


@pytest.mark.parametrize("name", ["head-distillation", "finetune-head"])
def test_the_head_alone_is_refitted_and_untied_first(name: str) -> None:
    given = text_task()
    fake = run(name, given)
    assert isinstance(fake, TinyCausal)
    assert fake.head.weight is not fake.token_embedding.weight
    assert same(given.original, fake, skip=(HEAD,))
    assert not same(given.original, fake)
    untied = run(name, text_task(tied=False))
    assert same(text_task(tied=False).original, untied, skip=(HEAD,))


def test_layers_before_the_last_ones_stand_still() -> None:
    given = text_task()
    for name in ("cf-k", "eu-k"):
        student = run(name, given, k=2)
        assert same(given.original, student, skip=(HEAD, "back."))
        assert not torch.equal(
            student.state_dict()["back.weight"], given.original.state_dict()["back.weight"]
        )


class HeadFirst(TinyCausal):
    """Defines its head before its other layers."""

    def __init__(self) -> None:
        super().__init__(tied=False)
        mix = self.mix
        del self.mix
        self.mix = mix


def test_layers_are_counted_from_the_head() -> None:
    model = initialize(HeadFirst(), generator())
    with pytest.raises(InputError, match="which does not make the logits"):
        run("cf-k", text_task(original=model))


def test_the_head_is_what_the_network_says() -> None:
    model = HeadFirst()
    assert head_of(model) is model.head
    assert head_of(model, "head") is model.head
    with pytest.raises(InputError, match="does not make the logits of this model"):
        head_of(model, "mix")
    tied = TinyCausal()
    assert own_head(tied, None).weight is not tied.token_embedding.weight
    own = own_head(model, None).weight
    assert own_head(model, None).weight is own


def test_a_collapsed_model_is_told_by_its_tokens() -> None:
    given = text_task()
    network = given.original
    kept = given.inputs[~given.forget]
    with torch.no_grad():
        hits = network(kept).argmax(1) == truth(network, kept, given.labels)
    assert retain_accuracy(network, given) == pytest.approx(float(hits.float().mean()))
    with pytest.raises(DivergedError, match="collapsed"):
        check_alive(initialize(TinyCausal(), generator(3)), given, "some")


def test_outcomes_are_words() -> None:
    assert n_outcomes(text_task()) == VOCABULARY
    assert n_outcomes(classifier_task()) == 4


def test_squared_gradients_are_those_of_whole_texts() -> None:
    from unaudit.unlearners._fisher import empirical_fisher

    given = text_task()
    rows = given.forget_rows[:3]
    found = empirical_fisher(given.original, given.inputs, given.labels, rows)
    naive = given.student()
    wanted = {name: torch.zeros_like(value) for name, value in naive.named_parameters()}
    for row in rows:
        text = given.inputs[row][given.inputs[row] != PADDING]
        loss = nn.functional.cross_entropy(naive(text[None]), text[1:])
        gradients = torch.autograd.grad(loss, list(naive.parameters()))
        for (name, _), gradient in zip(naive.named_parameters(), gradients, strict=True):
            wanted[name] += gradient.square() / 3
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-8)


def test_more_passes_raise_the_loss_further() -> None:
    given = text_task()
    found = [
        text_loss(run("head-distillation", given, epochs=epochs), given, given.forget)
        for epochs in (1, 5, 20)
    ]
    assert all(one < other for one, other in pairwise(found))


def test_what_a_method_works_on_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for name, tasks in (("salun", "classifiers and language models"), ("tmu", "classifiers")):
        assert main(["unlearners", name]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [line.split(maxsplit=1)[1] for line in said if line.split()[:1] == ["models"]] == [
            tasks
        ]
