"""A training step of a language model, all logits at once against a slice of them at a time.

    python bench/token_losses.py [--words 50257] [--tokens 256] [--batch 8] [--hidden 64]
                                 [--repeats 3]

The network is as small as one of that vocabulary can be, an embedding that is the head as well and
two layers between: with a larger one the same is saved, and is a smaller part of the whole. Every
step runs in a process of its own, for the peak of its memory; both kinds run in turn, so that a
busy machine slows both. Times and peaks are medians over the repeats, of peaks what exceeds the
process before the step; losses and gradients must agree.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unaudit.training.in_parts import batch_loss

STEPS = 2
"""Of which the last is timed."""
WAYS = ("whole", "in parts")


class Network(nn.Module):
    """Predicts a token from the two before it."""

    def __init__(self, words: int, hidden: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, hidden)
        self.mix = nn.Linear(2 * hidden, 4 * hidden)
        self.back = nn.Linear(4 * hidden, hidden)
        self.head = nn.Linear(hidden, words, bias=False)
        self.head.weight = self.token_embedding.weight

    def hidden(self, ids: Tensor) -> Tensor:
        seen = self.token_embedding(ids)
        before = nn.functional.pad(seen[:, :-1], (0, 0, 1, 0))
        states: Tensor = self.back(torch.tanh(self.mix(torch.cat([before, seen], dim=2))))
        return states[:, :-1].flatten(end_dim=1)

    def logits_of(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden)
        return logits

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits_of(self.hidden(ids))

    def targets(self, ids: Tensor) -> Tensor:
        return ids[:, 1:].flatten()


class Found(NamedTuple):
    seconds: float
    mebibytes: float
    loss: float
    slope: float
    """Norm of the gradient."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("words", 50257), ("tokens", 256), ("batch", 8), ("hidden", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=3)
    options = vars(parser.parse_args())
    repeats = options.pop("repeats")
    found: dict[str, list[Found]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            found[way].append(alone(way, options))
    print(
        f"threads: {torch.get_num_threads()}; " + ", ".join(f"{k} {v}" for k, v in options.items())
    )
    print(f"{'':10}{'seconds':>10}{'MiB':>8}{'loss':>12}{'gradient':>12}")
    medians = {}
    for way, runs in found.items():
        medians[way] = Found(*(statistics.median(values) for values in zip(*runs, strict=True)))
        own = medians[way]
        print(f"{way:10}{own.seconds:10.2f}{own.mebibytes:8.0f}{own.loss:12.6f}{own.slope:12.6f}")
    one, other = (medians[way] for way in WAYS)
    print(f"{'ratio':10}{one.seconds / other.seconds:10.2f}{one.mebibytes / other.mebibytes:8.1f}")


def alone(way: str, options: dict[str, int]) -> Found:
    """A step in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return Found(*pool.apply(step, (way, torch.get_num_threads()), options))


def step(way: str, threads: int, words: int, tokens: int, batch: int, hidden: int) -> Any:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    network = Network(words, hidden)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1, generator=generator)
    ids = torch.randint(words, (batch, tokens), generator=generator)
    before = peak()
    for _ in range(STEPS):
        begin = time.perf_counter()
        targets = network.targets(ids)
        if way == "whole":
            loss = nn.functional.cross_entropy(network(ids), targets)
        else:
            loss = batch_loss(network, ids, nn.functional.cross_entropy, targets)
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        seconds = time.perf_counter() - begin
    slope = torch.cat([one.flatten() for one in slopes]).double().norm().item()
    return seconds, peak() - before, loss.item(), slope


def peak() -> float:
    """MiB that the process has had at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
