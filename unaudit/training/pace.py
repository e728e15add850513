"""How long training takes on this machine, from a few timed steps; and how many operations it is.

A fresh network of the architecture takes its steps on some examples, in the way in which the models
will be made: several side by side, as the worker processes will run, or stacked. Nothing is
learned. Clocks are noisy and machines have other things to do, so the result is an estimate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unaudit.engine.threads import WORTH_SHARING, threads_for
from unaudit.errors import InputError, UnauditError
from unaudit.tokens import predicts_tokens, truth
from unaudit.training._stack import Problem
from unaudit.training.draws import unnoticed
from unaudit.training.ensemble import enroll, fit_stacked, groups, judge, team_of
from unaudit.training.fit import Augment, descend, shuffled
from unaudit.training.in_parts import batch_loss
from unaudit.training.likelihood import log_p, texts_at_once
from unaudit.training.recipe import Recipe

MOMENT = 0.25
"""Seconds that one timing takes, unless a single step takes longer."""
LONGEST = 0.25
"""Seconds that a step may take; batches of networks that need more are cut for the timing."""
ROUNDS = 5
"""Timings whose median counts."""
FEW, MOST = 4, 64
"""Steps from which the number in a timing is found, and the most."""
SIDE_BY_SIDE = 4
"""Threads that stand for worker processes, at most: they slow each other down as processes would,
but more of them would wait for the interpreter's lock as well."""
BACKWARD = 2
"""A backward pass takes twice the operations of the forward pass: the products for the gradients in
the weights, and those for the gradients in the inputs."""


@dataclass(frozen=True, eq=False)
class Specimen:
    """What is timed."""

    build: Callable[[], nn.Module]
    """Makes one network; its weights do not matter."""
    inputs: Tensor
    """(n, …) some examples, on the CPU; repeated where a batch is larger."""
    recipe: Recipe
    device: torch.device
    augment: Augment | None = None
    layout: torch.memory_format = torch.contiguous_format
    """Of network and inputs in memory."""

    def examples(self, count: int) -> Tensor:
        """(count, …) of the inputs."""
        chosen = self.inputs[torch.arange(count) % len(self.inputs)]
        return chosen.to(self.device, memory_format=self.layout)

    def network(self) -> nn.Module:
        """As its constructor makes it, in train mode."""
        with torch.random.fork_rng(devices=[]):
            module = self.build()
        module.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        return module.train()


def forward_operations(specimen: Specimen) -> int | None:
    """Floating-point operations of a forward pass of one example, as torch counts them: those of
    matrix products and convolutions, where a multiplication and an addition are two; None: the
    network has neither.

    Raises:
        InputError: the network cannot be run on the inputs.
    """
    # fused attention is not counted everywhere, so in train mode and by plain products; two
    # examples, for batch normalization
    module, inputs = specimen.network(), specimen.examples(2)
    plain = sdpa_kernel(SDPBackend.MATH)
    with _explained(specimen), unnoticed(specimen.device), plain:
        with FlopCounterMode(display=False) as counter:
            _ask(module, inputs)
        return int(counter.get_total_flops()) // len(inputs) or None


def trained_alone(specimen: Specimen, workers: int = 1, threads: int | None = None) -> float:
    """Seconds per example of one worker, with as many others at work.

    Args:
        specimen: what is trained.
        workers: that train side by side.
        threads: for tensors in each; None: one worker, right here.

    Raises:
        InputError: the network cannot be trained on the inputs.
    """
    count = _affordable(specimen, specimen.recipe.batch)
    inputs, labels = specimen.examples(count), _labels(specimen, count)
    recipe = replace(specimen.recipe, batch=count, lr=0.0, epochs=1)

    def take(module: nn.Module, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.arange(count).repeat(steps)

        def objective(chosen: Tensor) -> Tensor:
            batch = inputs[chosen]
            if specimen.augment is not None:
                batch = specimen.augment(batch, generator)
            with recipe.autocast(specimen.device):
                told = truth(module, batch, labels[chosen])
                return batch_loss(module, batch, nn.functional.cross_entropy, told)

        descend(
            objective,
            lambda _: shuffled(rows, count, generator),
            recipe,
            list(module.parameters()),
            steps=steps,
        )

    return _crew(specimen, take, workers, threads) / count


def asked(specimen: Specimen, batch: int) -> float:
    """Seconds per example of a forward pass in eval mode.

    Args:
        specimen: what is asked.
        batch: examples at a time; fewer where they are long texts.

    Raises:
        InputError: the network cannot be run on the inputs.
    """
    if predicts_tokens(specimen.network()):
        batch = min(batch, texts_at_once(specimen.inputs.shape[1]))
    count = _affordable(specimen, batch)
    inputs = specimen.examples(count)

    def take(module: nn.Module, steps: int) -> None:
        module.eval()
        for _ in range(steps):
            _ask(module, inputs)

    return _crew(specimen, take, 1, None) / count


def trained_stacked(specimen: Specimen, members: int) -> float:
    """Seconds per example of one member, where all are trained in stacks.

    Args:
        specimen: a network that can be stacked.
        members: networks that are trained at once.

    Raises:
        InputError: the network cannot be trained on the inputs.
    """
    batch = specimen.recipe.batch
    problem = Problem(
        specimen.examples(batch),
        _labels(specimen, batch),
        replace(specimen.recipe, lr=0.0, epochs=1),
        specimen.augment,
    )

    def take(steps: int) -> float:
        rows = [torch.arange(batch).repeat(steps)] * members
        generators = [torch.Generator().manual_seed(number) for number in range(members)]
        team = enroll(specimen.build, problem, rows, generators)
        size, stacking = judge(specimen.build, problem, team, None)
        parts = [team_of(g, stacking, size, problem, None) for g in groups(team, stacking, recipe)]
        begin = time.perf_counter()
        for part in parts:
            if part is None:
                raise InputError("the network cannot be stacked")
            fit_stacked(part, problem, lambda _: None)
        return time.perf_counter() - begin

    recipe = problem.recipe
    with _explained(specimen):
        return _per_step(take) / (members * batch)


def _ask(module: nn.Module, inputs: Tensor) -> None:
    """A forward pass, in which not all logits of texts are there together."""
    with torch.no_grad():
        if predicts_tokens(module):
            log_p(module, inputs)
        else:
            module(inputs).float().cpu()


def _labels(specimen: Specimen, count: int) -> Tensor:
    # a network has at least one output
    return torch.zeros(count, dtype=torch.int64, device=specimen.device)


def _affordable(specimen: Specimen, batch: int) -> int:
    """The batch, or as much of it as can be timed in a moment."""
    module, few = specimen.network(), min(batch, 2)
    inputs = specimen.examples(few)
    with _explained(specimen), unnoticed(specimen.device):
        _ask(module, inputs)  # the first pass sets up what the next ones use
        begin = time.perf_counter()
        _ask(module, inputs)
        _wait(specimen.device)
        each = (time.perf_counter() - begin) / few * (1 + BACKWARD)
    return max(few, min(batch, int(LONGEST / max(each, 1e-9))))


def _crew(
    specimen: Specimen, take: Callable[[nn.Module, int], None], workers: int, threads: int | None
) -> float:
    """Seconds of a step, while some workers take steps side by side."""
    modules = [specimen.network() for _ in range(min(workers, SIDE_BY_SIDE))]
    elements = specimen.recipe.batch * specimen.inputs[0].numel()
    before = torch.get_num_threads()

    def work(module: nn.Module) -> float:
        def timed(steps: int) -> float:
            begin = time.perf_counter()
            take(module, steps)
            _wait(specimen.device)
            return time.perf_counter() - begin

        if threads is not None:
            torch.set_num_threads(threads if elements >= WORTH_SHARING else 1)
        return _per_step(timed)

    with (
        _explained(specimen),
        unnoticed(specimen.device),  # around all of them: they share the global generator
        threads_for(elements),
    ):
        if threads is None:
            return work(modules[0])
        try:
            with ThreadPoolExecutor(len(modules)) as pool:
                return statistics.median(pool.map(work, modules))
        finally:
            torch.set_num_threads(before)


def _per_step(timed: Callable[[int], float]) -> float:
    """Seconds of a step, without what comes before the first; ``timed`` gives those of so many."""
    first = timed(1)  # sets up what the others use
    begin = time.perf_counter()
    once = timed(1)
    if once > MOMENT:
        return min(once, first)
    once = min(once, timed(1))
    several = timed(1 + FEW)
    steps = int(MOMENT / ROUNDS / max((several - once) / FEW, 1e-9))
    steps = min(max(steps, 1), MOST)
    found: list[float] = []
    while len(found) < ROUNDS and (not found or time.perf_counter() - begin < MOMENT):
        found.append((timed(1 + steps) - once) / steps)
    step = statistics.median(found)
    return step if step > 0 else several / (1 + FEW)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _explained(specimen: Specimen) -> Iterator[None]:
    """Say what does not work if the network does not."""
    try:
        yield
    except UnauditError:
        raise
    except Exception as error:  # whatever the network's own code raises
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        shape = "x".join(map(str, specimen.inputs.shape[1:]))
        raise InputError(
            f"a fresh network of this architecture takes no training step on {shape} inputs "
            f"({line[:200]}); check model.arch and preprocess"
        ) from None
