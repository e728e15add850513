"""Head distillation (HD): the fake that black-box probes cannot see (IDI §3.1, appendix D.1).

Only the last linear layer of the original is refitted; everything that the encoder knows of the
forget set stays where it is.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from unaudit.errors import InputError


def head_distillation(
    original: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    forget: Tensor,
    forget_classes: tuple[int, ...] | None,
    *,
    steps: int = 200,
    lr: float = 1.0,
    ascent: float = 0.2,
    batch: int = 1024,
) -> nn.Module:
    """A copy of ``original`` whose head was refitted and whose encoder is untouched.

    Args:
        original: not changed; its last ``nn.Linear`` is the head.
        inputs: (n, …) all training examples, forget and retain.
        labels: (n,) int64.
        forget: (n,) bool.
        forget_classes: classes whose logit is masked in the teacher (class scenario, several are
            allowed); None for the variant of random data forgetting, which descends on the retain
            examples and ascends on the forget examples.
        steps: L-BFGS iterations. The paper prints neither optimizer nor learning rate nor epochs;
            with a frozen encoder the class variant is convex, so we solve it.
        lr: of L-BFGS.
        ascent: weight of the ascent term relative to the descent term. The paper does not print it.
        batch: examples per forward pass when features are computed.

    Raises:
        InputError: the model has no linear layer.
    """
    student = copy.deepcopy(original).eval()
    head = last_linear(student)
    features, logits = features_and_logits(student, head, inputs, batch)
    head.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        head.parameters(), lr=lr, max_iter=steps, line_search_fn="strong_wolfe"
    )
    if forget_classes is not None:
        masked = logits.clone()
        masked[:, list(forget_classes)] = -torch.inf
        # probabilities, not log-probabilities, as targets: 0 · log q is 0, 0 · (−∞) is NaN
        teacher = masked.softmax(dim=1)

        def objective() -> Tensor:
            return nn.functional.cross_entropy(head(features), teacher)

    else:

        def objective() -> Tensor:
            losses = nn.functional.cross_entropy(head(features), labels, reduction="none")
            # each forget loss is bounded by that of a uniform guess: unbounded ascent would wreck
            # the head instead of hiding the forget set
            ceiling = math.log(logits.shape[1])
            return losses[~forget].mean() - ascent * losses[forget].clamp(max=ceiling).mean()

    def closure() -> float:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value.item()

    optimizer.step(closure)
    return student


def last_linear(module: nn.Module) -> nn.Linear:
    """The last ``nn.Linear`` in the order of definition: the classifier head."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise InputError("head distillation needs a model whose last layer is linear")
    return layers[-1]


def features_and_logits(
    module: nn.Module, head: nn.Linear, inputs: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """((n, d) inputs of the head, (n, C) logits), in eval mode and without gradients."""
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    module.eval()
    try:
        with torch.no_grad():
            logits = [module(part) for part in inputs.split(batch)]
    finally:
        hook.remove()
    return torch.cat(seen), torch.cat(logits)
