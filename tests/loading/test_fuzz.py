"""Mutated files: whatever happens, only a complaint for the user escapes, and soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.loading import files
from tests.loading.files import ARCH
from unaudit.errors import UnauditError
from unaudit.loading import load_model

MUTANTS = 60
SECONDS_EACH = 3.0


def _plain(path: Path) -> None:
    torch.save(files.network().state_dict(), path)


def _module(path: Path) -> None:
    torch.save(files.network(), path)


def _messy(path: Path) -> None:
    state = {"state_dict": files.network().state_dict(), "result": np.float64(1), "epoch": 3}
    torch.save(state, path, pickle_protocol=4)


def _safetensors(path: Path) -> None:
    save_file(files.network().state_dict(), path)


def _recorded(path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("forget", "unseen"):
        arrays[f"{split}_logits"] = rng.normal(size=(20, 4)).astype(np.float32)
        arrays[f"{split}_labels"] = rng.integers(0, 4, 20)
        arrays[f"{split}_ids"] = np.array([f"{split}{i}" for i in range(20)])
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip some bytes, cut the end, repeat or remove a slice, or overwrite one with extremes."""
    mutant = bytearray(data)
    kind = rng.integers(5)
    start = int(rng.integers(len(mutant)))
    length = int(rng.integers(1, 9))
    if kind == 0:
        for position in rng.integers(len(mutant), size=length):
            mutant[position] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del mutant[start:]
    elif kind == 2:
        mutant[start:start] = mutant[start : start + 8 * length]
    elif kind == 3:
        del mutant[start : start + length]
    else:
        mutant[start : start + length] = bytes([int(rng.choice([0, 127, 128, 255]))]) * length
    return bytes(mutant)


def _survives(path: Path, spec: str) -> bool:
    complaint = None
    begin = time.perf_counter()
    try:
        load_model(spec, arch=ARCH)
    except UnauditError as error:
        complaint = str(error)
    assert time.perf_counter() - begin < SECONDS_EACH, path
    assert complaint is None or complaint.isprintable()
    return complaint is None


@pytest.mark.parametrize("write", [_plain, _module, _messy, _safetensors, _recorded])
def test_mutated_files(write: Callable[[Path], None], tmp_path: Path) -> None:
    original, mutant = tmp_path / "original", tmp_path / "mutant"
    write(original)
    prefix = "outputs:" if write is _recorded else ""
    assert _survives(original, f"{prefix}{original}")
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(MUTANTS):
        mutant.write_bytes(mutate(original.read_bytes(), rng))
        refused += not _survives(mutant, f"{prefix}{mutant}")
    assert refused > MUTANTS // 4


@pytest.mark.parametrize("write", [_plain, _module, _messy])
def test_mutated_pickles_in_sound_archives(write: Callable[[Path], None], tmp_path: Path) -> None:
    """The checksum of the archive does not shield the pickle machine here."""
    original, mutant = tmp_path / "original", tmp_path / "mutant"
    write(original)
    pickled = files.pickle_of(original)
    rng = np.random.default_rng(2)
    for _ in range(2 * MUTANTS):
        files.repacked(original, mutant, mutate(pickled, rng))
        _survives(mutant, str(mutant))


def test_random_opcodes(tmp_path: Path) -> None:
    """Programs of valid opcodes in random order reach further than flipped bytes."""
    from tests.loading.test_inert_reader import ACTIONS, VALUES

    pieces = [
        program.rstrip(b".") for program in (*VALUES.values(), *(p for p, _ in ACTIONS.values()))
    ]
    glue = [b"(", b"t", b"l", b"d", b"u", b"e", b"R", b"b", b"\x81", b"0", b"2", b"s", b"a", b"Q"]
    rng = np.random.default_rng(3)
    path = tmp_path / "m.pt"
    for _ in range(4 * MUTANTS):
        picks = rng.integers(0, 2, size=int(rng.integers(2, 40)))
        program = b"".join(
            pieces[rng.integers(len(pieces))] if pick else glue[rng.integers(len(glue))]
            for pick in picks
        )
        files.checkpoint(path, program + b".")
        _survives(path, str(path))
