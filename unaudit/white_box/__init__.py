"""The inside of a model: its layers, their activations, and what follows them."""

from unaudit.white_box.anatomy import FEATURES, Anatomy, Head, examine
from unaudit.white_box.tail import Tail
from unaudit.white_box.view import WhiteBox

__all__ = ["FEATURES", "Anatomy", "Head", "Tail", "WhiteBox", "examine"]
