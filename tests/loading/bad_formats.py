"""What is no model file, or a pickle that no reader may follow."""

from __future__ import annotations

import os
import struct
import subprocess
from functools import partial

from tests.loading import files
from tests.loading.bad_files import (
    COMPUTED,
    CYCLE,
    DEEP_LISTS,
    DEEP_TUPLE,
    DOUBLED_TUPLE,
    EXTENSION,
    LAUGHS,
    LONG_BYTES,
    MODULE_CYCLE,
    WIDE_MEMO,
    ZIP_TAIL,
    Bad,
    collisions,
    many_calls,
    touching,
    write_bytes,
    write_fifo,
    write_folder,
    write_hugging_face,
    write_legacy,
    write_npz,
    write_old_torch,
    write_other_zip,
    write_pickle,
    write_stand_in,
    write_torchscript,
    write_zip,
)
from unaudit.errors import InputError, UnsafeModelError, UsageError

FORMATS: tuple[Bad, ...] = (
    # Not there, or not a file
    Bad("missing", lambda path, _: None, InputError, "no such file; check the path"),
    Bad("empty", partial(write_bytes, data=b""), InputError, "is empty; save or download"),
    Bad("folder", write_folder, InputError, "is a folder; give the model file"),
    Bad("hugging-face", write_hugging_face, UsageError, "says what network it is; drop --arch"),
    Bad("fifo", write_fifo, InputError, "not a regular file; give a model file"),
    # Something else
    Bad("web-page", partial(write_bytes, data=b"<!DOCTYPE html><html>"), InputError, "web page"),
    Bad("text", partial(write_bytes, data="Grüße\n".encode()), InputError, "text file"),
    Bad("json", partial(write_bytes, data=b'{"a": 1}'), InputError, "JSON"),
    Bad("lfs", partial(write_bytes, data=b"version https://git-lfs"), InputError, "git lfs pull"),
    Bad("gzip", partial(write_bytes, data=b"\x1f\x8b\x08" + bytes(30)), InputError, "unpack it"),
    Bad("hdf5", partial(write_bytes, data=b"\x89HDF\r\n\x1a\n"), InputError, "HDF5"),
    Bad("tar", partial(write_bytes, data=bytes(257) + b"ustar"), InputError, "tar archive; unpack"),
    Bad("noise", partial(write_bytes, data=bytes([200, 201] * 99)), InputError, "give safetensors"),
    Bad("empty-zip", partial(write_bytes, data=ZIP_TAIL), InputError, "empty zip archive"),
    Bad(
        "npz",
        write_npz,
        UsageError,
        "give outputs:FILE.npz",
    ),
    Bad(
        "other-zip",
        write_other_zip,
        InputError,
        "no model",
    ),
    # Formats that execute
    Bad("torchscript", write_torchscript, UnsafeModelError, "TorchScript.*save its weights"),
    Bad(
        "torchscript-stand-in",
        partial(write_stand_in, members=("constants.pkl", "code/net.py")),
        UnsafeModelError,
        "TorchScript.*save its weights",
    ),
    Bad(
        "pt2-stand-in",
        partial(write_stand_in, members=("archive_format", "models/model.json")),
        UnsafeModelError,
        "torch.export.*save its weights",
    ),
    Bad(
        "pt2-without-root",
        lambda path, marker: write_zip(path, marker, "models/model.json"),
        UnsafeModelError,
        "torch.export.*save its weights",
    ),
    Bad(
        "two-formats-that-execute",
        partial(write_stand_in, members=("archive_format", "constants.pkl")),
        UnsafeModelError,
        "mixes.*save its weights",
    ),
    Bad(
        "legacy-0", partial(write_legacy, protocol=0), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad(
        "legacy-1", partial(write_legacy, protocol=1), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad(
        "legacy-2", partial(write_legacy, protocol=2), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad(
        "legacy-5", partial(write_legacy, protocol=5), UnsafeModelError, "bare pickle.*safetensors"
    ),
    Bad("legacy-torch", write_old_torch, UnsafeModelError, "before 1.6.*save it again"),
    # Pickles that would run code
    Bad(
        "os.system",
        touching(os.system),
        UnsafeModelError,
        r"names '(posix|nt)\.system'.*safetensors",
    ),
    Bad(
        "subprocess",
        touching(subprocess.call),
        UnsafeModelError,
        r"names 'subprocess\.call'",
    ),
    Bad("eval", touching(eval), UnsafeModelError, r"names 'builtins\.eval'"),
    Bad("exec", touching(exec), UnsafeModelError, r"'builtins\.exec'"),
    Bad("open", touching(open), UnsafeModelError, r"names '_?io\.open'"),
    Bad("getattr", touching(getattr), UnsafeModelError, r"\.getattr'"),
    Bad("import", touching(__import__), UnsafeModelError, r"\.__import__'"),
    Bad(
        "os.system-protocol-4",
        touching(os.system, protocol=4),
        UnsafeModelError,
        r"names '(posix|nt)\.system'",
    ),
    Bad(
        "python-2-builtins",
        partial(write_pickle, pickled=b"\x80\x02" + files.name("__builtin__", "execfile") + b"."),
        UnsafeModelError,
        "names 'builtins.execfile'",
    ),
    Bad(
        "dotted-name",
        partial(
            write_pickle,
            pickled=b"\x80\x04"
            + files.text("torch")
            + files.text("serialization.os.system")
            + b"\x93.",
        ),
        UnsafeModelError,
        "names 'torch.serialization.os.system'",
    ),
    Bad(
        "inst",
        partial(write_pickle, pickled=b"(" + files.text("id") + b"ios\nsystem\n."),
        UnsafeModelError,
        "names 'os.system'",
    ),
    Bad("computed-global", partial(write_pickle, pickled=COMPUTED), UnsafeModelError, "computes"),
    Bad("extension", partial(write_pickle, pickled=EXTENSION), UnsafeModelError, "extension codes"),
    # Pickles that would exhaust the machine
    Bad(
        "length-field",
        partial(write_pickle, pickled=LONG_BYTES),
        InputError,
        "damaged or truncated",
    ),
    Bad("deep-tuple", partial(write_pickle, pickled=DEEP_TUPLE), UnsafeModelError, "levels deep"),
    Bad(
        "doubled-tuple",
        partial(write_pickle, pickled=DOUBLED_TUPLE),
        UnsafeModelError,
        "repeats tuples",
    ),
    Bad("wide-memo", partial(write_pickle, pickled=WIDE_MEMO), UnsafeModelError, "memo"),
    Bad("deep-lists", partial(write_pickle, pickled=DEEP_LISTS), UnsafeModelError, "levels deep"),
    Bad("colliding-keys", partial(write_pickle, pickled=collisions()), UnsafeModelError, "as keys"),
    Bad("many-calls", partial(write_pickle, pickled=many_calls()), UnsafeModelError, "huge calls"),
    Bad(
        "gigantic-integer",
        partial(
            write_pickle, pickled=b"\x80\x02\x8b" + struct.pack("<i", 9999) + b"\x01" * 9999 + b"."
        ),
        UnsafeModelError,
        "gigantic integer",
    ),
    Bad(
        "modules-in-a-circle",
        partial(write_pickle, pickled=MODULE_CYCLE),
        UnsafeModelError,
        "without end",
    ),
    # Damaged or dishonest pickles
    Bad("laughs", partial(write_pickle, pickled=LAUGHS), InputError, "damaged"),
    Bad("dict-in-a-circle", partial(write_pickle, pickled=CYCLE), InputError, "holds no weights"),
    Bad("no-pickle", partial(write_pickle, pickled=b"hello"), InputError, "pickle is damaged"),
    Bad(
        "half-a-pickle",
        partial(write_pickle, pickled=b"\x80\x02}("),
        InputError,
        "pickle is damaged",
    ),
    Bad(
        "two-pickles", partial(write_pickle, pickled=b"\x80\x02}.}."), InputError, "behind the end"
    ),
    Bad(
        "foreign-persistent-id",
        partial(write_pickle, pickled=b"\x80\x02" + files.text("x") + b"Q."),
        InputError,
        "pickle is damaged",
    ),
    Bad(
        "text-persistent-id", partial(write_pickle, pickled=b"Pfile\n."), InputError, "other files"
    ),
)
