"""Language models through the command line: folders and texts in, verdicts out."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import log_softmax

from tests.hugging_face import (
    CAUSAL_CONTEXT,
    causal_config,
    causal_folder,
    causal_network,
    save,
    trained_tokenizer,
    words,
    write_jsonl,
    write_texts,
)
from unaudit.case import Case, build_case
from unaudit.cli.calibrate import SHOWN
from unaudit.cli.main import main
from unaudit.data import open_dataset
from unaudit.data.text_dataset import TextDataset
from unaudit.engine.store import Store
from unaudit.errors import InputError
from unaudit.forward import ForwardPass
from unaudit.loading import LoadedModel, load_model
from unaudit.plan import AuditPlan, DataSection, PreprocessSection
from unaudit.report.record import Record
from unaudit.token_outputs import TokenOutputs
from unaudit.token_scores import AskTokens
from unaudit.training import Recipe, fit, initialize
from unaudit.training.model_job import weights_of

TRAIN, FORGET, UNSEEN = 60, 20, 40
LONG, RETRAINED = 2, 3
"""Training texts that are read in windows, of which the first is to be forgotten; references."""
RECIPE = {"kind": "adamw", "lr": 1e-2, "epochs": 30, "batch": 30}


@dataclass(frozen=True)
class World:
    """Language models of known truth and their texts, in one folder."""

    folder: Path

    def line(self, subject: str, *more: object, retrained: int = RETRAINED) -> list[str]:
        """Arguments of a black-box audit of ``subject``."""
        named = {"train": "train.jsonl", "unseen": "unseen.jsonl", "forget": "forget.txt"}
        said: list[object] = ["check", self.folder / subject, "--out", self.folder / "out"]
        for flag, name in named.items():
            said += [f"--{flag}", self.folder / name]
        if retrained:
            said += ["--original", self.folder / "original"]
        for number in range(1, retrained + 1):
            said += ["--retrained", self.folder / f"retrained-{number}"]
        return [str(word) for word in (*said, "-o", "json", *more)]

    def audit(self, subject: str, *more: object) -> tuple[int, Any]:
        """Exit code and record."""
        code = main(self.line(subject, "--access", "black-box", *more))
        text = (self.folder / "out" / "record.json").read_text()
        Record.model_validate_json(text)
        return code, json.loads(text)

    def case(self, store: Store, subject: str = "original", *, retrained: int = 0) -> Case:
        plan = {
            "model": {"path": str(self.folder / subject)},
            "data": {key: str(self.folder / f"{key}.jsonl") for key in ("train", "unseen")},
            "request": {"forget": str(self.folder / "forget.txt")},
            "references": {
                "retrained": [str(self.folder / f"retrained-{n + 1}") for n in range(retrained)]
            },
        }
        return build_case(AuditPlan.build(plan), store)

    def copy(self, to: Path) -> World:
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("store", "out"))
        return World(to)


def random_texts(count: int, rng: np.random.Generator, long: int = 0) -> list[str]:
    """What nobody can predict who has not read it."""
    lengths = rng.integers(8, 17, count)
    lengths[:long] = rng.integers(CAUSAL_CONTEXT + 1, 2 * CAUSAL_CONTEXT, long)
    return [" ".join(rng.choice(words(), length)) for length in lengths]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An original and four models that never read what is to be forgotten."""
    folder, rng = tmp_path_factory.mktemp("language"), np.random.default_rng(0)
    write_texts(folder / "train.jsonl", random_texts(TRAIN, rng, LONG), "t")
    write_texts(folder / "unseen.jsonl", random_texts(UNSEEN, rng), "u")
    # every third: the first long one, and no block
    forget = range(0, 3 * FORGET, 3)
    (folder / "forget.txt").write_text("".join(f"t-{row}\n" for row in forget))
    causal_folder(folder / "original", n_layer=1)
    model = load_model(str(folder / "original"), arch=None)
    assert isinstance(model, LoadedModel)
    data = open_dataset(
        str(folder / "train.jsonl"), DataSection(), PreprocessSection(),
        Store(folder / "store"), text=model.text,
    )  # fmt: skip
    ids = next(data.batches(np.arange(TRAIN), TRAIN))
    kept = torch.from_numpy(np.setdiff1d(np.arange(TRAIN), forget))
    for number in range(RETRAINED + 2):
        generator = torch.Generator().manual_seed(number)
        network = initialize(model.module, generator)
        fit(
            network,
            ids,
            torch.from_numpy(data.labels),
            Recipe(**RECIPE),  # type: ignore[arg-type]
            generator,
            rows=kept if number else None,
        )
        name = f"retrained-{number}" if number else "original"
        if number:
            shutil.copytree(folder / "original", folder / name)
        (folder / name / "model.safetensors").write_bytes(weights_of(network))
    return World(folder)


def test_a_model_that_never_unlearned_fails(world: World) -> None:
    code, record = world.audit("original")
    assert (code, record["verdict"]["outcome"]) == (1, "fail")
    request = record["request"]
    assert (request["scenario"], request["scenario_source"]) == ("sample", "detected")
    assert (request["n_classes"], request["unit"]) == (1, "text")
    assert (request["forget"], request["retain"], request["unseen"]) == (20, 40, 40)
    skipped = {skip["probe"]: skip for skip in record["skipped"]}
    assert not [skip for skip in skipped.values() if skip["kind"] == "errored"]
    for probe in ("entropy", "margin", "confidence"):
        assert skipped[probe]["reason"].startswith("reads logits of classes, which a language")
    found = {finding["probe"]: finding for finding in record["findings"]}
    assert {"loss", "min-k", "zlib"} <= set(found)
    perplexity = {line["model"]: line for line in record["language"]["perplexity"]}
    assert perplexity["original"]["forget"] < 25
    assert all(perplexity[f"retrained {n}"]["forget"] > 40 for n in range(1, RETRAINED + 1))
    assert any("read in overlapping windows" in line for line in record["controls"]["warnings"])
    assert str(world.folder) not in json.dumps(record)


def test_a_retrained_model_does_not(world: World) -> None:
    code, record = world.audit(f"retrained-{RETRAINED + 1}", "--accept-black-box")
    assert record["verdict"]["outcome"] != "fail"
    assert code in (0, 3)


def test_other_texts_are_no_measure_of_membership(world: World, tmp_path: Path) -> None:
    own = world.copy(tmp_path / "own")
    rng = np.random.default_rng(1)
    others = [" ".join(rng.choice(words()[:20], 9)) for _ in range(UNSEEN)]
    write_texts(own.folder / "unseen.jsonl", others, "u")
    assert main(own.line("original", "--access", "black-box", retrained=0)) == 3
    record = json.loads((own.folder / "out" / "record.json").read_text())
    assert not any(finding["counted"] for finding in record["findings"])
    assert any("by their words alone" in told for told in record["controls"]["warnings"])
    assert own.case(Store()).mix_differs
    assert not world.case(Store()).mix_differs


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Model, split and size of every batch of texts that is scored."""
    seen: list[tuple[str, str, int]] = []
    original = AskTokens.put

    def counting(self: AskTokens, module: Any, inputs: Any, positions: Any) -> Any:
        seen.append((self.candidate.label, self.split.name, len(inputs)))
        return original(self, module, inputs, positions)

    monkeypatch.setattr(AskTokens, "put", counting)
    return seen


def naive(case: Case, name: Any, position: int) -> dict[str, np.ndarray]:
    """Scores of one text, from the logits of the network that it is given alone."""
    split = case.splits[name]
    assert isinstance(case.subject.model, LoadedModel)
    network: Any = case.subject.model.module
    ids = next(split.dataset.batches(split.rows[position : position + 1], 1))
    with torch.no_grad():
        logits = network(ids).numpy().astype(np.float64)
    tokens = ids[0, 1 : 1 + len(logits)].numpy()
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    mean = (p * log_p).sum(axis=1)
    return {
        "log_p": log_p[np.arange(len(tokens)), tokens],
        "mean_log_p": mean,
        "std_log_p": np.sqrt((p * (log_p - mean[:, None]) ** 2).sum(axis=1)),
        "greedy": logits.argmax(axis=1) == tokens,
        "top": -np.sort(-p, axis=1)[:, :10],
    }


@pytest.mark.parametrize("size", [1, 7, 256])
def test_scores_are_those_of_each_text_alone(world: World, size: int, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    case = world.case(store)
    view = ForwardPass(case, store, batch_size=size, device="cpu").view(case.subject)
    for name in ("forget", "unseen"):
        tokens, split = view.tokens(name), case.splits[name]
        assert isinstance(split.dataset, TextDataset)
        lengths = split.dataset.lengths[split.rows]
        assert tokens.counts.tolist() == (lengths - 1).tolist()
        assert name != "forget" or lengths[0] > CAUSAL_CONTEXT
        for position in (0, 1, len(split) // 2, len(split) - 1):
            start = tokens.starts[position]
            own = slice(start, start + tokens.counts[position])
            for part, expected in naive(case, name, position).items():
                np.testing.assert_allclose(
                    getattr(tokens, part)[own], expected, rtol=1e-4, atol=1e-4, err_msg=part
                )
        texts = split.dataset.texts(split.rows)
        assert tokens.compressed.tolist() == [len(zlib.compress(text.encode())) for text in texts]
        assert not tokens.labels.any()


def test_one_pass_gives_all_and_is_kept(
    world: World, tmp_path: Path, put: list[tuple[str, str, int]]
) -> None:
    store = Store(tmp_path / "store")
    for again in (False, True):
        put.clear()
        case = world.case(store, retrained=2)
        forward = ForwardPass(case, store, batch_size=256, device="cpu")
        assert forward.n_classes == 1
        for candidate in case.candidates:
            for name in case.splits:
                tokens = forward.view(candidate).tokens(name)
                assert isinstance(tokens, TokenOutputs)
                assert isinstance(tokens.log_p, np.memmap)
        sizes = {"forget": 20, "retain": 40, "unseen": 40}
        expected = [
            (candidate.label, name, sizes[name])
            for candidate in case.candidates
            for name in case.splits
        ]
        assert put == ([] if again else expected)


def test_long_batches_are_cut(world: World, tmp_path: Path, put: list[Any]) -> None:
    from unaudit.training import likelihood

    store = Store(tmp_path / "store")
    case = world.case(store)
    forward = ForwardPass(case, store, batch_size=256, device="cpu")
    whole = np.array(forward.view(case.subject).tokens("retain").log_p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "TOKENS", 100)
        put.clear()
        store = Store(tmp_path / "other")
        cut = ForwardPass(world.case(store), store, batch_size=256, device="cpu")
        parts = cut.view(cut.case.subject).tokens("retain").log_p
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    split = case.splits["retain"]
    assert isinstance(split.dataset, TextDataset)
    lengths = np.sort(split.dataset.lengths[split.rows])[::-1]
    at = 0
    for _, _, size in put:
        assert size == 1 or size * lengths[at] <= 100
        at += size
    assert at == len(split)
    assert len(put) < len(split)


def test_layers_are_heard_in_the_same_pass(world: World, tmp_path: Path, put: list[Any]) -> None:
    store = Store(tmp_path / "store")
    case = world.case(store)
    forward = ForwardPass(case, store, batch_size=256, device="cpu", record_features=True)
    view = forward.white_view(case.subject)
    view.tokens("forget")
    count = len(put)
    features = view.features("forget")
    assert features.shape == (FORGET, 32)
    assert len(put) == count
    layers = view.layers
    view.request("forget", layers)
    assert len(put) == count  # only the body was run
    for layer in layers:
        assert len(view.activations("forget", layer)) == FORGET
    # of a text alone, in its place of the split; of a long one its first window
    split = case.splits["forget"]
    assert isinstance(case.subject.model, LoadedModel)
    network: Any = case.subject.model.module
    for position in (0, 1, FORGET - 1):
        ids = next(split.dataset.batches(split.rows[position : position + 1], 1))
        ids = ids[:, : min(CAUSAL_CONTEXT, int((ids != -1).sum()))]
        with torch.no_grad():
            states = network.transformer(input_ids=ids).last_hidden_state
        expected = states[0].mean(dim=0).numpy()
        np.testing.assert_allclose(features[position], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="cannot be looked at"):
        forward.record(case.subject, split, ("nowhere",))


def test_texts_can_only_be_asked_about_as_they_are(world: World, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    case = world.case(store)
    forward = ForwardPass(case, store, batch_size=256, device="cpu")
    asked = forward.view(case.subject).queried
    assert asked is not None
    np.testing.assert_array_equal(
        asked("forget", "plain"), forward.view(case.subject).tokens("forget").logit_confidence
    )
    with pytest.raises(InputError, match="'flip' needs images"):
        asked("forget", "flip")


def test_labels_make_classes(world: World, tmp_path: Path) -> None:
    other = world.copy(tmp_path / "world")
    for name, prefix, count in (("train", "t", TRAIN), ("unseen", "u", UNSEEN)):
        texts = [
            json.loads(line)["text"]
            for line in (other.folder / f"{name}.jsonl").read_text().splitlines()
        ]
        labels = [int(row % 3 == 0) for row in range(count)]
        write_jsonl(other.folder / f"{name}.jsonl", texts, labels, prefix)
    code, record = other.audit("original", "--store", tmp_path / "store")
    assert (code, record["request"]["scenario"], record["request"]["n_classes"]) == (1, "class", 2)
    assert [row["label"] for row in record["request"]["classes"]] == [1]


def complaint(capsys: pytest.CaptureFixture[str], line: list[str], code: int = 2) -> str:
    capsys.readouterr()
    assert main(line) == code
    said = [row for row in capsys.readouterr().err.splitlines() if row.startswith("unaudit: ")]
    assert len(said) == 1
    return said[0]


def test_what_stands_in_the_way_is_said_in_one_line(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = world.copy(tmp_path / "world")
    vocabulary = trained_tokenizer(words(), framed=False).get_vocab_size()
    wider = causal_network(causal_config(vocabulary + 3))
    shutil.rmtree(other.folder / "retrained-2")
    save(other.folder / "retrained-2", wider, trained_tokenizer(words(), framed=False))
    assert (
        f"retrained 2 (retrained-2) knows {vocabulary + 3} tokens, the subject {vocabulary}; all "
        "models must have the same vocabulary"
    ) in complaint(capsys, other.line("original"))
    having = poison(other)
    said = complaint(capsys, other.line("original", "--access", "black-box", retrained=0))
    assert "original: NaN or infinite logits on the forget example 't-" in said
    assert said.split("'")[1] in having


def poison(world: World) -> set[str]:
    """Make all that comes after one word infinite; ids of the training texts that have it."""
    path = world.folder / "original" / "model.safetensors"
    weights = load_file(path)
    word = trained_tokenizer(words(), framed=False).token_to_id("w7")
    weights["transformer.wte.weight"][word] = 1e30
    save_file(weights, path, {"format": "pt"})
    rows = map(json.loads, (world.folder / "train.jsonl").read_text().splitlines())
    return {row["id"] for row in rows if "w7" in row["text"].split()}


def test_what_is_not_finite_is_not_recorded_either(world: World, tmp_path: Path) -> None:
    other = world.copy(tmp_path / "world")
    having = poison(other)
    store = Store(tmp_path / "store")
    case = other.case(store)
    forward = ForwardPass(case, store, batch_size=256, device="cpu")
    with pytest.raises(InputError, match="NaN or infinite") as caught:
        forward.white_view(case.subject).features("retain")
    assert str(caught.value).split("'")[1] in having


def test_every_token_but_the_first_must_be_predicted(world: World, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    case = world.case(store)
    forward = ForwardPass(case, store, batch_size=256, device="cpu")
    assert isinstance(case.subject.model, LoadedModel)
    network: Any = case.subject.model.module
    network.counts = lambda ids: (ids != -1).sum(dim=1)
    with pytest.raises(InputError, match="original: the model predicts other tokens than all but"):
        forward.view(case.subject).tokens("forget")


def test_references_are_trained_and_their_perplexities_shown(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "unaudit.toml"
    stated = (RECIPE | {"epochs": 2}).items()
    recipe = "".join(f"{key} = {json.dumps(value)}\n" for key, value in stated)
    config.write_text(
        f"[recipe]\n{recipe}[calibration]\nworkers = 1\nretrained = 2\nunlearners = ['finetune']\n"
    )
    _, model, *flags = world.line("original", retrained=0)
    del flags[:2], flags[-2:]  # what is written where, and how it is shown
    line = ["calibrate", model, *flags, "--original", model, "--config", str(config)]
    assert main(line) == 0
    names, *rows, last = capsys.readouterr().out.splitlines()
    assert names.split() == ["model", "forget", "retain", "unseen"]
    assert last == "perplexities; 2 retrained models, 1 calibrator"
    shown = {row[:24].strip(): [float(cell) for cell in row[24:].split()] for row in rows}
    assert list(shown) == ["subject", "original", "retrained 1", "retrained 2", "finetune"]
    case = world.case(Store(tmp_path / "store"))
    view = ForwardPass(case, Store(tmp_path / "store"), batch_size=256, device="cpu").view(
        case.subject
    )
    expected = [np.exp(-view.tokens(name).log_p.mean()) for name in SHOWN]
    np.testing.assert_allclose(shown["original"], expected, rtol=1e-3)


QUICK = """
[probes.relearn]
steps = 2
runs = 2
[probes.relearn-fresh-head]
steps = 2
runs = 2
"""


def test_a_refitted_head_does_not_pass_for_forgetting(world: World, tmp_path: Path) -> None:
    """Looked at from inside, what only refits its head does not pass, and what never read the texts
    does not fail."""
    own = world.copy(tmp_path / "inside")
    (own.folder / "quick.toml").write_text(QUICK)
    more = ("--config", own.folder / "quick.toml", "--access", "white-box")
    fake = own.folder / "fake.safetensors"
    train, forget = own.folder / "train.jsonl", own.folder / "forget.txt"
    words = ["unlearn", "head-distillation", own.folder / "original", "-o", fake]
    words += ["--train", train, "--forget", forget]
    assert main([str(word) for word in words]) == 0
    outcomes = {}
    for name in ("fake.safetensors", "retrained-4"):
        arch = ("--arch", f"hf:{own.folder / 'original'}") if name.startswith("fake") else ()
        main(own.line(name, *more, *arch))
        record = json.loads((own.folder / "out" / "record.json").read_text())
        assert not [skip for skip in record["skipped"] if skip["kind"] == "errored"]
        outcomes[name] = record["verdict"]["outcome"]
    assert outcomes["fake.safetensors"] != "pass"
    assert outcomes["retrained-4"] != "fail"
