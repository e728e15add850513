"""Training: how a model is initialized and fitted, and with what recipe."""

from unaudit.training.fit import DivergedError, Recipe, fit, single_threaded
from unaudit.training.initialize import initialize, initialize_layer

__all__ = ["DivergedError", "Recipe", "fit", "initialize", "initialize_layer", "single_threaded"]
