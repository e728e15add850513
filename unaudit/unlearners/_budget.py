"""How long an unlearner trains by default: what papers print, carried over to other data."""

from __future__ import annotations

from dataclasses import replace

from unaudit.training import Recipe

LEAST = 160
"""Steps. The 10 epochs that most papers take are 1,580 steps on CIFAR-10 and 50 on a thousand
examples, where they do nothing; a tenth of the former shows on such data too."""


def budget(
    recipe: Recipe,
    per_epoch: int | None = None,
    *,
    lr: float | None,
    epochs: int | None,
    lr_share: float = 1.0,
    epochs_share: float = 10 / 182,
    constant: bool = False,
) -> Recipe:
    """The recipe over fewer epochs, at a rate of its own.

    Args:
        recipe: how the original was trained.
        per_epoch: steps of an epoch of unlearning; None: however few they are, no epochs are added
            for them.
        lr: initial learning rate that the user set; None: a share of the recipe's.
        epochs: that the user set; None: a share of the recipe's, or as many as make
            :data:`LEAST` steps if these are more, yet at least one and no more than the recipe's.
        lr_share: for an unset rate.
        epochs_share: for unset epochs: Jia et al. 2023 train for 182 epochs and finetune for 10.
        constant: whether the rate stays as it is; else the recipe's schedule runs once.
    """
    if epochs is None:
        least = 1 if per_epoch is None else -(-LEAST // per_epoch)
        epochs = max(1, min(max(round(recipe.epochs * epochs_share), least), recipe.epochs))
    return replace(
        recipe,
        lr=recipe.lr * lr_share if lr is None else lr,
        epochs=epochs,
        schedule="constant" if constant else recipe.schedule,
    )
