"""Critics: what is trained to tell the label from the activations of one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from attacks.white_box._infonce import losses
from attacks.white_box._softmax import Scaling, fit_head
from unaudit.evidence import FloatArray, IntArray
from unaudit.training import initialize_layer
from unaudit.white_box import Tail
from unaudit.white_box.causal_tail import CausalTail

RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Penalties of the convex critic, tried from strong to weak while the held-out loss improves."""
BETTER = 5e-4
"""Nats by which a held-out loss must fall to count as progress."""
DROPS = 1
"""How often the learning rate falls, by :data:`SLOWER`, before training ends."""
SLOWER = 0.2
RESIDENT_BYTES = 1 << 30
"""Activations of up to this size are kept on the device; larger ones stay memory-mapped."""
EVALUATED_AT_ONCE = 512

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Training:
    """How a critic is trained: Adam until the held-out loss stops falling."""

    lr: float
    batch: int
    max_epochs: int
    patience: int
    """Epochs without progress before the learning rate falls, and at last training ends."""


@dataclass(frozen=True, eq=False)
class Convex:
    """A linear critic of the features, without the prior: scores = features · weightᵀ + bias."""

    weight: FloatArray
    """(C, d)"""
    bias: FloatArray
    """(C,)"""
    held_out: float
    """Mean loss on the examples that chose the penalty."""
    converged: bool

    def losses(self, features: FloatArray, labels: IntArray, prior: FloatArray) -> FloatArray:
        """(n,) nats."""
        return losses(features @ self.weight.T + self.bias, labels, prior)


class Pool:
    """Activations of one layer for the examples of a probe: several arrays, one after another."""

    def __init__(self, parts: Sequence[npt.NDArray[np.float32]], device: torch.device) -> None:
        """
        Args:
            parts: (n_i, …) each; may be memory-mapped.
            device: where batches are wanted.
        """
        self.parts = [part for part in parts if len(part)]
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.device = device
        self._resident: Tensor | None = None
        if sum(part.nbytes for part in self.parts) <= RESIDENT_BYTES:
            joined = np.concatenate(self.parts)
            self._resident = torch.from_numpy(joined).to(device)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def size(self) -> int:
        """Elements of one example."""
        return int(np.prod(self.parts[0].shape[1:]))

    def batch(self, rows: IntArray) -> Tensor:
        """(len(rows), …) float32 on the device, in the order of ``rows``."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self.device)]
        joined = np.empty((len(rows), *self.parts[0].shape[1:]), dtype=np.float32)
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for index, part in enumerate(self.parts):
            own = which == index
            joined[own] = part[rows[own] - self.starts[index]]
        return torch.from_numpy(joined).to(self.device)

    def scale(self, rows: IntArray) -> float:
        """Root mean square of the activations of some rows."""
        squares = sum(
            float(self.batch(block).square().mean(dtype=torch.float64)) * len(block)
            for block in np.array_split(rows, -(-len(rows) // EVALUATED_AT_ONCE))
        )
        return float(np.sqrt(squares / len(rows)))


class Critic(nn.Module):
    """f and g in one: the tail up to the features, and a linear layer of one score per label.

    IDI's f ends in a projection P to d numbers and g is a free vector per label, so that the score
    f(z)ᵀ g(y) = (Pᵀ g(y))ᵀ φ(z) is linear in the features φ; for d ≥ C any linear layer is of this
    form, and it is trained directly.
    """

    def __init__(self, tail: Tail, width: int, n_labels: int) -> None:
        """
        Args:
            tail: taken over, and trained.
            width: of the features.
        """
        super().__init__()
        self.tail = tail
        if isinstance(tail, CausalTail):
            tail.leave_head()
        self.top = nn.Linear(width, n_labels).to(next(tail.parameters()).device)
        self.factor = 1.0
        """Applied to the activations first."""
        self._own = self.state()

    def forward(self, activations: Tensor) -> Tensor:
        """(b, C) scores without the prior."""
        scores: Tensor = self.top(self.tail.features(activations * self.factor))
        return scores

    def restart(self, generator: torch.Generator, scale: float) -> None:
        """Draw every weight behind the cut anew.

        Args:
            generator: on the CPU.
            scale: of the activations; divided out, since fresh weights expect about 1.
        """
        self.load(self._own)
        self.tail.reinitialize(generator)
        device = self.top.weight.device
        self.top.to("cpu")
        initialize_layer(self.top, generator)
        self.top.to(device)
        self.factor = 1.0 / scale if scale > 0.0 else 1.0

    def compose(self, convex: Convex, behind: State | None) -> None:
        """The network's own tail with a critic of what comes later: no worse than that critic.

        Args:
            convex: the critic of the features.
        behind: state of a warm-started critic of a later layer, whose weights then replace the
                tail's own and the convex critic; default: the tail stays as the network has it.
        """
        self.load(self._own if behind is None else {**self._own, **behind})
        self.factor = 1.0
        if behind is not None:
            return
        with torch.no_grad():
            self.top.weight.copy_(torch.from_numpy(convex.weight))
            self.top.bias.copy_(torch.from_numpy(convex.bias))

    def trained(self) -> list[nn.Parameter]:
        """What training changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def state(self) -> State:
        """A copy of what training may change: weights behind the cut, and statistics."""
        trained = {name for name, value in self.named_parameters() if value.requires_grad}
        buffers = {name for name, _ in self.named_buffers()}
        return {
            name: value.detach().clone()
            for name, value in self.state_dict().items()
            if name in trained or name in buffers
        }

    def load(self, state: State) -> None:
        """Put a state back."""
        self.load_state_dict(dict(state), strict=False)

    def losses(self, pool: Pool, rows: IntArray, labels: IntArray, prior: FloatArray) -> FloatArray:
        """(len(rows),) nats; ``labels`` of the whole pool."""
        self.eval()
        parts = []
        with torch.no_grad():
            for block in np.array_split(rows, -(-len(rows) // EVALUATED_AT_ONCE)):
                scores = self(pool.batch(block)).double().cpu().numpy()
                parts.append(losses(scores, labels[block], prior))
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Trained:
    """The best state that training came through."""

    state: State
    factor: float
    held_out: float
    """Mean loss on the held-out examples that ended the training."""
    epochs: int
    """Until the best state."""
    converged: bool
    """Whether progress ended before the epochs did."""


def fit_convex(
    features: FloatArray, labels: IntArray, fit: IntArray, stop: IntArray, prior: FloatArray
) -> Convex:
    """The linear critic of the features: convex, so solved exactly for each penalty.

    Args:
        features: (n, d) of the whole pool.
        fit, stop: rows to fit on, and to choose the penalty on.
    """
    scaling = Scaling.of(features[fit])
    best: Convex | None = None
    for ridge in RIDGES:
        head = fit_head(scaling(features[fit]), labels[fit], ridge)
        weight = head.weight * scaling.factor
        bias = head.bias - weight @ scaling.center - np.log(prior)
        held_out = float(losses(features[stop] @ weight.T + bias, labels[stop], prior).mean())
        if best is not None and held_out >= best.held_out:
            break
        best = Convex(weight, bias, held_out, head.converged)
    assert best is not None
    return best


def train(
    critic: Critic,
    pool: Pool,
    labels: IntArray,
    fit: IntArray,
    stop: IntArray,
    prior: FloatArray,
    training: Training,
    rng: np.random.Generator,
    *,
    frozen_statistics: bool,
) -> Trained:
    """Maximize InfoNCE on ``fit`` from the critic's present state; keep the best on ``stop``.

    Args:
        labels: of the whole pool.
        frozen_statistics: whether batch normalization keeps its running statistics, and dropout is
            off: right for weights that were trained with them.
    """
    targets = torch.from_numpy(labels).to(pool.device)
    log_prior = torch.from_numpy(np.log(prior)).to(pool.device, torch.float32)
    optimizer = torch.optim.Adam(critic.trained(), lr=training.lr, fused=True)
    held_out = float(critic.losses(pool, stop, labels, prior).mean())
    best, best_epoch = critic.state(), 0
    waited = drops = 0
    n_batches = max(1, round(len(fit) / training.batch))
    for epoch in range(1, training.max_epochs + 1):
        critic.train(not frozen_statistics)
        for rows in np.array_split(rng.permutation(fit), n_batches):
            scores = critic(pool.batch(rows)) + log_prior
            loss = nn.functional.cross_entropy(scores, targets[torch.from_numpy(rows)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        value = float(critic.losses(pool, stop, labels, prior).mean())
        waited += 1
        if value < held_out - BETTER:
            held_out, best, best_epoch, waited = value, critic.state(), epoch, 0
        if waited < training.patience:
            continue
        if drops == DROPS:
            return Trained(best, critic.factor, held_out, best_epoch, converged=True)
        drops, waited = drops + 1, 0
        critic.load(best)
        for group in optimizer.param_groups:
            group["lr"] *= SLOWER
    return Trained(best, critic.factor, held_out, best_epoch, converged=False)
