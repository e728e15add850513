"""What IDI costs, against a forward pass and against critics that run the network each step.

    python bench/idi.py [--examples 50000] [--compared 400] [--data DIR] [--epochs 1]

Printed are, in one process, one after the other:

forward   one plain pass over all training examples, reading and preprocessing included
probe     the probe with its defaults; features are at hand, as the audit's own pass records them
naive     a plain implementation of IDI §4.1 at the same layers: critics from fresh weights, by the
          same optimizer on the same batches until the same criterion, but at each step the frozen
          network runs from the inputs to the layer; at the features too
cached    the same with activations from the cache: what the cache alone is worth

``naive``, ``cached`` and the probe beside them use ``--compared`` examples. The network is a small
ResNet, trained for ``--epochs`` on noisy images of a pattern per class, or on ``train.parquet``
(Hugging Face layout) of ``--data``. Values agree if they are within two standard errors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from _worlds import FORGET_CLASS, MEAN, STD, class_patterns, small_resnet, write_images
from torch import Tensor, nn

from attacks.white_box._chosen import Chosen
from attacks.white_box._critics import Critic, Pool, train
from attacks.white_box._mutual_information import Design, Layer, curve_of
from attacks.white_box.idi import InformationDifference
from unaudit.case import Candidate, Case
from unaudit.data import open_dataset
from unaudit.engine.store import Store
from unaudit.evidence import FloatArray, IntArray, Scalar, SplitName
from unaudit.forward import ForwardPass
from unaudit.loading import LoadedModel, Provenance
from unaudit.plan import DataSection, PreprocessSection
from unaudit.splits import Split
from unaudit.training import Recipe, fit, initialize
from unaudit.white_box import FEATURES, WhiteBox

BATCH = 512
Answer = TypeVar("Answer")
SPLITS: tuple[SplitName, SplitName] = ("forget", "retain")


def main() -> None:
    options = parse()
    with TemporaryDirectory() as folder:
        view = make_view(Path(folder), options)
        forward = timed(lambda: plain_forward(view))[1]
        for split in SPLITS:
            view.request(split, [FEATURES])
        print(f"{options.examples} examples; forward pass {forward:.1f} s", flush=True)
        whole, spent = timed(lambda: ask(InformationDifference(), view))
        passes = f"{spent / forward:.1f} forward passes"
        print(f"probe            {spent:7.1f} s  {shown(whole)}  = {passes}", flush=True)
        small = InformationDifference(max_examples=options.compared)
        own, fast = timed(lambda: ask(small, view))
        print(f"with {options.compared} examples for the critics:")
        print(f"probe            {fast:7.1f} s  {shown(own)}", flush=True)
        rng = np.random.default_rng(0)
        chosen = small.choose(view, rng)
        assert isinstance(chosen, Chosen)
        design = small.design(chosen, view.device, rng)
        names = own.detail["layers"]
        cached, _ = compare("cached", partial(by_training, view, chosen, design, names, False))
        naive, slow = compare("naive", partial(by_training, view, chosen, design, names, True))
        noise = float(np.hypot(own.stderr or 0.0, naive.stderr or 0.0))
        print(f"naive / probe    {slow / fast:7.1f}")
        print(f"cached = naive   {abs(cached.value - naive.value) < 0.1 * noise}")
        print(f"probe = naive    {abs(own.value - naive.value) <= 2 * noise}")


def compare(name: str, call: Callable[[], Scalar]) -> tuple[Scalar, float]:
    found, seconds = timed(call)
    print(f"{name:16s} {seconds:7.1f} s  {shown(found)}", flush=True)
    return found, seconds


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--compared", type=int, default=400)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    return parser.parse_args()


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    begin = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - begin


def shown(answer: Scalar) -> str:
    curve = " ".join(f"{value:.4f}" for value in answer.detail["mi"])
    return f"{answer.value:.4f} ± {answer.stderr:.4f} ({curve})"


def ask(probe: InformationDifference, view: WhiteBox) -> Scalar:
    answer = probe(view, np.random.default_rng(0))
    assert isinstance(answer, Scalar)
    return answer


def plain_forward(view: WhiteBox) -> None:
    network = view.private_copy()
    with torch.inference_mode():
        for split in SPLITS:
            for inputs in view.inputs(split):
                network(inputs)


class Live(Pool):
    """Activations that are computed anew each time they are asked for."""

    def __init__(self, view: WhiteBox, chosen: Chosen, layer: str) -> None:
        self.view, self.layer = view, layer
        self.rows = [(split, rows) for split, rows in chosen.rows.items()]
        self.starts = np.cumsum([0, *(len(rows) for _, rows in self.rows)])
        self.device = view.device
        # read and preprocessed once: only the network is run again
        self.inputs = torch.cat(
            [torch.cat(list(view.inputs(split, rows))) for split, rows in self.rows]
        )
        network = view.private_copy()
        assert isinstance(network, nn.Sequential)
        names = [name for name, _ in network.named_children()]
        end = names.index(view.head.name) if layer == FEATURES else names.index(layer) + 1
        self.prefix = network[:end]

    def batch(self, rows: IntArray) -> Tensor:
        with torch.no_grad():
            activations: Tensor = self.prefix(self.inputs[torch.from_numpy(rows)])
        return activations


def by_training(
    view: WhiteBox, chosen: Chosen, design: Design, names: list[str], live: bool
) -> Scalar:
    """Every layer by critics from fresh weights."""
    layers = []
    width = view.head.weight.shape[1]
    for name in names:
        pool = Live(view, chosen, name) if live else from_cache(view, chosen, name)
        critic = Critic(view.tail(name), width, len(design.prior))
        layers.append(one_layer(critic, pool, design))
    curve = curve_of(layers, design)
    return Scalar(curve.total, curve.total_stderr, {"mi": curve.mi.tolist()})


def from_cache(view: WhiteBox, chosen: Chosen, layer: str) -> Pool:
    parts = [view.activations(split, layer, rows) for split, rows in chosen.rows.items()]
    return Pool(parts, view.device)


def one_layer(critic: Critic, pool: Pool, design: Design) -> Layer:
    found = np.empty((len(design.partitions), len(design.labels)))
    held_out: list[FloatArray] = []
    for repeat, row in enumerate(design.partitions):
        for fold, part in enumerate(row):
            seed = 100 * repeat + fold
            critic.restart(torch.Generator().manual_seed(seed), pool.scale(part.fit))
            best = train(
                critic, pool, design.labels, part.fit, part.stop, design.prior, design.training,
                np.random.default_rng(seed), frozen_statistics=False,
            )  # fmt: skip
            critic.load(best.state)
            rows = part.evaluate
            found[repeat, rows] = critic.losses(pool, rows, design.labels, design.prior)
            held_out.append(np.array(best.held_out))
    mean = float(np.mean(held_out))
    return Layer(found, train=mean, held_out=mean, epochs=0.0, warm=0.0, converged=True)


def make_view(folder: Path, options: argparse.Namespace) -> WhiteBox:
    """A network trained on all examples, one class of which is to be forgotten."""
    store = Store(folder / "store")
    if options.data is None:
        rng = np.random.default_rng(0)
        drawn = rng.integers(0, 10, options.examples)
        write_images(folder / "train.npz", drawn, class_patterns(rng), rng, shifted=True)
        source, settings = folder / "train.npz", DataSection()
    else:
        source, settings = options.data / "train.parquet", DataSection(input_column="img")
    dataset = open_dataset(str(source), settings, PreprocessSection(mean=MEAN, std=STD), store)
    rows = np.arange(min(len(dataset), options.examples))
    labels = dataset.labels[rows]
    network = initialize(small_resnet(), torch.Generator().manual_seed(0))
    inputs = torch.cat(list(dataset.batches(rows, 1024)))
    recipe = Recipe(lr=0.1, epochs=options.epochs, batch=128)
    fit(network, inputs, torch.from_numpy(labels), recipe, torch.Generator().manual_seed(1))
    provenance = Provenance("net", sha256="", size_bytes=0, format="none", tier="T0")
    candidate = Candidate("subject", "subject", LoadedModel(network, provenance, "net"))
    case = Case(
        subject=candidate,
        original=None,
        retrained=(),
        splits={
            "forget": Split("forget", dataset, rows[labels == FORGET_CLASS]),
            "retain": Split("retain", dataset, rows[labels != FORGET_CLASS]),
        },
        scenario="class",
        scenario_source="stated",
        id_type="index",
        ids_hmac="",
        copies=None,
        mix_differs=False,
    )
    forward = ForwardPass(case, store, batch_size=BATCH, device="cpu", record_features=True)
    return forward.white_view(candidate)


if __name__ == "__main__":
    main()
