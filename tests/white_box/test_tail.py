"""The rest of a network, run from cached activations: equal to the whole, and apart from it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unaudit.errors import InputError
from unaudit.training import Recipe, fit
from unaudit.white_box import FEATURES, Tail, examine
from unaudit.white_box.cutting import cut

from .networks import MAKES, Make, examples, made, record, record_features

every_make = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
SMALL = [key for key in MAKES if key not in ("torchvision-resnet18", "torchvision-mobilenet-v3")]
small_makes = pytest.mark.parametrize("make", [MAKES[key] for key in SMALL], ids=SMALL)


def at(make: Make, layer: str, network: nn.Module | None = None) -> Tail:
    """A tail that was checked on four examples."""
    whole = made(make) if network is None else network
    inputs = examples(make, 4)
    return cut(copy.deepcopy(whole), examine(whole, inputs), layer, inputs)


def known(make: Make, network: nn.Module, layer: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Activations and logits by hooks of our own."""
    if layer == FEATURES:
        return record_features(network, make.head, inputs)
    return record(network, layer, inputs)


def middle(make: Make) -> str:
    return make.layers[len(make.layers) // 2]


@every_make
def test_every_layer_continues_to_the_logits_of_the_whole(make: Make) -> None:
    network, inputs = made(make), examples(make, 5, seed=9)
    anatomy = examine(network, inputs)
    spare = copy.deepcopy(network)
    with torch.no_grad():
        for layer in (*make.layers, FEATURES):
            activations, logits = known(make, network, layer, inputs)
            tail = cut(spare, anatomy, layer, examples(make, 4))
            for size in (5, 3, 1):
                torch.testing.assert_close(
                    tail(activations[:size]), logits[:size], rtol=1e-4, atol=1e-5
                )
            features, _ = record_features(network, make.head, inputs)
            torch.testing.assert_close(tail.features(activations), features, rtol=1e-4, atol=1e-5)


@small_makes
def test_gradients_are_those_of_the_whole_network(make: Make) -> None:
    network, inputs = made(make), examples(make, 5, seed=9)
    labels = torch.tensor([0, 1, 2, 3, 4])
    for layer in (make.layers[0], middle(make), FEATURES):
        kept: list[Tensor] = []
        activations, logits = known(make, network, layer, inputs)
        named = dict(network.named_parameters())
        loss = nn.functional.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        expected = dict(zip(named, gradients, strict=True))

        tail = at(make, layer, network)
        leaf = activations.detach().clone().requires_grad_()
        nn.functional.cross_entropy(tail(leaf), labels).backward()
        for name, parameter in tail.named_parameters():
            whole = expected.pop(name.removeprefix("module."))
            assert parameter.grad is not None
            assert whole is not None
            torch.testing.assert_close(parameter.grad, whole, rtol=1e-3, atol=1e-5)
            kept.append(parameter)
        assert len(kept) == len(list(tail.parameters()))
        # the gradient at the cut, carried on through the prefix, gives the prefix its own
        assert leaf.grad is not None
        prefix = [name for name, gradient in expected.items() if gradient is not None]
        if prefix:
            again, _ = known(make, network, layer, inputs)
            carried = torch.autograd.grad(
                again, [named[name] for name in prefix], leaf.grad, allow_unused=True
            )
            for name, gradient in zip(prefix, carried, strict=True):
                whole = expected[name]
                assert gradient is not None, name
                assert whole is not None
                torch.testing.assert_close(gradient, whole, rtol=1e-3, atol=1e-5)


@every_make
def test_only_what_is_behind_the_cut_can_be_trained(make: Make) -> None:
    network = made(make)
    names = [name for name, _ in network.named_parameters()]
    tail = at(make, middle(make), network)
    behind = {name.removeprefix("module.") for name, _ in tail.named_parameters()}
    assert behind < set(names)
    assert f"{make.head}.weight" in behind
    trainable = {name for name, value in tail.module.named_parameters() if value.requires_grad}
    assert trainable == behind
    prefix = make.layers[0]
    assert not any(name.startswith(f"{prefix}.") for name in behind)
    head = at(make, FEATURES, network)
    assert len(list(head.parameters())) == 2


@pytest.mark.parametrize("key", [key for key, make in MAKES.items() if make.around])
def test_a_layer_inside_a_branch_is_refused_and_valid_ones_are_named(key: str) -> None:
    make = MAKES[key]
    network, inputs = made(make), examples(make, 4)
    anatomy = examine(network, inputs)
    for layer in make.around:
        with pytest.raises(InputError, match=f"'{layer}'.*choose one of '{make.layers[0]}'"):
            cut(network, anatomy, layer, inputs)


class Leaky(nn.Module):
    """A shortcut that gradients do not show."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x) + x.detach())
        return logits


def test_values_decide_where_the_graph_is_deceived() -> None:
    network, inputs = Leaky(), torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    anatomy = examine(network, inputs)
    assert "body.1" in anatomy.cuts
    with pytest.raises(InputError, match=r"'body\.1'.*other logits; choose one of"):
        cut(copy.deepcopy(network), anatomy, "body.1", inputs)
    assert isinstance(cut(copy.deepcopy(network), anatomy, FEATURES, inputs), Tail)


def test_one_example_is_enough_to_notice() -> None:
    network, inputs = Leaky(), torch.ones(1, 4)
    with pytest.raises(InputError, match="other logits"):
        cut(copy.deepcopy(network), examine(network, inputs), "body.1", inputs)


def test_code_that_reads_the_batch_size_gets_one_of_that_size() -> None:
    make = MAKES["torchvision-vit"]
    assert at(make, "conv_proj").batched
    assert not at(make, "encoder.layers.encoder_layer_0").batched


@every_make
def test_the_argument_is_not_changed(make: Make) -> None:
    network, inputs = made(make), examples(make, 3)
    with torch.no_grad():
        for layer in (make.layers[-1], FEATURES):
            activations, _ = known(make, network, layer, inputs)
            before = activations.clone()
            at(make, layer, network)(activations)
            assert torch.equal(before, activations)


@pytest.fixture
def convolutions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what every convolution was given."""
    seen: list[tuple[int, ...]] = []
    run = nn.Conv2d.forward

    def watched(self: nn.Conv2d, x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return run(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    return seen


@pytest.mark.parametrize(
    ("key", "layer", "runs"),
    [("torchvision-resnet18", "layer4", 0), ("torchvision-resnet18", "layer3", 5),
     ("resnet-14", "stage3.0", 2), ("torchvision-vit", "encoder.layers.encoder_layer_0", 0)],
)  # fmt: skip
def test_the_prefix_does_not_run(
    key: str, layer: str, runs: int, convolutions: list[tuple[int, ...]]
) -> None:
    make = MAKES[key]
    network = made(make)
    activations, _ = record(network, layer, examples(make, 3))
    tail = at(make, layer, network)
    convolutions.clear()
    tail(activations.detach())
    assert len(convolutions) == runs
    assert all(shape[0] == 3 for shape in convolutions)


def test_train_mode_is_ordinary_training_behind_the_cut() -> None:
    """Against the same modules called one after the other."""
    make = MAKES["resnet-14"]
    network, inputs = made(make), examples(make, 6)
    activations, _ = record(network, "stage2", inputs)
    activations = activations.detach()
    tail = at(make, "stage2", network).train()
    assert tail.training
    plain = copy.deepcopy(network)
    rest = nn.Sequential(*list(plain.children())[3:]).train()
    torch.testing.assert_close(tail(activations), rest(activations), rtol=1e-4, atol=1e-5)
    moved = dict(tail.module.named_buffers())
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(moved[name], buffer)
    untouched = dict(network.named_buffers())
    changed = {name for name in moved if not torch.equal(moved[name], untouched[name])}
    assert changed
    assert all(name.startswith("stage3") for name in changed)
    tail.eval()
    assert not any(module.training for module in tail.modules())


def test_train_mode_goes_through_the_network_too() -> None:
    """The same where the network's own code runs: batch statistics behind the cut only."""
    make = MAKES["torchvision-densenet"]
    network, inputs = made(make), examples(make, 6)
    activations, _ = record(network, "features.transition1", inputs)
    tail = at(make, "features.transition1", network).train()
    before = {name: value.clone() for name, value in tail.module.named_buffers()}
    tail(activations.detach())
    changed = {
        name for name, value in tail.module.named_buffers() if not torch.equal(before[name], value)
    }
    assert changed
    assert all(name.startswith(("features.denseblock2", "features.norm5")) for name in changed)
    assert tail.module.get_submodule("features.norm5").training
    assert not tail.module.get_submodule("features.norm0").training
    assert not network.get_submodule("features.norm5").training


@every_make
def test_reinitializing_leaves_the_prefix_bit_identical(make: Make) -> None:
    network = made(make)
    tail = at(make, middle(make), network)
    behind = {name.removeprefix("module.") for name, _ in tail.named_parameters()}
    tail.reinitialize(torch.Generator().manual_seed(3))
    before = network.state_dict()
    for name, value in tail.module.state_dict().items():
        if name in behind:
            assert not torch.equal(value, before[name]), name
        elif name in dict(network.named_parameters()):
            assert torch.equal(value, before[name]), name
    for name, module in tail.module.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            fresh = torch.equal(module.running_mean, torch.zeros_like(module.running_mean))
            assert fresh == (f"{name}.weight" in behind), name


@pytest.mark.parametrize("key", ["mlp", "resnet-14", "wrapped", "torchvision-vit"])
def test_reinitializing_is_decided_by_the_generator(key: str) -> None:
    make = MAKES[key]
    drawn = []
    for seed in (3, 3, 4):
        tail = at(make, make.layers[0])
        tail.reinitialize(torch.Generator().manual_seed(seed))
        drawn.append(torch.cat([value.detach().flatten() for value in tail.parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_weights_of_unknown_kind_are_shuffled() -> None:
    make = MAKES["wrapped"]
    network = made(make)
    tail = at(make, "encoder.layer.0", network)
    tail.reinitialize(torch.Generator().manual_seed(3))
    before, after = (
        net.get_parameter("encoder.layer.1.scale").detach() for net in (network, tail.module)
    )
    assert not torch.equal(before, after)
    assert torch.equal(before.sort().values, after.sort().values)


def test_running_statistics_without_weights_are_forgotten_behind_the_cut_only() -> None:
    def norm() -> nn.Module:
        return nn.BatchNorm1d(6, affine=False)

    network = nn.Sequential(
        nn.Linear(4, 6), norm(), nn.ReLU(), nn.Linear(6, 6), norm(), nn.ReLU(), nn.Linear(6, 3)
    )
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    network(inputs)
    network.eval()
    tail = cut(copy.deepcopy(network), examine(network, inputs), "2", inputs)
    tail.reinitialize(torch.Generator().manual_seed(0))
    before = network.get_buffer("1.running_mean")
    assert torch.equal(tail.module.get_buffer("1.running_mean"), before)
    assert torch.equal(tail.module.get_buffer("4.running_mean"), torch.zeros(6))


def test_fit_trains_a_tail_and_nothing_else() -> None:
    make = MAKES["resnet-14"]
    network, inputs = made(make), examples(make, 40)
    labels = (inputs.mean(dim=(1, 2, 3)) > 0).long()
    activations, _ = record(network, "stage2", inputs)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tail = at(make, "stage2", network)
    tail.reinitialize(torch.Generator().manual_seed(0))

    def loss() -> float:
        return nn.functional.cross_entropy(tail(activations.detach()), labels).item()

    start = loss()
    generator = torch.Generator().manual_seed(0)
    fit(tail, activations.detach(), labels, Recipe(lr=0.05, epochs=6, batch=20), generator)
    assert loss() < 0.6 * start
    assert not tail.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    prefix = [name for name in before if name.startswith(("stem", "stage1", "stage2"))]
    trained = tail.module.state_dict()
    assert all(torch.equal(before[name], trained[name]) for name in prefix)


@pytest.mark.parametrize("key", ["mlp", "resnet-14", "wrapped", "hasty"])
def test_gradients_per_example_through_torch_func(key: str) -> None:
    """Vectorized over examples, against a loop."""
    make = MAKES[key]
    network, inputs = made(make), examples(make, 4)
    layer = make.layers[-1]
    activations = record(network, layer, inputs)[0].detach()
    labels = torch.tensor([0, 1, 2, 3])
    tail = at(make, layer, network)
    parameters = dict(tail.named_parameters())

    def loss(values: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(tail, values, (one.unsqueeze(0),))
        return nn.functional.cross_entropy(logits, label.unsqueeze(0))

    gradient: Any = torch.func.grad(loss)
    together = torch.func.vmap(gradient, in_dims=(None, 0, 0))(parameters, activations, labels)
    for number in range(4):
        tail.zero_grad()
        logits = tail(activations[number : number + 1])
        nn.functional.cross_entropy(logits, labels[number : number + 1]).backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            torch.testing.assert_close(together[name][number], parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("key", ["resnet-14", "wrapped"])
def test_a_copy_of_a_tail_stands_on_its_own(key: str) -> None:
    make = MAKES[key]
    network = made(make)
    activations = record(network, middle(make), examples(make, 3))[0].detach()
    tail = at(make, middle(make), network)
    before = tail(activations)
    other = copy.deepcopy(tail)
    other.reinitialize(torch.Generator().manual_seed(0))
    assert torch.equal(tail(activations), before)
    assert not torch.allclose(other(activations), before)
    fresh = cut(
        copy.deepcopy(other.module), examine(other.module, examples(make, 3)), middle(make),
        examples(make, 3),
    )  # fmt: skip
    torch.testing.assert_close(other(activations), fresh(activations), rtol=1e-4, atol=1e-5)


def test_the_whole_network_of_a_tail_still_runs() -> None:
    make = MAKES["torchvision-densenet"]
    network, inputs = made(make), examples(make, 3)
    tail = at(make, "features.denseblock1", network)
    activations, logits = record(network, "features.denseblock1", inputs)
    tail(activations.detach())
    torch.testing.assert_close(tail.module(inputs), logits)
