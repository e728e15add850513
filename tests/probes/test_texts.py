"""Probes of language models against plain loops, and what they say where nothing was learned."""

from __future__ import annotations

import math
import zlib
from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from attacks.black_box._attackers import fit_logistic
from attacks.black_box._texts import TextAttack, fewest, lowest
from attacks.black_box.accuracy import Accuracy
from attacks.black_box.canary import CanaryExposure
from attacks.black_box.extraction import Extraction
from attacks.black_box.loss import LossAttack
from attacks.black_box.min_k import MinK
from attacks.black_box.min_k_plus_plus import MinKPlusPlus
from attacks.black_box.perplexity import Perplexity
from attacks.black_box.top_entropy import TopEntropyAttack
from attacks.black_box.zlib_ratio import ZlibRatio
from unaudit import views
from unaudit.errors import UsageError
from unaudit.evidence import BlackBoxProbe, FloatArray, IntArray, Scores, Skipped, SplitName
from unaudit.token_outputs import MOST_LOSS, TokenOutputs
from unaudit.views import BlackBox

from .language_worlds import VOCABULARY, Texts, make_language_world, make_view, token_outputs
from .worlds import auc, measure, without

PLAIN: tuple[TextAttack, ...] = (ZlibRatio(), MinK(), MinKPlusPlus())
every_attack = pytest.mark.parametrize("attack", PLAIN, ids=lambda probe: probe.card.name)


def run(probe: BlackBoxProbe, view: BlackBox) -> Scores:
    evidence = probe(view, np.random.default_rng(0))
    assert isinstance(evidence, Scores)
    return evidence


def predictions(logits: FloatArray) -> list[list[float]]:
    """Log-probabilities of every prediction, by plain Python."""
    return [
        [value - math.log(sum(math.exp(other) for other in row)) for value in row]
        for row in logits.tolist()
    ]


def some_texts(n: int = 40, seed: int = 0) -> tuple[Texts, FloatArray]:
    rng = np.random.default_rng(seed)
    texts = Texts(np.zeros(n, np.int64), rng)
    return texts, texts.logits(np.zeros(n), rng)


def by_text(texts: Texts, values: list[float]) -> list[list[float]]:
    """Values of tokens, one list per text."""
    left = iter(values)
    return [[next(left) for _ in range(count)] for count in texts.counts.tolist()]


def log_likelihoods(texts: Texts, logits: FloatArray) -> list[list[float]]:
    rows = zip(predictions(logits), texts.targets.tolist(), strict=True)
    return by_text(texts, [row[target] for row, target in rows])


def test_zlib_is_a_plain_loop() -> None:
    texts, logits = some_texts()
    tokens = texts.outputs(logits)
    per_text = log_likelihoods(texts, logits)
    pairs = list(zip(per_text, texts.compressed.tolist(), strict=True))
    sums = [sum(own) / size for own, size in pairs]
    means = [sum(own) / len(own) / size for own, size in pairs]
    np.testing.assert_allclose(ZlibRatio().score(tokens), sums, rtol=1e-5)
    np.testing.assert_allclose(ZlibRatio(likelihood="mean").score(tokens), means, rtol=1e-5)


@pytest.mark.parametrize("percent", [5.0, 20.0, 30.0, 100.0])
def test_min_k_is_a_plain_loop(percent: float) -> None:
    texts, logits = some_texts()
    found = MinK(k=percent).score(texts.outputs(logits))
    for score, own in zip(found, log_likelihoods(texts, logits), strict=True):
        size = max(1, int(len(own) * percent) // 100)
        assert score == pytest.approx(sum(sorted(own)[:size]) / size, rel=1e-5)


@pytest.mark.parametrize("percent", [20.0, 100.0])
def test_min_k_plus_plus_is_a_plain_loop(percent: float) -> None:
    texts, logits = some_texts()
    standard = []
    for row, target in zip(predictions(logits), texts.targets.tolist(), strict=True):
        mean = sum(math.exp(value) * value for value in row)
        variance = sum(math.exp(value) * value**2 for value in row) - mean**2
        standard.append((row[target] - mean) / math.sqrt(variance))
    found = MinKPlusPlus(k=percent).score(texts.outputs(logits))
    for score, own in zip(found, by_text(texts, standard), strict=True):
        size = max(1, int(len(own) * percent) // 100)
        assert score == pytest.approx(sum(sorted(own)[:size]) / size, rel=1e-4)


def test_min_k_plus_plus_of_even_and_of_certain_predictions() -> None:
    """Both have no spread; the even one expected everything, the certain one nothing else."""
    texts = Texts(np.zeros(30, np.int64), np.random.default_rng(0), least=5)
    tokens = texts.outputs(np.zeros((texts.total, VOCABULARY)))
    rounded = np.nextafter(tokens.mean_log_p, np.float32(0.0))
    for mean in (tokens.mean_log_p, rounded):
        even = MinKPlusPlus().score(TokenOutputs(**{**vars(tokens), "mean_log_p": mean}))
        np.testing.assert_allclose(even, 0.0, atol=0.05)
    certain = 60.0 * np.eye(VOCABULARY)
    right = MinKPlusPlus().score(texts.outputs(certain[texts.targets]))
    np.testing.assert_allclose(right, 0.0, atol=1e-9)
    wrong = MinKPlusPlus().score(texts.outputs(certain[(texts.targets + 1) % VOCABULARY]))
    assert np.isfinite(wrong).all()
    assert (wrong < -1e5).all()


@pytest.mark.parametrize("percent", [0.7, 3.0, 7.0, 10.0, 29.0, 30.0, 57.0, 70.0, 100.0])
def test_whole_tokens_of_a_percentage_are_not_lost_to_rounding(percent: float) -> None:
    counts = np.arange(1, 400)
    exact = [count * round(10 * percent) // 1000 for count in counts.tolist()]
    np.testing.assert_array_equal(lowest(counts, percent), exact)
    assert fewest(percent) == 1 + int(np.argmax(np.array(exact) > 0))


def test_perplexity_is_a_plain_loop() -> None:
    world = make_language_world("sample", retrained=1)
    evidence = run(Perplexity(), world.original)
    assert evidence.statistic == "mean"
    shown: tuple[SplitName, ...] = ("forget", "retain", "unseen")
    assert set(evidence.detail["perplexity"]) == set(shown)
    for split in shown:
        tokens = world.original.tokens(split)
        log_p, per_text, start = tokens.log_p.tolist(), [], 0
        for count in tokens.counts.tolist():
            per_text.append(sum(log_p[start : start + count]) / count)
            start += count
        assert evidence.detail["perplexity"][split] == pytest.approx(
            math.exp(-sum(log_p) / len(log_p))
        )
        median = sorted(math.exp(-own) for own in per_text)[len(per_text) // 2 - 1 :][:2]
        found = evidence.detail["median_perplexity"][split]
        assert min(median) - 1e-9 <= found <= max(median) + 1e-9
        if split == "forget":
            np.testing.assert_allclose(evidence.forget, per_text, rtol=1e-12)


def test_perplexity_of_a_topic_tells_kept_from_forgotten_ones() -> None:
    view = make_language_world("class", retrained=1).original
    detail = run(Perplexity(), view).detail["perplexity"]
    unseen = view.tokens("unseen")
    assert set(detail) == {"forget", "retain", "unseen", "unseen_forget_classes"}
    of_token = np.repeat(unseen.labels, unseen.counts)
    for name, own in (("unseen", of_token != 0), ("unseen_forget_classes", of_token == 0)):
        assert detail[name] == pytest.approx(np.exp(-np.mean(unseen.log_p[own], dtype=float)))


def test_a_perplexity_beyond_all_numbers_is_one() -> None:
    texts = Texts(np.zeros(5, np.int64), np.random.default_rng(0))
    wrong = -1e4 * np.eye(VOCABULARY)[texts.targets]
    detail = run(Perplexity(), make_view({"forget": texts.outputs(wrong)})).detail
    assert detail["perplexity"]["forget"] == math.exp(MOST_LOSS)
    assert detail["median_perplexity"]["forget"] == math.exp(MOST_LOSS)


def test_loss_and_accuracy_are_per_token() -> None:
    view = make_language_world("sample", retrained=1).original
    tokens = view.tokens("forget")
    ends = np.cumsum(tokens.counts)
    spans = list(zip(ends - tokens.counts, ends, strict=True))
    loss, right = run(LossAttack(), view), run(Accuracy(), view)
    means = [np.mean(tokens.log_p[start:end], dtype=float) for start, end in spans]
    np.testing.assert_allclose(loss.forget, means, rtol=1e-12)
    assert loss.statistic == "auc"
    np.testing.assert_allclose(right.forget, [tokens.greedy[a:b].mean() for a, b in spans])
    assert right.detail["unlearning_accuracy"] == pytest.approx(1 - right.forget.mean())


@pytest.mark.parametrize("normalized", [True, False])
def test_top_entropy_is_a_plain_loop(normalized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, logits = some_texts()
    view = make_view({"forget": texts.outputs(logits)})
    entropies = []
    for row in predictions(logits):
        top = sorted((math.exp(value) for value in row), reverse=True)[:10]
        whole = sum(top) if normalized else 1.0
        entropies.append(-sum(p / whole * math.log(p / whole) for p in top))
    expected = [sum(own) / len(own) for own in by_text(texts, entropies)]
    probe = TopEntropyAttack(normalized=normalized)
    np.testing.assert_allclose(probe.signal(view, "forget"), expected, rtol=1e-5)
    whole_at_once = probe.signal(view, "forget")
    monkeypatch.setattr(views, "CHUNK_ELEMENTS", 70)
    np.testing.assert_array_equal(probe.signal(view, "forget"), whole_at_once)


def test_an_even_prediction_has_the_largest_top_entropy_only_if_normalized() -> None:
    """Ten of 50,000 tokens: as they are, they have next to no entropy."""
    top = np.full((8, 10), 1 / 50_000, np.float32)
    made = some_texts(1)[0]
    made.counts, made.total, made.targets = np.array([8]), 8, np.zeros(8, np.int64)
    tokens = made.outputs(np.zeros((8, 4)))
    tokens = TokenOutputs(**{**vars(tokens), "top": top})
    view = make_view({"forget": tokens})
    largest = TopEntropyAttack().signal(view, "forget")[0]
    assert largest == pytest.approx(math.log(10))
    assert TopEntropyAttack(normalized=False).signal(view, "forget")[0] < 0.003


@pytest.mark.parametrize("attack", ["svm", "logistic"])
def test_top_entropy_agrees_with_a_naive_attack(attack: str) -> None:
    """Fitted on all of retain and as many unseen, without cross-fitting."""
    view = make_language_world("sample", retrained=1).original
    probe = TopEntropyAttack(attack=attack)  # type: ignore[arg-type]
    signals = {split: probe.signal(view, split) for split in view.splits}
    kept = np.random.default_rng(1).choice(signals["unseen"], len(signals["retain"]), replace=False)
    both = np.concatenate([signals["retain"], kept])[:, None]
    member = np.repeat([1, 0], len(kept))
    if attack == "svm":
        naive = SVC(C=3, gamma="auto").fit(both, member).predict(signals["forget"][:, None])
    else:
        naive = LogisticRegression(C=1e6).fit(both, member).predict(signals["forget"][:, None])
    evidence = run(probe, view)
    assert evidence.detail["forget_called_members"] == pytest.approx(naive.mean(), abs=0.08)
    assert evidence.detail["attack_accuracy"] > 0.6


def test_the_two_attackers_are_not_the_same() -> None:
    view = make_language_world("sample", retrained=1).original
    svm, logistic = (TopEntropyAttack(attack=name) for name in ("svm", "logistic"))
    assert (run(svm, view).forget != run(logistic, view).forget).any()
    assert logistic.attacker(view.n_classes) is fit_logistic


def none_learned(seed: int) -> BlackBox:
    """A model of noise, and texts of unlike length that it never saw."""
    rng = np.random.default_rng(seed)
    sizes: dict[SplitName, int] = {"forget": 40, "retain": 60, "unseen": 60}
    tokens = {}
    for split, size in sizes.items():
        texts = Texts(np.zeros(size, np.int64), rng)
        tokens[split] = texts.outputs(texts.logits(np.zeros(size), rng))
    return make_view(tokens)


@pytest.mark.parametrize(
    "probe",
    [
        *PLAIN,
        LossAttack(max_fit=10),
        Extraction(least_suffix=2),
        TopEntropyAttack(attack="logistic"),
    ],
    ids=lambda probe: probe.card.name,
)
def test_the_auc_is_one_half_for_a_model_that_saw_neither(probe: BlackBoxProbe) -> None:
    areas = []
    for seed in range(60):
        evidence = run(probe, none_learned(seed))
        assert evidence.unseen is not None
        areas.append(auc(evidence.forget, evidence.unseen))
    assert np.mean(areas) == pytest.approx(0.5, abs=4 * np.std(areas) / math.sqrt(len(areas)))
    assert np.std(areas) < 0.1


def of_length(counts: IntArray, rng: np.random.Generator) -> TokenOutputs:
    """Texts of words that nobody knows, with their true size after zlib, and equally likely."""
    sizes = []
    for count in counts.tolist():
        words = (f"w{word}" for word in rng.integers(0, 100_000, count))
        sizes.append(len(zlib.compress(" ".join(words).encode())))
    total = int(counts.sum())
    made = token_outputs(np.zeros((total, 2)), np.zeros(total, np.int64), counts)
    log_p = -rng.exponential(4.0, total).astype(np.float32)
    return TokenOutputs(**{**vars(made), "log_p": log_p, "compressed": np.array(sizes)})


def test_the_published_zlib_ratio_takes_long_texts_for_members() -> None:
    """Why it is the sum: of a model that saw neither, the longer ones look seen by the mean."""
    rng = np.random.default_rng(0)
    view = make_view(
        {
            "forget": of_length(rng.integers(600, 800, 100), rng),
            "unseen": of_length(rng.integers(400, 600, 100), rng),
        }
    )
    assert measure(run(ZlibRatio(), view)) == pytest.approx(0.5, abs=0.12)
    assert measure(run(ZlibRatio(likelihood="mean"), view)) > 0.95


@every_attack
def test_members_are_told_from_non_members(attack: TextAttack) -> None:
    world = make_language_world("sample", retrained=1)
    assert measure(run(attack, world.original)) > 0.65
    assert measure(run(attack, world.retrained[0])) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("attack", [MinK(), MinKPlusPlus(), MinK(k=10.0)], ids=repr)
def test_texts_too_short_are_left_out(attack: MinK | MinKPlusPlus) -> None:
    view = make_language_world("partial-class", retrained=1).original
    evidence = run(attack, view)
    least = math.ceil(100 / attack.k)
    forget, unseen, retain = (view.tokens(split) for split in ("forget", "unseen", "retain"))
    assert (forget.counts < least).any()
    np.testing.assert_array_equal(evidence.rows["forget"], np.flatnonzero(forget.counts >= least))
    for split, own in (("unseen", unseen), ("retain", retain)):
        rows = np.flatnonzero((own.counts >= least) & (own.labels == 0))
        np.testing.assert_array_equal(evidence.rows[split], rows)  # type: ignore[index]
    assert evidence.detail["forget_too_short"] == int((forget.counts < least).sum())
    np.testing.assert_array_equal(evidence.forget, attack.score(forget)[evidence.rows["forget"]])


def short_view(forget: int, unseen: int) -> BlackBox:
    """So many of 30 forget and 60 unseen texts have twelve tokens, the others three."""
    tokens = {}
    for split, size, long in (("forget", 30, forget), ("unseen", 60, unseen)):
        rng = np.random.default_rng(size)
        texts = Texts(np.zeros(size, np.int64), rng)
        texts.counts = np.where(np.arange(size) < long, 11, 2)
        texts.total = int(texts.counts.sum())
        texts.targets = rng.integers(0, VOCABULARY, texts.total)
        tokens[split] = texts.outputs(rng.normal(size=(texts.total, VOCABULARY)))
    return make_view(tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (
            short_view(30, 19),
            "needs at least 20 unseen texts of the forget classes with at least 6 tokens, found 19",
        ),
        (short_view(0, 60), "needs at least 1 forget text with at least 6 tokens, found 0"),
    ],
    ids=["unseen", "forget"],
)
def test_too_few_long_texts_are_a_skip(view: BlackBox, reason: str) -> None:
    for probe in (MinK(), MinKPlusPlus()):
        assert probe(view, np.random.default_rng(0)) == Skipped(reason)
    assert isinstance(ZlibRatio()(view, np.random.default_rng(0)), Scores)


def test_all_texts_long_enough_are_scored_whole() -> None:
    evidence = run(MinK(), short_view(30, 60))
    assert not evidence.rows
    assert "forget_too_short" not in evidence.detail


def test_perplexity_and_extraction_need_no_unseen_texts() -> None:
    view = make_language_world("sample", retrained=1).original
    for probe in (Perplexity(), Extraction()):
        alone = run(probe, without(without(view, "unseen"), "retain"))
        assert alone.unseen is None
        np.testing.assert_array_equal(alone.forget, run(probe, view).forget)


def test_exposure_of_planted_texts() -> None:
    """Planted and held-out canaries by the log-probability per token, as for classifiers by that
    of the class."""
    world = make_language_world("sample", retrained=1)
    evidence = run(CanaryExposure(), world.original)
    assert measure(evidence) > 0.65
    planted = world.original.marks.canaries["forget"]
    expected = world.original.tokens("forget").log_confidence[planted]
    assert (np.argsort(evidence.forget) == np.argsort(expected)).all()
    hit_rate = world.original.tokens("forget").hit_rate[planted].mean()
    assert evidence.detail["forget_accuracy"] == pytest.approx(hit_rate)


@pytest.mark.parametrize(
    ("probe", "parameters", "message"),
    [
        (MinK, {"k": 0.0}, "probes.min-k.k must be a number above 0 and at most 100"),
        (MinK, {"k": 101}, "probes.min-k.k must be a number above 0 and at most 100"),
        (MinK, {"k": math.nan}, "probes.min-k.k must be a number"),
        (MinKPlusPlus, {"k": True}, "probes.min-k-plus-plus.k must be a number"),
        (ZlibRatio, {"likelihood": "max"}, "probes.zlib.likelihood must be 'sum' or 'mean'"),
        (TopEntropyAttack, {"attack": "forest"}, "probes.top-entropy.attack must be 'svm' or"),
        (TopEntropyAttack, {"normalized": 1}, "probes.top-entropy.normalized must be true or"),
        (TopEntropyAttack, {"penalty": -1}, "probes.top-entropy.penalty must be a finite"),
    ],
)
def test_refuses_parameters(
    probe: type[BlackBoxProbe], parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        partial(probe, **parameters)()
