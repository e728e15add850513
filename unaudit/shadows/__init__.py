"""Shadow models: trained like the subject on random halves of the examples in question."""

from unaudit.shadows.scores import Shadows, ShadowScores

__all__ = ["ShadowScores", "Shadows"]
