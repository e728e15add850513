"""Model files whose archive, tensors, weights or architecture are not right."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from functools import partial

import numpy as np
import torch

from tests.loading import files
from tests.loading.bad_files import (
    F32,
    NAN,
    Bad,
    weights,
    write_bytes,
    write_encrypted,
    write_flipped,
    write_header_mismatch,
    write_huge_zip_claim,
    write_miscounted,
    write_module,
    write_padded,
    write_pickle,
    write_polyglot,
    write_quantized,
    write_safetensors,
    write_sparse,
    write_state,
    write_truncated,
    write_zip,
)
from unaudit.errors import InputError, UnsafeModelError, UsageError

CONTENTS: tuple[Bad, ...] = (
    # Tensors that do not fit their storage
    Bad(
        "stride-0",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((10**11,), (0,))})),
        UnsafeModelError,
        "storage of 6 numbers cannot fill; save contiguous",
    ),
    Bad(
        "too-large",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((7,), (1,))})),
        UnsafeModelError,
        "cannot fill",
    ),
    Bad(
        "overlapping",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((3, 3), (1, 1))})),
        UnsafeModelError,
        "cannot fill",
    ),
    Bad(
        "beyond-the-end",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor(offset=1)})),
        UnsafeModelError,
        "cannot fill",
    ),
    Bad(
        "storage-overstated",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor(numel=10**12)})),
        UnsafeModelError,
        "claims 1,000,000,000,000 numbers but has 24 bytes",
    ),
    Bad(
        "storage-missing",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor(key="../7")})),
        InputError,
        "lacks its storage",
    ),
    Bad(
        "negative-size",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((-2, 3))})),
        InputError,
        "damaged",
    ),
    Bad(
        "too-many-axes",
        partial(write_pickle, pickled=files.state_dict({"w": files.tensor((1,) * 60, (1,) * 60)})),
        UnsafeModelError,
        "60 axes",
    ),
    Bad("sparse", write_sparse, InputError, "'head.weight' is sparse.*save dense"),
    Bad("quantized", write_quantized, InputError, r"QInt8Storage.*save float weights"),
    # Archives that readers may understand differently
    Bad("truncated", write_truncated, InputError, "damaged or truncated zip.*save it again"),
    Bad("flipped-byte", write_flipped, InputError, "data/0' is damaged; download"),
    Bad(
        "bytes-before",
        partial(write_padded, before=b"#!/bin/sh\n"),
        UnsafeModelError,
        "in front of",
    ),
    Bad("bytes-after", partial(write_padded, after=b"x"), InputError, "damaged or truncated"),
    Bad(
        "two-archives",
        partial(write_padded, before=b"PK\x03\x04"),
        UnsafeModelError,
        "bytes around",
    ),
    Bad(
        "compressed",
        partial(
            write_pickle,
            pickled=files.state_dict({"w": files.tensor()}),
            compression=zipfile.ZIP_DEFLATED,
        ),
        UnsafeModelError,
        "could inflate without bound",
    ),
    Bad(
        "parent-folder",
        lambda path, marker: write_zip(path, marker, "archive/../../x"),
        UnsafeModelError,
        "could leave its folder",
    ),
    Bad(
        "absolute-path",
        lambda path, marker: write_zip(path, marker, "/etc/x"),
        UnsafeModelError,
        "could leave its folder",
    ),
    Bad(
        "twice",
        lambda path, marker: write_zip(path, marker, "archive/DATA.pkl"),
        UnsafeModelError,
        "twice; save it again",
    ),
    Bad(
        "link",
        lambda path, marker: write_zip(path, marker, "archive/l", mode=0o120777),
        UnsafeModelError,
        "is a link",
    ),
    Bad(
        "two-roots",
        lambda path, marker: write_zip(path, marker, "other/data.pkl"),
        UnsafeModelError,
        "more than one checkpoint",
    ),
    Bad("two-headers", write_header_mismatch, UnsafeModelError, "two headers"),
    Bad("encrypted", write_encrypted, InputError, "is encrypted; save it in the clear"),
    Bad(
        "other-byte-order",
        partial(
            write_pickle,
            pickled=files.state_dict({"w": files.tensor()}),
            byteorder=b"big" if sys.byteorder == "little" else b"little",
        ),
        InputError,
        "another byte order; save it as safetensors",
    ),
    Bad("miscounted", write_miscounted, UnsafeModelError, "miscounts"),
    Bad("claims-beyond-file", write_huge_zip_claim, UnsafeModelError, "overlapping or hidden"),
    # safetensors
    Bad("polyglot", write_polyglot, UnsafeModelError, "both as safetensors and as a zip"),
    Bad("st-truncated", partial(write_safetensors, header={"a": F32}), InputError, "save it again"),
    Bad(
        "st-header-beyond-file",
        partial(write_bytes, data=struct.pack("<Q", 500) + b'{"a":'),
        InputError,
        "truncated",
    ),
    Bad(
        "st-header-gigantic",
        partial(write_bytes, data=struct.pack("<Q", 1 << 40) + b'{"a":' + bytes(20)),
        UnsafeModelError,
        "header of 1,099,511,627,776 bytes",
    ),
    Bad(
        "st-not-json", partial(write_safetensors, header=b"{nonsense"), InputError, "damaged header"
    ),
    Bad(
        "st-deep-json",
        partial(write_safetensors, header=b'{"a":' * 99_999),
        InputError,
        "damaged header",
    ),
    Bad(
        "st-twice",
        partial(
            write_safetensors,
            header=b'{"a":%b,"a":%b}' % ((json.dumps(F32).encode(),) * 2),
            data=bytes(8),
        ),
        UnsafeModelError,
        "names a tensor twice",
    ),
    Bad(
        "st-gigantic",
        partial(write_safetensors, header={"a": {**F32, "shape": [10**15]}}),
        UnsafeModelError,
        "1,000,000,000,000,000 numbers",
    ),
    Bad(
        "st-nothing",
        partial(write_safetensors, header={"__metadata__": {}}),
        InputError,
        "no weights",
    ),
    # Weights that do not fit
    Bad("state-dict-without-arch", write_state, UsageError, "add --arch", arch=None),
    Bad(
        "module-without-arch",
        write_module,
        UsageError,
        r"the file says torch\.nn\.modules\.container\.Sequential; add --arch",
        arch=None,
    ),
    Bad(
        "missing-key",
        partial(write_state, head__bias=None),
        InputError,
        r"1 missing \('head\.bias'\); check --arch",
    ),
    Bad(
        "unexpected-key",
        partial(write_state, extra=torch.zeros(1)),
        InputError,
        r"1 unexpected \('extra'\); check --arch",
    ),
    Bad(
        "hostile-key",
        lambda path, _: torch.save(
            weights() | {"\x1b[31m\u202e" + "x" * 400: torch.zeros(1)}, path
        ),
        InputError,
        r"1 unexpected \('\[31mx+…x+'\)",
    ),
    Bad(
        "misshaped",
        partial(write_state, linear1__weight=torch.zeros(6, 5)),
        InputError,
        r"'linear1\.weight' is \(6, 5\), --arch needs \(6, 4\)",
    ),
    Bad(
        "class-count",
        partial(write_state, head__weight=torch.zeros(100, 6), head__bias=torch.zeros(100)),
        InputError,
        "a model of 100 classes, not 3: set num_classes=100",
    ),
    Bad(
        "nan", partial(write_state, head__bias=NAN), InputError, r"'head\.bias' holds 1 NaN or inf"
    ),
    Bad(
        "infinite", partial(write_state, head__bias=NAN.double() * 1e300), InputError, "NaN or inf"
    ),
    Bad(
        "overflow-in-float32",
        partial(write_state, head__bias=torch.full((3,), 1e300, dtype=torch.float64)),
        InputError,
        "holds 3 NaN or infinite",
    ),
    Bad(
        "integer-weights",
        partial(write_state, head__bias=torch.ones(3, dtype=torch.int8)),
        InputError,
        "is int8 .*save the float weights",
    ),
    Bad(
        "complex-weights",
        partial(write_state, head__bias=torch.ones(3, dtype=torch.complex64)),
        InputError,
        "is complex64",
    ),
    # Checkpoints without or with several weights
    Bad(
        "no-weights",
        lambda path, _: torch.save({"UA": np.float64(0.5), "epoch": 3}, path),
        InputError,
        "holds no weights .*'UA', 'epoch'",
    ),
    Bad(
        "a-list", lambda path, _: torch.save([torch.zeros(2)], path), InputError, "holds no weights"
    ),
    Bad(
        "one-tensor",
        lambda path, _: torch.save(torch.zeros(2), path),
        InputError,
        "holds no weights",
    ),
    Bad(
        "two-sets",
        lambda path, _: torch.save({"model": weights(), "model_ema": weights()}, path),
        InputError,
        r"several sets of weights \('model', 'model_ema'\); save the one",
    ),
    Bad(
        "two-unknown-sets",
        lambda path, _: torch.save({"student": weights(), "teacher": weights()}, path),
        InputError,
        "several sets of weights",
    ),
    Bad(
        "weights-around-weights",
        lambda path, _: torch.save({"first": weights(), "w": torch.zeros(1)}, path),
        InputError,
        "several sets of weights .*the top level",
    ),
    # Architectures
    Bad("no-prefix", write_state, UsageError, "no prefix", arch="resnet18"),
    Bad(
        "unknown-prefix", write_state, UsageError, "did you mean 'torchvision'", arch="torchvison:a"
    ),
    Bad("unknown-own", write_state, UsageError, "did you mean 'resnet'", arch="unaudit:resnt"),
    Bad(
        "unknown-argument",
        write_state,
        UsageError,
        "did you mean 'depth'",
        arch="unaudit:resnet?dept=8",
    ),
    Bad("bad-depth", write_state, UsageError, "6n \\+ 2", arch="unaudit:resnet?depth=9"),
    Bad("bad-width", write_state, UsageError, "positive number", arch="unaudit:resnet?width=wide"),
    Bad("bad-widths", write_state, UsageError, "widths=64-128", arch="unaudit:mlp?widths=4-x-3"),
    Bad("one-width", write_state, UsageError, "two or more", arch="unaudit:mlp?widths=4"),
    Bad("not-a-pair", write_state, UsageError, "key=value", arch="unaudit:mlp?widths"),
    Bad(
        "argument-twice",
        write_state,
        UsageError,
        "given twice",
        arch="unaudit:resnet?depth=8&depth=8",
    ),
    Bad("code-untrusted", write_state, UnsafeModelError, "add --trust-code", arch="py:os:system"),
)
