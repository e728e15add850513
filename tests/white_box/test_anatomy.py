"""Blocks, features and head are found in every make of network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.white_box import FEATURES, examine

from .networks import MAKES, Make, examples, made, record, record_features

every_make = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


@every_make
def test_layers_are_the_blocks_in_order(make: Make) -> None:
    anatomy = examine(made(make), examples(make, 3))
    assert anatomy.layers == make.layers
    assert anatomy.head == make.head


@every_make
def test_shapes_are_those_of_one_example(make: Make) -> None:
    network, inputs = made(make), examples(make, 2)
    anatomy = examine(network, inputs)
    with torch.no_grad():
        for layer in make.layers:
            assert anatomy.shape(layer) == record(network, layer, inputs)[0].shape[1:]
        features, _ = record_features(network, make.head, inputs)
    assert anatomy.shape(FEATURES) == (features[0].numel(),)


@every_make
def test_what_information_passes_around_is_no_cut(make: Make) -> None:
    anatomy = examine(made(make), examples(make, 3))
    assert set(make.layers) <= anatomy.cuts
    assert anatomy.cuts.isdisjoint(make.around)
    for layer in make.around:
        with pytest.raises(InputError, match=f"'{layer}'.*around.*'{make.layers[-1]}'"):
            anatomy.check_cut(layer)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_number_of_examples_will_do(n: int) -> None:
    make = MAKES["resnet-14"]
    assert examine(made(make), examples(make, n)).layers == make.layers


def test_the_network_is_left_as_it_was() -> None:
    make = MAKES["resnet-14"]
    network = made(make)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    examine(network, examples(make, 3))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in network.parameters())


def test_names_may_be_given_and_are_put_in_order() -> None:
    make = MAKES["resnet-14"]
    anatomy = examine(made(make), examples(make, 3), layers=("stage3.0", FEATURES, "stage1.1"))
    assert anatomy.layers == ("stage1.1", "stage3.0")


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        ("stage9", "no module of that name.*did you mean"),
        ("stage2.0.conv1", "information passes around it; choose one of 'stem'"),
        ("bad\x1b[31m", r"'bad\[31m'|'bad"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(layer: str, complaint: str) -> None:
    make = MAKES["resnet-14"]
    with pytest.raises(InputError, match=complaint) as caught:
        examine(made(make), examples(make, 3), layers=(layer,))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_runs_twice_has_no_output_to_look_at() -> None:
    make = MAKES["hasty"]
    anatomy = examine(made(make), examples(make, 3))
    with pytest.raises(InputError, match=r"'activation'.*runs 2 times"):
        anatomy.shape("activation")


def test_a_module_called_features_does_not_hide_the_features() -> None:
    make = MAKES["torchvision-densenet"]
    network, inputs = made(make), examples(make, 2)
    anatomy = examine(network, inputs)
    assert FEATURES in dict(network.named_modules())
    assert FEATURES not in anatomy.layers
    features, _ = record_features(network, "classifier", inputs)
    assert anatomy.shape(FEATURES) == tuple(features.shape[1:])


class Cooled(nn.Module):
    """Divides the logits by a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        self.top = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.top(self.body(x)) / 2.5
        return logits


def test_a_head_can_be_named_where_none_gives_the_logits() -> None:
    inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"no linear layer gives the logits.*policy\.access"):
        examine(Cooled(), inputs)
    assert examine(Cooled(), inputs, head="top").head == "top"
    with pytest.raises(InputError, match=r"'body\.0' cannot be the head.*3 logits"):
        examine(Cooled(), inputs, head="body.0")
    with pytest.raises(InputError, match=r"no linear layer is called 'tip'.*'top'"):
        examine(Cooled(), inputs, head="tip")


def test_without_gradients_there_are_features_but_no_cuts() -> None:
    class Sealed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 6)
            self.top = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = self.top(self.body(x).relu())
            return logits

    network = Sealed()
    anatomy = examine(network, torch.ones(2, 4))
    assert anatomy.layers == ()
    assert anatomy.head == "top"
    with pytest.raises(InputError, match="around it; choose one of 'features'"):
        anatomy.check_cut("body")


def test_blocks_that_are_cuts_only_without_a_shortcut_are_not_taken_apart() -> None:
    """With stride 2 an inverted residual block is a plain chain, and a block all the same."""
    make = MAKES["torchvision-mobilenet-v3"]
    anatomy = examine(made(make), examples(make, 3))
    assert "features.1.block.0" in anatomy.cuts
    assert "features.3.block.0" not in anatomy.cuts
    assert "features.1" in anatomy.layers
