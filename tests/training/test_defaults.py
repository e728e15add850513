"""What a recipe leaves open, and what it cannot ask for."""

from __future__ import annotations

import pytest
from torch import nn

from unaudit.errors import UsageError
from unaudit.loading.networks import mlp, resnet
from unaudit.training.defaults import setting_of


def reader() -> nn.Module:
    return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(28, 3))


@pytest.mark.parametrize("augment", ["flip", "crop-flip"])
def test_only_images_are_augmented(augment: str) -> None:
    message = (
        f"^recipe.augment = '{augment}' is for images, and {{}} are not augmented; take it out"
    )
    with pytest.raises(UsageError, match=message.format("texts")):
        setting_of({"augment": augment}, reader(), (7,))
    with pytest.raises(UsageError, match=message.format(r"inputs of shape \(16,\)")):
        setting_of({"augment": augment}, mlp((16, 3)), (16,))
    assert setting_of({"augment": augment}, resnet(8, 4, 3, 3), (3, 8, 8)).augment == augment


def test_none_is_for_all() -> None:
    for stated in ({"augment": "none"}, {"augment": None}, {}):
        assert setting_of(stated, reader(), (7,)).augment == "none"
    assert setting_of({"augment": "none"}, resnet(8, 4, 3, 3), (3, 8, 8)).augment == "none"
    assert setting_of({}, resnet(8, 4, 3, 3), (3, 8, 8)).augment == "crop-flip"
