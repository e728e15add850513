"""What can go wrong, classified by who can put it right.

    UnauditError            one line for the user, an exit code, no traceback
    ├── UsageError          flags or config contradict each other (2)
    ├── InputError          a file, key or id cannot be used (2)
    └── UnsafeModelError    a model file was refused before it could do harm (4)

Anything else that escapes is a bug in unaudit and ends with exit code 70.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """What a shell, a CI job or a release gate sees."""

    PASS = 0
    FAIL = 1
    BAD_INPUT = 2
    INCONCLUSIVE = 3
    UNSAFE_MODEL = 4
    INTERNAL = 70
    INTERRUPTED = 130


class UnauditError(Exception):
    """A failure that its reader can put right; the message is one line and states the remedy."""

    exit_code: ClassVar[ExitCode] = ExitCode.BAD_INPUT


class UsageError(UnauditError):
    """Flags or configuration are wrong or contradict each other."""


class InputError(UnauditError):
    """A file, key or id that was handed in cannot be used."""


class UnsafeModelError(UnauditError):
    """A model file was refused because opening it could run code or exhaust the machine."""

    exit_code = ExitCode.UNSAFE_MODEL
