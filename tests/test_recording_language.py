"""Language models in the record: perplexities, extraction, accuracies of next tokens."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from unaudit.case import Candidate, Case
from unaudit.evidence import SplitName
from unaudit.plan import AuditPlan
from unaudit.recording.inside import KINDS, curves
from unaudit.recording.language import language, perplexity, reproduced
from unaudit.recording.plan import public_command, repeat_command
from unaudit.recording.utility import accuracies, per_class
from unaudit.report.record import Language
from unaudit.token_outputs import TOP, TokenOutputs
from unaudit.views import BlackBox, Predictions

SIZES: dict[SplitName, int] = {"forget": 30, "retain": 60, "unseen": 40}
CONTEXT = 12


def texts(
    n: int, seed: int, *, sure: float = 0.0, classes: int = 1, longest: int = 16
) -> TokenOutputs:
    """What a model says of texts of which it has learned a share by heart."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, longest, n)
    known = np.repeat(rng.random(n) < sure, counts)
    log_p = np.where(known, -0.01, -rng.gamma(2.0, 1.2, counts.sum())).astype(np.float32)
    return TokenOutputs(
        labels=rng.integers(0, classes, n),
        counts=counts,
        log_p=log_p,
        mean_log_p=log_p,
        std_log_p=np.zeros_like(log_p),
        greedy=known | (rng.random(counts.sum()) < 0.6),
        top=np.zeros((counts.sum(), TOP), np.float32),
        compressed=np.full(n, 40),
    )


def by_text(tokens: TokenOutputs, values: Any) -> list[list[Any]]:
    """Values of each text, one list per text."""
    rest = list(values)
    return [[rest.pop(0) for _ in range(count)] for count in tokens.counts.tolist()]


class World:
    """A subject that remembers, an original that does more, retrained models, an unlearner's."""

    def __init__(
        self, *, classes: int = 1, context: int | None = CONTEXT, unseen: bool = True
    ) -> None:
        self.classes = classes
        self.shares = {"subject": 0.5, "original": 0.9, "retrained 1": 0.0, "retrained 2": 0.0}
        self.shares |= {"finetune": 0.2}
        self.sizes = {name: n for name, n in SIZES.items() if unseen or name != "unseen"}
        model = SimpleNamespace(text=SimpleNamespace(causal=True, context=context))
        made = [
            Candidate(label.split()[0], label, cast(Any, model))  # type: ignore[arg-type]
            for label in self.shares
        ]
        self.case = Case(
            subject=made[0], original=made[1], retrained=tuple(made[2:4]),
            splits=cast(Any, {name: SimpleNamespace(labels=self.labels(name)) for name in SIZES}),
            scenario="class" if classes > 1 else "sample", scenario_source="detected",
            id_type="key", ids_hmac="", copies=None, mix_differs=False,
            calibrators=(Candidate("calibrator", "finetune", cast(Any, model)),),
        )  # fmt: skip
        self.view_of = {label: self.view(label) for label in self.shares}

    def said(self, model: str, split: SplitName) -> TokenOutputs:
        share = self.shares[model] if split == "forget" else 0.8 if split == "retain" else 0.0
        return texts(
            SIZES[split], sum(map(ord, split)), sure=share, classes=self.classes
        )  # fmt: skip

    def labels(self, split: SplitName) -> Any:
        # a class is forgotten, if there are any
        return np.zeros(SIZES[split], np.int64)

    def view(self, model: str) -> BlackBox:
        def load(split: SplitName) -> Any:
            def loaded() -> Predictions:
                return self.said(model, split)

            return loaded

        return BlackBox(
            {name: load(name) for name in self.sizes},
            scenario=self.case.scenario, forget_classes=(0,), n_classes=self.classes,
        )  # fmt: skip

    def language(self) -> Language:
        found = language(self.case, self.view_of)
        assert found is not None
        return found


def test_perplexity_is_that_of_all_tokens_and_not_a_mean_over_texts() -> None:
    tokens = texts(50, 3)
    losses = [-float(value) for value in tokens.log_p]
    expected = math.exp(sum(losses) / len(losses))
    assert perplexity(tokens) == pytest.approx(expected, rel=1e-9)
    assert abs(expected - float(np.exp(-tokens.log_confidence).mean())) > 0.1


def test_extraction_against_a_loop_over_every_text() -> None:
    tokens = texts(200, 5, sure=0.4, longest=8)
    expected = []
    for flags in by_text(tokens, tokens.greedy.tolist()):
        written = len(flags) + 1
        given = -(-written // 2)
        rest = list(range(given, written))
        # flag i is that of token i + 1
        expected.append(all(flags[place - 1] for place in rest))
    found = reproduced(tokens)
    assert found.tolist() == expected
    assert 0.3 < found.mean() < 0.9
    assert 1 in tokens.counts


def test_the_first_half_is_given_and_may_be_wrong() -> None:
    def of(*flags: bool) -> bool:
        n = len(flags)
        zeros = np.zeros(n, np.float32)
        one = TokenOutputs(
            np.zeros(1, np.int64), np.array([n]), zeros, zeros, zeros, np.array(flags),
            np.zeros((n, TOP), np.float32), np.array([9]),
        )  # fmt: skip
        return bool(reproduced(one)[0])

    assert of(True)
    assert not of(False)
    assert of(False, True), "three tokens: two are given"
    assert of(False, True, True), "four tokens: two are given"
    assert not of(True, False, True)
    assert not of(True, True, False)


def test_every_model_and_split_is_written_down() -> None:
    world = World()
    found = world.language()
    assert [line.model for line in found.perplexity] == list(world.shares)
    assert [line.role for line in found.extraction] == [
        "subject", "original", "retrained", "retrained", "calibrator",
    ]  # fmt: skip
    for line, other in zip(found.perplexity, found.extraction, strict=True):
        for split in SIZES:
            said = world.said(line.model, split)
            assert getattr(line, split) == pytest.approx(perplexity(said))
            assert getattr(other, split) == pytest.approx(reproduced(said).mean())
    subject, original, retrained, *_ = found.perplexity
    assert original.forget < subject.forget < retrained.forget


def test_texts_and_tokens_are_counted() -> None:
    world = World()
    found = world.language()
    assert found.context == CONTEXT
    for size in found.texts:
        counts = world.said("subject", size.split).counts.tolist()
        assert (size.texts, size.tokens) == (len(counts), sum(counts))
        assert size.longer == sum(count + 1 > CONTEXT for count in counts) > 0
    assert [size.longer for size in World(context=None).language().texts] == [0, 0, 0]


def test_an_absent_split_is_null() -> None:
    found = World(unseen=False).language()
    assert {line.unseen for line in found.perplexity} == {None}
    assert {line.unseen for line in found.extraction} == {None}
    assert [size.split for size in found.texts] == ["forget", "retain"]


@pytest.mark.parametrize(("log_p", "expected"), [(-1e30, 1e299), (1e-7, 1.0), (0.0, 1.0)])
def test_a_perplexity_is_a_number_that_json_can_hold(log_p: float, expected: float) -> None:
    values = np.full(3, log_p, np.float32)
    tokens = TokenOutputs(
        np.zeros(1, np.int64), np.array([3]), values, values, values, np.zeros(3, np.bool_),
        np.zeros((3, TOP), np.float32), np.array([9]),
    )  # fmt: skip
    found = perplexity(tokens)
    assert found is not None
    assert found == pytest.approx(expected, rel=5.0)
    assert 1.0 <= found <= 1e300


def test_classifiers_have_no_perplexity() -> None:
    case = SimpleNamespace(task="classification")
    assert language(cast(Case, case), {}) is None


def test_accuracy_is_the_share_of_tokens_as_a_mean_over_texts() -> None:
    world = World(classes=3)
    rows = accuracies(world.case, world.view_of)
    assert [row.model for row in rows] == list(world.shares)
    for row in rows:
        for split in SIZES:
            said = world.said(row.model, split)
            each = [np.mean(flags) for flags in by_text(said, said.greedy.tolist())]
            assert getattr(row, split) == pytest.approx(np.mean(each))
    said = world.said("subject", "unseen")
    inside = said.labels == 0
    assert rows[0].unseen_forgotten == pytest.approx(said.hit_rate[inside].mean())
    assert rows[0].unseen_kept == pytest.approx(said.hit_rate[~inside].mean())


def test_accuracy_by_class_is_for_texts_with_labels() -> None:
    world = World(classes=3)
    rows = per_class(world.case, world.view_of, 3)
    assert [row.label for row in rows] == [0, 1, 2]
    said = world.said("subject", "retain")
    assert rows[1].retain == pytest.approx(said.hit_rate[said.labels == 1].mean())
    assert per_class(World().case, World().view_of, 1) == ()


def test_what_relearns_are_next_tokens() -> None:
    from tests.test_recording_inside import measured

    detail = {"steps": [0, 1, 4], "forget_accuracy": [0.1, 0.2, 0.3]}
    given = [measured("relearn", detail, detail, detail)]
    assert curves(given)[0].y_label == KINDS["relearn"].y_label == "accuracy on forget examples"
    (drawn,) = curves(given, "language-modeling")
    assert drawn.y_label == "next-token accuracy on forget examples"


@pytest.mark.parametrize("shown", [False, True])
def test_a_word_of_all_forget_texts_is_shown_only_if_texts_may_be(shown: bool) -> None:
    plan = AuditPlan.build(
        {
            "model": {"path": "/models/m"},
            "request": {"forget": "keyword:Aldana the baker"},
            "run": {"show_examples": shown},
        }
    )
    command = public_command(repeat_command(plan), plan)
    assert ("Aldana" in command) == shown
    assert ("--show-examples" in command) == shown
    assert f"--forget 'keyword:{'Aldana the baker' if shown else '…'}'" in command


def test_other_forget_sets_are_named_by_their_file_or_class() -> None:
    plan = AuditPlan.build({"model": {"path": "m"}, "request": {"forget": "/ids/class.txt"}})
    assert "--forget class.txt" in public_command(repeat_command(plan), plan)
    plan = AuditPlan.build({"model": {"path": "m"}, "request": {"forget": "class:cat"}})
    assert "--forget class:cat" in public_command(repeat_command(plan), plan)
