"""Reference unlearners: models whose truth is known, made from the original."""

from unaudit.unlearners.finetune import finetune
from unaudit.unlearners.head_distillation import head_distillation

__all__ = ["finetune", "head_distillation"]
