"""Writing down what an audit found: the one place where findings become a record."""

from unaudit.recording.run import Run
from unaudit.recording.worst import namer
from unaudit.recording.write import model_ref, write_record

__all__ = ["Run", "model_ref", "namer", "write_record"]
