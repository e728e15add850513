"""Diagonals of the Fisher information: squared gradients of single examples, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from unaudit.tokens import predicts_tokens, truth
from unaudit.training import DivergedError
from unaudit.training.in_parts import batch_loss

MEMORY = {"cpu": 2**25, "cuda": 2**31}
"""Bytes that the gradients at hand may take, by kind of device; other kinds are given the least.
On a CPU more than its caches hold is slower (measured)."""
MOST = 256
"""Gradients at hand, however small they are."""

Diagonal: TypeAlias = dict[str, Tensor]
"""By name of the parameter, in its shape; at least 0."""
OnExamples: TypeAlias = Callable[[int], None]


def empirical_fisher(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    rows: Tensor,
    on_examples: OnExamples = lambda count: None,
) -> Diagonal:
    """Mean over the examples of (∂ log p(label | x) / ∂θ)²; of a text, with its mean log p per
    token in that place.

    Args:
        module: in eval mode, so that no example depends on the others of its batch; all of its
            weights can be trained.
        inputs: (n, …) float32, or (n, t) token ids.
        labels: (n,) int64.
        rows: (k,) int64, the examples to look at; k ≥ 1.
        on_examples: told how many more are done.

    Raises:
        DivergedError: a gradient is not finite.
    """
    squares = _Squares(module)
    for part in rows.split(squares.chunk):
        squares.add(inputs[part], labels[part], torch.ones(len(part), device=inputs.device))
        on_examples(len(part))
    return squares.mean(len(rows))


def expected_fisher(
    module: nn.Module,
    inputs: Tensor,
    rows: Tensor,
    on_examples: OnExamples = lambda count: None,
) -> Diagonal:
    """Mean over the examples of Σ_y p(y | x) (∂ log p(y | x) / ∂θ)², the expectation over labels
    that the module itself would give; as many gradients per example as there are classes.

    Arguments and errors as above.
    """
    squares = _Squares(module)
    for part in rows.split(squares.chunk):
        with torch.no_grad():
            chances = module(inputs[part]).softmax(dim=1)
        n_classes = chances.shape[1]
        for pairs in torch.arange(chances.numel(), device=inputs.device).split(squares.chunk):
            labels = pairs % n_classes
            squares.add(inputs[part][pairs // n_classes], labels, chances.flatten()[pairs])
        on_examples(len(part))
    return squares.mean(len(rows))


class _Squares:
    """Sums weight · gradient² of single examples."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._weights = {name: value.detach() for name, value in module.named_parameters()}
        self._buffers = dict(module.named_buffers())
        self._total = {name: torch.zeros_like(value) for name, value in self._weights.items()}
        self._gradients = vmap(grad(self._loss), in_dims=(None, 0, 0))
        # how many tokens a text has decides the shape of what is computed
        self._vectorized = not predicts_tokens(module)
        size = sum(value.numel() * value.element_size() for value in self._weights.values())
        device = next(iter(self._weights.values())).device.type
        budget = MEMORY.get(device, min(MEMORY.values()))
        self.chunk = min(max(budget // size, 1), MOST)
        """Gradients to ask for at a time."""

    def add(self, inputs: Tensor, labels: Tensor, shares: Tensor) -> None:
        """Those of (b, …) inputs and (b,) labels, each with its weight."""
        if self._vectorized:
            try:
                gradients = self._gradients(self._weights, inputs, labels)
            except RuntimeError:  # a forward pass that looks at values, or that vmap cannot batch
                self._vectorized = False
            else:
                for name, value in gradients.items():
                    squares = shares @ value.square().flatten(start_dim=1)
                    self._total[name] += squares.view_as(self._total[name])
                return
        for x, label, share in zip(inputs, labels, shares, strict=True):
            for name, value in self._gradient(x, label).items():
                self._total[name] += share * value.square()

    def mean(self, count: int) -> Diagonal:
        """The sums divided by the number of examples."""
        if not all(bool(value.isfinite().all()) for value in self._total.values()):
            raise DivergedError(
                "the gradients of the original are not finite; check the model and its inputs"
            )
        return {name: value / count for name, value in self._total.items()}

    def _loss(self, weights: Mapping[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        inputs = x.unsqueeze(0)
        logits = functional_call(self._module, {**weights, **self._buffers}, (inputs,))
        return nn.functional.cross_entropy(logits, label.unsqueeze(0))

    def _gradient(self, x: Tensor, label: Tensor) -> dict[str, Tensor]:
        weights = dict(self._module.named_parameters())
        inputs = x.unsqueeze(0)
        told = truth(self._module, inputs, label.unsqueeze(0))
        loss = batch_loss(self._module, inputs, nn.functional.cross_entropy, told)
        values = torch.autograd.grad(
            loss, list(weights.values()), allow_unused=True, materialize_grads=True
        )
        return dict(zip(weights, values, strict=True))
