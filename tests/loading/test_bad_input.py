"""Every bad model file ends in one line with a remedy and the right exit code, and runs nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.loading.bad_contents import CONTENTS
from tests.loading.bad_files import Bad, write_call
from tests.loading.bad_formats import FORMATS
from tests.loading.files import ARCH
from unaudit.errors import ExitCode, InputError, UnauditError, UnsafeModelError
from unaudit.loading import load_model


@pytest.mark.parametrize("bad", [*FORMATS, *CONTENTS], ids=lambda bad: bad.id)
def test_refused_in_one_line_without_running_anything(bad: Bad, tmp_path: Path) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    bad.write(path, marker)
    before = set(tmp_path.iterdir())
    with pytest.raises(UnauditError) as caught:
        load_model(str(path), arch=bad.arch)
    message = str(caught.value)
    assert type(caught.value) is bad.error
    assert re.search(bad.says, message), message
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 600
    assert message.startswith(f"{path}: ") == (bad.arch in (ARCH, None))
    assert not marker.exists()
    assert set(tmp_path.iterdir()) == before
    unsafe = bad.error is UnsafeModelError
    assert caught.value.exit_code == (ExitCode.UNSAFE_MODEL if unsafe else ExitCode.BAD_INPUT)


def test_the_attack_of_these_tests_works(tmp_path: Path) -> None:
    """Otherwise 'the marker is absent' would prove nothing."""
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    write_call(path, marker, os.system, "touch MARKER")
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_an_unreadable_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        load_model(str(tmp_path / "a\0b"), arch=ARCH)


def test_a_lazy_network_is_refused(tmp_path: Path) -> None:
    from unaudit.loading.fit import fit

    with pytest.raises(InputError, match="lazy layers"):
        fit(nn.Sequential(nn.LazyLinear(3)), {"0.weight": torch.zeros(3, 4)})
