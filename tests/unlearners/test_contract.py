"""What every task must hold before a method sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unaudit.errors import InputError
from unaudit.evidence import SCENARIOS
from unaudit.unlearners import check_task, load_unlearners

from .toy import task


@pytest.mark.parametrize("name", ["boundary-shrink", "tmu"])
def test_what_moves_inputs_is_refused_for_texts(name: str) -> None:
    images = task()
    texts = replace(images, inputs=torch.randint(0, 9, (len(images.inputs), 5)))
    card = load_unlearners().get(name).card
    wanted = replace(card, scenarios=SCENARIOS, consumes=frozenset())
    check_task(wanted, images)
    with pytest.raises(InputError, match="which texts do not allow"):
        check_task(wanted, texts)
    check_task(replace(wanted, moves_inputs=False), texts)
