"""A pickle, checked instruction by instruction before any unpickler sees it.

The unpicklers of the standard library trust their input: a length field makes them allocate, a memo
index makes them grow a table, hashing nested tuples takes exponential time or overflows the C
stack, and keys with equal hashes take quadratic time. :func:`scan` follows the stack machine with a
stand-in for every value and refuses all of that; what passes costs time and memory in proportion to
its length. Nothing is built and nothing is called.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unaudit.errors import InputError, UnsafeModelError
from unaudit.loading.denied import canonical, is_denied
from unaudit.loading.limits import Limits
from unaudit.text import plain

MAX_INTEGER_BITS = 4096
MAX_TUPLE_WEIGHT = 1 << 16
"""Leaves of a tuple, counted with repetition: what hashing it costs."""
MAX_COMPOUND_KEYS = 4096
"""Dict keys and set items whose hash an attacker can choose (tuples, huge integers, objects)."""
MAX_CALL_WEIGHT = 1 << 24
"""Leaves of all argument tuples together; a tuple can be passed to many calls."""
MAX_KEYWORD_CALLS = 256
"""Calls with keyword arguments, whose dict is copied each time."""
DAMAGED = "its pickle is damaged or truncated; download or save it again"

_EXTENSIONS = frozenset({"EXT1", "EXT2", "EXT4"})
_BUFFERS = frozenset({"NEXT_BUFFER", "READONLY_BUFFER"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"})
_ATOMS = frozenset({"NONE", "NEWTRUE", "NEWFALSE", "FLOAT", "BINFLOAT"})


class _Value(NamedTuple):
    """What is known of a value on the stack."""

    depth: int = 0
    """Tuples within tuples."""
    weight: int = 1
    compound: bool = True
    """Whether its hash can be chosen by the file."""
    text: str | None = None


_MARK = _Value(depth=-1)
_ATOM = _Value(compound=False)
_OBJECT = _Value()


@dataclass(frozen=True)
class Scan:
    """What a pickle that is safe to interpret says about itself."""

    protocol: int
    mentions: frozenset[tuple[str, str]]
    """(module, name) of every global, as spelled in the file."""


def scan(data: bytes, limits: Limits) -> Scan:
    """Follow the pickle ``data`` to its end.

    Raises:
        InputError: not a complete, well-formed pickle.
        UnsafeModelError: it mentions a denied global or would exhaust an unpickler.
    """
    machine = _Machine(limits)
    end = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in strings of protocol 0
        try:
            for opcode, argument, position in pickletools.genops(data):
                machine.step(opcode, argument)
                end = (position or 0) + 1
        except (InputError, UnsafeModelError):
            raise
        except Exception:  # genops and the stack fail in many ways, all meaning this
            raise InputError(DAMAGED) from None
    if end != len(data):
        raise InputError("has bytes behind the end of its pickle; save it again")
    return Scan(machine.protocol, frozenset(machine.mentions))


class _Machine:
    """The stack machine of pickle with stand-ins for values."""

    def __init__(self, limits: Limits) -> None:
        self.protocol = 0
        self.mentions: set[tuple[str, str]] = set()
        self._limits = limits
        self._steps = 0
        self._marks: list[int] = []
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}
        self._compound_keys = 0
        self._call_weight = 0
        self._keyword_calls = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        self._steps += 1
        if self._steps > self._limits.opcodes:
            raise UnsafeModelError(
                f"its pickle has more than {self._limits.opcodes:,} instructions; "
                "save the weights alone"
            )
        if name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name in _PUTS or name == "MEMOIZE":
            self._remember(len(self._memo) if name == "MEMOIZE" else int(argument))
        elif name == "PROTO":
            self.protocol = max(self.protocol, int(argument))
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "MARK":
            self._mark()
        else:
            taken = self._take(opcode)
            if opcode.stack_after:
                self._stack.append(self._result(name, argument, taken))

    def _remember(self, index: int) -> None:
        if not 0 <= index <= self._steps:
            raise UnsafeModelError("its pickle numbers its memo wildly; save it with torch.save")
        self._memo[index] = self._top()

    def _top(self) -> _Value:
        if not self._stack or self._stack[-1] is _MARK:
            raise InputError(DAMAGED)
        return self._stack[-1]

    def _mark(self) -> None:
        self._marks.append(len(self._stack))
        self._stack.append(_MARK)
        self._check_depth(len(self._marks))

    def _check_depth(self, depth: int) -> None:
        if depth > self._limits.nesting:
            raise UnsafeModelError(
                f"its pickle nests more than {self._limits.nesting} levels deep; "
                "save the weights alone"
            )

    def _take(self, opcode: pickletools.OpcodeInfo) -> Sequence[_Value]:
        """Pop what the opcode consumes; marks do not count."""
        before = list(opcode.stack_before)
        to_mark = pickletools.markobject in before
        if to_mark or (opcode.name == "POP" and self._stack[-1] is _MARK):
            base = self._marks.pop()
            taken = self._stack[base + 1 :]
            del self._stack[base:]
            below = before.index(pickletools.markobject) if to_mark else 0
        else:
            taken, below = [], len(before)
        if below:
            lower = self._stack[-below:]
            if len(lower) < below or _MARK in lower:
                raise InputError(DAMAGED)
            del self._stack[-below:]
            taken = lower + taken
        self._count_keys(opcode.name, taken)
        self._count_calls(opcode.name, taken)
        return taken

    def _count_keys(self, name: str, taken: Sequence[_Value]) -> None:
        keys: Sequence[_Value] = ()
        if name in ("SETITEM", "SETITEMS"):
            keys = taken[1::2]
        elif name == "DICT":
            keys = taken[::2]
        elif name == "ADDITEMS":
            keys = taken[1:]
        elif name == "FROZENSET":
            keys = taken
        self._compound_keys += sum(key.compound for key in keys)
        if self._compound_keys > MAX_COMPOUND_KEYS:
            raise UnsafeModelError(
                f"its pickle uses more than {MAX_COMPOUND_KEYS:,} tuples or objects as keys; "
                "save the weights alone"
            )

    def _count_calls(self, name: str, taken: Sequence[_Value]) -> None:
        if name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            self._call_weight += taken[1].weight
            self._keyword_calls += name == "NEWOBJ_EX"
        if self._call_weight > MAX_CALL_WEIGHT or self._keyword_calls > MAX_KEYWORD_CALLS:
            raise UnsafeModelError("its pickle repeats huge calls; save the weights alone")

    def _result(self, name: str, argument: Any, taken: Sequence[_Value]) -> _Value:
        if name in _EXTENSIONS:
            raise UnsafeModelError("its pickle uses extension codes; save it with torch.save")
        if name in _BUFFERS:
            raise InputError("its pickle needs buffers that are not in the file; save it again")
        if name == "PERSID":
            raise InputError("its pickle refers to other files; save it with torch.save")
        if name in _TUPLES:
            return self._tuple(taken)
        if name in ("GLOBAL", "INST"):
            module, _, attribute = str(argument).partition(" ")
            self._mention(module, attribute)
        elif name == "STACK_GLOBAL":
            module_name, attribute_name = taken[-2].text, taken[-1].text
            if module_name is None or attribute_name is None:
                raise UnsafeModelError(
                    "its pickle computes a global's name; save the weights alone"
                )
            self._mention(module_name, attribute_name)
        elif isinstance(argument, str):
            return _Value(compound=False, text=argument)
        elif isinstance(argument, int):
            return self._integer(argument)
        elif isinstance(argument, bytes) or name in _ATOMS:
            return _ATOM
        return _OBJECT

    def _tuple(self, items: Sequence[_Value]) -> _Value:
        depth = 1 + max((item.depth for item in items), default=0)
        weight = 1 + sum(item.weight for item in items)
        self._check_depth(depth)
        if weight > MAX_TUPLE_WEIGHT:
            raise UnsafeModelError(
                "its pickle repeats tuples within tuples; save the weights alone"
            )
        return _Value(depth, weight)

    def _integer(self, value: int) -> _Value:
        if value.bit_length() > MAX_INTEGER_BITS:
            raise UnsafeModelError("its pickle holds a gigantic integer; save the weights alone")
        # Python hashes integers modulo 2^61 − 1: longer ones can be made to collide at will
        return _ATOM if value.bit_length() < 64 else _OBJECT

    def _mention(self, module: str, name: str) -> None:
        if is_denied(module, name):
            raise UnsafeModelError(
                f"names '{plain(canonical(module, name))}', which no honest checkpoint needs; "
                "do not open it elsewhere, and ask for safetensors"
            )
        self.mentions.add((module, name))
        if len(self.mentions) > self._limits.names:
            raise UnsafeModelError(
                f"its pickle mentions more than {self._limits.names:,} classes; save weights alone"
            )
