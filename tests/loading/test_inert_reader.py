"""The inert reader against every pickle opcode, the standard library's unpickler and attacks."""

from __future__ import annotations

import math
import os
import pickle
import pickletools
import struct
import sys
import time
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.loading import files
from unaudit.errors import InputError, UnauditError, UnsafeModelError
from unaudit.loading import Limits
from unaudit.loading.denied import is_denied
from unaudit.loading.inert import InertResult, read_inert
from unaudit.loading.pickle_scan import scan
from unaudit.loading.stand_ins import LazyTensor, Opaque

LIMITS = Limits()
SIZES = {key: len(data) for key, data in files.PLAIN_STORAGES.items()}


def read(pickled: bytes, limits: Limits = LIMITS) -> InertResult:
    scan(pickled, limits)
    return read_inert(pickled, SIZES, limits)


def root(pickled: bytes) -> Any:
    return read(pickled).root


def _string(opcode: bytes, size: str, data: bytes = b"abc") -> bytes:
    return opcode + struct.pack(size, len(data)) + data


OBJECT = files.name("nowhere", "Thing")

# Programs that build plain values: whatever the standard library makes of them is right
VALUES: dict[str, bytes] = {
    "INT": b"I42\n.",
    "BININT": b"J\xff\xff\xff\x7f.",
    "BININT1": b"K\xff.",
    "BININT2": b"M\xff\xff.",
    "LONG": b"L-9999999999L\n.",
    "LONG1": b"\x80\x02\x8a\x03abc.",
    "LONG4": b"\x80\x02" + _string(b"\x8b", "<i") + b".",
    "STRING": b"S'a\\x41'\n.",
    "BINSTRING": _string(b"T", "<i") + b".",
    "SHORT_BINSTRING": _string(b"U", "<B", b"\xe9") + b".",
    "BINBYTES": b"\x80\x03" + _string(b"B", "<I") + b".",
    "SHORT_BINBYTES": b"\x80\x03" + _string(b"C", "<B") + b".",
    "BINBYTES8": b"\x80\x04" + _string(b"\x8e", "<Q") + b".",
    "BYTEARRAY8": b"\x80\x05" + _string(b"\x96", "<Q") + b".",
    "NONE": b"N.",
    "NEWTRUE": b"\x80\x02\x88.",
    "NEWFALSE": b"\x80\x02\x89.",
    "UNICODE": b"Va\\u00e9\n.",
    "SHORT_BINUNICODE": b"\x80\x04" + _string(b"\x8c", "<B") + b".",
    "BINUNICODE": _string(b"X", "<I") + b".",
    "BINUNICODE8": b"\x80\x04" + _string(b"\x8d", "<Q") + b".",
    "FLOAT": b"F1.5\n.",
    "BINFLOAT": b"G" + struct.pack(">d", 0.1) + b".",
    "EMPTY_LIST": b"].",
    "APPEND": b"]K\x01a.",
    "APPENDS": b"](K\x01K\x02e.",
    "LIST": b"(K\x01K\x02l.",
    "EMPTY_TUPLE": b").",
    "TUPLE": b"(K\x01K\x02t.",
    "TUPLE1": b"\x80\x02K\x01\x85.",
    "TUPLE2": b"\x80\x02K\x01K\x02\x86.",
    "TUPLE3": b"\x80\x02K\x01K\x02K\x03\x87.",
    "EMPTY_DICT": b"}.",
    "DICT": b"(K\x01K\x02d.",
    "SETITEM": b"}K\x01K\x02s.",
    "SETITEMS": b"}(K\x01K\x02K\x03K\x04u.",
    "EMPTY_SET": b"\x80\x04\x8f.",
    "ADDITEMS": b"\x80\x04\x8f(K\x01K\x02\x90.",
    "FROZENSET": b"\x80\x04(K\x01K\x02\x91.",
    "POP": b"K\x01K\x020.",
    "DUP": b"K\x012\x86.",
    "MARK": b"(K\x01t.",
    "POP_MARK": b"K\x01(K\x02K\x031.",
    "GET": b"K\x01p0\n0g0\n.",
    "BINGET": b"K\x01q\x000h\x00.",
    "LONG_BINGET": b"K\x01q\x000j\x00\x00\x00\x00.",
    "PUT": b"K\x01p0\n.",
    "BINPUT": b"K\x01q\x01.",
    "LONG_BINPUT": b"K\x01r\x01\x00\x00\x00.",
    "MEMOIZE": b"\x80\x04K\x01\x940h\x00.",
    "PROTO": b"\x80\x05N.",
    "STOP": b"N.",
    "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 2) + b"N.",
}

# Programs that name or call something: the result is inert
ACTIONS: dict[str, tuple[bytes, Callable[[Any], bool]]] = {
    "GLOBAL": (OBJECT + b".", lambda it: issubclass(it, Opaque)),
    "STACK_GLOBAL": (
        b"\x80\x04" + files.text("nowhere") + files.text("Thing") + b"\x93.",
        lambda it: issubclass(it, Opaque) and it.qualified == "nowhere.Thing",
    ),
    "REDUCE": (OBJECT + b"K\x05\x85R.", lambda it: it.arguments == (5,)),
    "BUILD": (OBJECT + b")R}K\x01K\x02sb.", lambda it: it.state == {1: 2}),
    "INST": (b"(K\x05inowhere\nThing\n.", lambda it: it.arguments == (5,)),
    "OBJ": (b"(" + OBJECT + b"K\x05o.", lambda it: it.arguments == (5,)),
    "NEWOBJ": (OBJECT + b"K\x05\x85\x81.", lambda it: it.arguments == (5,)),
    "NEWOBJ_EX": (
        b"\x80\x04" + OBJECT + b"K\x05\x85}" + files.text("key") + b"K\x01s\x92.",
        lambda it: it.arguments == (5,),
    ),
    "BINPERSID": (
        files.tensor() + b".",
        lambda it: isinstance(it, LazyTensor) and it.size == (2, 3),
    ),
}

# Programs that are refused, whatever surrounds them
FORBIDDEN: dict[str, bytes] = {
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05C\x01a\x98.",
    "PERSID": b"Pid\n.",
}


def test_every_opcode_is_covered() -> None:
    covered = [*VALUES, *ACTIONS, *FORBIDDEN]
    assert sorted(covered) == sorted(opcode.name for opcode in pickletools.opcodes)
    for name, program in {**VALUES, **{k: v for k, (v, _) in ACTIONS.items()}, **FORBIDDEN}.items():
        assert name in {opcode.name for opcode, _, _ in pickletools.genops(program)}


@pytest.mark.parametrize("opcode", VALUES)
def test_plain_values_equal_the_standard_library(opcode: str) -> None:
    program = VALUES[opcode]
    expected = pickle.loads(program, encoding="latin-1")
    value = root(program)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("opcode", ACTIONS)
def test_actions_only_record(opcode: str) -> None:
    program, holds = ACTIONS[opcode]
    assert holds(root(program))
    assert "nowhere" not in sys.modules


@pytest.mark.parametrize("opcode", FORBIDDEN)
def test_forbidden_opcodes(opcode: str) -> None:
    with pytest.raises((InputError, UnsafeModelError)):
        read(FORBIDDEN[opcode])


NEEDS_OPERANDS = [
    opcode for opcode in pickletools.opcodes if opcode.stack_before or opcode.name.endswith("PUT")
]


@pytest.mark.parametrize("opcode", NEEDS_OPERANDS, ids=lambda opcode: opcode.name)
def test_an_opcode_without_its_operands_is_refused(opcode: pickletools.OpcodeInfo) -> None:
    argument = b"" if opcode.arg is None else bytes(max(opcode.arg.n, 0)) or b"0\n"
    alone = opcode.code.encode("latin-1") + argument
    for program in (alone + b".", b"(" + alone + b".", b"((" + alone + b"."):
        with pytest.raises(UnauditError):
            scan(program + b".", LIMITS)


atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    atoms | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=20,
)


@given(value=values, protocol=st.integers(3, 5))
def test_round_trip_of_plain_data(value: Any, protocol: int) -> None:
    assert root(files.pickled(value, protocol)) == value


texts = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(value=texts, protocol=st.integers(0, 2))
def test_round_trip_of_plain_data_in_old_protocols(value: Any, protocol: int) -> None:
    assert root(files.pickled(value, protocol)) == value


def test_never_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "importable_bait.py").write_text(f"open({str(marker)!r}, 'w')\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = read(files.name("importable_bait", "Thing") + b")R.")
    assert result.opaque == {"importable_bait.Thing": 1}
    assert not marker.exists()
    assert "importable_bait" not in sys.modules


def test_hooks_of_opaque_objects_only_record() -> None:
    program = OBJECT + b")R(K\x01e(K\x01K\x02uK\x03aK\x01K\x02s(K\x01\x90K\x07\x85R."
    thing = root(b"\x80\x04" + program)
    assert isinstance(thing, Opaque)
    assert thing.arguments == (7,)


STAND_INS = (
    "collections.OrderedDict torch.FloatStorage torch.Size torch.float32 "
    "torch._utils._rebuild_tensor_v2 torch._utils._rebuild_parameter copyreg._reconstructor "
    "torch._tensor._rebuild_from_type_v2 torch.storage.UntypedStorage"
)


@pytest.mark.parametrize("stand_in", STAND_INS.split())
@pytest.mark.parametrize(
    "attribute", ["function", "dtype", "__class__", "__setstate__", "__init__"]
)
def test_stand_ins_cannot_be_changed(stand_in: str, attribute: str) -> None:
    """BUILD sets attributes; what one file sets must not be seen while reading the next."""
    module, _, name = stand_in.rpartition(".")
    poison = b"N}" + files.text(attribute) + OBJECT + b"s\x86b"
    with pytest.raises(InputError):
        read(b"\x80\x02" + files.name(module, name) + poison + b".")
    tensor = root(b"\x80\x02" + files.tensor() + b".")
    assert tensor == LazyTensor(tensor.storage, torch.float32, 0, (2, 3), (3, 1))
    ordered = root(b"\x80\x02" + files.name("collections", "OrderedDict") + b")R.")
    assert type(ordered).__name__ == "InertDict"
    assert ordered == {}


def test_a_tensor_cannot_be_changed_after_its_check() -> None:
    for name in ("size", "stride", "storage", "offset"):
        change = b"N}" + files.text(name) + b"K\x09\x85s\x86b"
        with pytest.raises(InputError):
            read(b"\x80\x02" + files.tensor() + change + b".")


@pytest.mark.parametrize(
    "call",
    [
        files.name("torch._utils", "_rebuild_tensor_v2") + b")R",
        files.name("torch._utils", "_rebuild_tensor_v2") + b"(NNNNNNtR",
        files.name("torch._utils", "_rebuild_tensor_v3") + b"(NNNNNNNtR",
        files.name("torch._utils", "_rebuild_parameter") + b"N\x85R",
        files.name("torch._tensor", "_rebuild_from_type_v2") + b"(NNNNtR",
        files.name("copyreg", "_reconstructor") + b"N\x85R",
        files.name("torch", "Size") + b"N\x85R",
        files.name("torch", "Size") + b"(K\x01" + files.text("a") + b"t\x85R",
        files.name("torch", "FloatStorage") + b")R",
        files.name("torch", "float32") + b")R",
        files.name("collections", "OrderedDict") + b"K\x01\x85R",
    ],
)
def test_wrong_arguments_are_damage(call: bytes) -> None:
    with pytest.raises(InputError, match="pickle is damaged"):
        read(b"\x80\x02" + call + b".")


def test_from_type_cannot_call_itself_for_ever() -> None:
    rebuild = files.name("torch._tensor", "_rebuild_from_type_v2")
    with pytest.raises(InputError):
        read(b"\x80\x02" + rebuild + b"(" + rebuild + b"NN)NtNtR.")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("os.path", "join"),
        ("nt", "system"),
        ("sys", "exit"),
        ("runpy", "run_path"),
        ("ctypes", "CDLL"),
        ("socket", "socket"),
        ("__builtin__", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "eval.__call__"),
        ("collections", "abc.sys.modules"),
        ("torch", "os.system"),
        ("torch.hub", "load"),
        ("torch", "load"),
        ("numpy", "load"),
        ("a", "B.__init__.__globals__"),
    ],
)
def test_denied(module: str, name: str) -> None:
    assert is_denied(module, name)
    with pytest.raises(UnsafeModelError, match="no honest checkpoint needs"):
        scan(b"\x80\x02" + files.name(module, name) + b".", LIMITS)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("argparse", "Namespace"),
        ("pathlib", "PosixPath"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("functools", "partial"),
        ("collections", "defaultdict"),
        ("__main__", "Net"),
        ("ossuary.models", "Net"),
        ("code.models", "Net.Block"),
        ("torch.nn.modules.conv", "Conv2d"),
        ("torch._dynamo.eval_frame", "OptimizedModule"),
        ("builtins", "set"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("torch.optim.lr_scheduler", "MultiStepLR"),
    ],
)
def test_not_denied(module: str, name: str) -> None:
    assert not is_denied(module, name)


@pytest.mark.parametrize(
    ("pickled", "limits"),
    [
        (b"N" + b"0N" * 50 + b".", Limits(opcodes=50)),
        (b"(" * 11 + b"l" * 11 + b".", Limits(nesting=10)),
        (b"(" + b"".join(files.name("a", f"b{i}") for i in range(6)) + b"l.", Limits(names=5)),
    ],
)
def test_limits_of_the_scan(pickled: bytes, limits: Limits) -> None:
    scan(pickled, LIMITS)
    with pytest.raises(UnsafeModelError):
        scan(pickled, limits)


def test_the_scan_takes_time_in_proportion_to_length() -> None:
    seconds = []
    for n in (5_000, 40_000):
        program = b"\x80\x02](" + b"K\x01\x85q\x01h\x01" * n + b"e."
        start = time.perf_counter()
        read(program)
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < 8 * 4 * seconds[0]


def test_opaque_counts_objects_and_mentions() -> None:
    thing, other = files.name("a", "Thing"), files.name("a", "mentioned")
    result = read(b"(" + (thing + b")R") * 3 + other + b"l.")
    assert result.opaque == {"a.Thing": 3, "a.mentioned": 0}


def test_python_objects_come_out_inert() -> None:
    value = {
        "namespace": types.SimpleNamespace(a=1),
        "ordered": OrderedDict(b=2),
        "range": range(3),
        "nan": math.nan,
    }
    for protocol in range(6):
        read_back = root(files.pickled(value, protocol))
        assert isinstance(read_back["namespace"], Opaque)
        assert read_back["ordered"] == {"b": 2}
        assert isinstance(read_back["range"], Opaque)
        assert math.isnan(read_back["nan"])


def test_system_is_not_called(tmp_path: Path) -> None:
    """Even past the deny-list: the interpreter itself has nothing to call."""
    marker = tmp_path / "marker"
    attack = files.pickled(files.Calls(os.system, f"touch {marker}"))
    result = read_inert(attack, {}, LIMITS)
    assert isinstance(result.root, Opaque)
    assert not marker.exists()
