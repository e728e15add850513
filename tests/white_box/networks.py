"""Small networks of every make that the white-box view must understand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unaudit.errors import UsageError
from unaudit.loading.networks import mlp, resnet
from unaudit.loading.torchvision_shim import import_torchvision


@dataclass(frozen=True)
class Make:
    """A network and what is known of it."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of one example."""
    layers: tuple[str, ...]
    head: str
    around: tuple[str, ...] = ()
    """Modules that information passes around."""


class Wrapped(nn.Module):
    """A transformer in the style of Hugging Face: lists of layers, tuples, a class token."""

    def __init__(self, depth: int = 3, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = Layers(depth, width)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        states = self.embed(x)
        states = torch.cat([self.token.expand(len(x), -1, -1), states], dim=1)
        logits: Tensor = self.classifier(self.norm(self.encoder(states)["last"])[:, 0])
        return logits


class Layers(nn.Module):
    """Holds its blocks in a list and returns a dictionary."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(width) for _ in range(depth))

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        for layer in self.layer:
            states = layer(states)[0]
        return {"last": states}


class Layer(nn.Module):
    """A block that returns a tuple and keeps a scale of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(width, 2, batch_first=True)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, states: Tensor) -> tuple[Tensor, None]:
        states = states + self.mix(states, states, states, need_weights=False)[0]
        hidden = torch.relu(self.widen(states))
        return states + self.scale * self.narrow(hidden), None


class Hasty(nn.Module):
    """Changes what its blocks return in place, runs one module twice, ends in log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(5, 5)
        self.head = nn.Linear(6, 5)  # defined first, runs last
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        x = self.second(x)
        x += 1.0
        return torch.log_softmax(self.head(self.activation(x).mean(dim=(2, 3))), dim=1)


def vision(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        try:
            models = import_torchvision().models
        except UsageError as error:
            pytest.skip(str(error))
        network: nn.Module = getattr(models, name)(**arguments)
        return network

    return build


def vgg() -> nn.Module:
    """VGG-11 with a tenth of its convolutions and a small classifier."""
    network = vision("VGG", features=nn.Sequential(), num_classes=5, init_weights=False)
    stages: list[nn.Module] = []
    channels = 3
    for width in (6, 0, 12, 0, 24, 24, 0, 48, 48, 0, 48, 48, 0):
        if width:
            stages += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            stages.append(nn.MaxPool2d(2, 2))
    with torch.device("meta"):
        built: Any = network()
    built.features = nn.Sequential(*stages)
    built.avgpool = nn.AdaptiveAvgPool2d((7, 7))
    built.classifier = nn.Sequential(
        nn.Linear(48 * 49, 32), nn.ReLU(True), nn.Dropout(),
        nn.Linear(32, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip
    module: nn.Module = built
    return module


_STAGES = tuple(f"layer{number}" for number in range(1, 5))

MAKES: Mapping[str, Make] = {
    "mlp": Make(lambda: mlp([16, 12, 9, 5]), (16,), ("relu1",), "head"),
    "resnet-14": Make(
        lambda: resnet(14, 4, 5, 3), (3, 8, 8), ("stem", "stage1", "stage2", "stage3"), "head",
        ("stage1.0.conv1", "stage2.0.bn2", "stage2.0.shortcut", "stage3.1.shortcut"),
    ),
    "plain-cnn": Make(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        ), (3, 10, 10), ("3", "5"), "8",
    ),
    "hasty": Make(Hasty, (3, 6, 6), ("first", "second"), "head"),
    "wrapped": Make(
        Wrapped, (3, 4), ("embed", "encoder.layer.0", "encoder.layer.1", "encoder.layer.2"),
        "classifier", ("encoder.layer.1.widen", "encoder.layer.0.narrow"),
    ),
    "torchvision-resnet18": Make(
        vision("resnet18", num_classes=5), (3, 40, 40), ("maxpool", *_STAGES), "fc",
        ("layer1.0.conv1", "layer1.0.bn2", "layer4.0.downsample", "layer4.1.bn1"),
    ),
    "torchvision-vit": Make(
        vision(
            "VisionTransformer", image_size=16, patch_size=4, num_layers=3, num_heads=2,
            hidden_dim=12, mlp_dim=16, num_classes=5,
        ),
        (3, 16, 16),
        ("conv_proj", *(f"encoder.layers.encoder_layer_{number}" for number in range(3))),
        "heads.head", ("encoder.layers.encoder_layer_1.mlp",),
    ),
    "torchvision-densenet": Make(
        vision(
            "DenseNet", growth_rate=4, block_config=(2, 3), num_init_features=8, num_classes=5
        ),
        (3, 32, 32),
        ("features.pool0", "features.denseblock1", "features.transition1", "features.denseblock2"),
        "classifier", ("features.denseblock1.denselayer1", "features.denseblock2.denselayer3"),
    ),
    "torchvision-mobilenet-v3": Make(
        vision("mobilenet_v3_small", num_classes=5), (3, 32, 32),
        (*(f"features.{number}" for number in range(12)), "avgpool"), "classifier.3",
        ("features.3.block.0", "features.1.block.1.fc1"),
    ),
    "torchvision-vgg": Make(
        vgg, (3, 32, 32),
        (*(f"features.{number}" for number in (2, 5, 7, 10, 12, 15, 17)), "avgpool",
         "classifier.1"), "classifier.6",
    ),
}  # fmt: skip


def made(make: Make, seed: int = 0) -> nn.Module:
    """The network in eval mode, with weights and running statistics that depend on the seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        network = make.build()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + drawn.abs())
            elif value.ndim > 1:
                value.copy_(1.5 * drawn / math.sqrt(value[0].numel()))
            else:
                value.copy_(1.0 * name.endswith("weight") + 0.2 * drawn)
    return network.eval()


def examples(make: Make, n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, *make.shape, generator=torch.Generator().manual_seed(seed))


def record(network: nn.Module, layer: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer puts out, taken by a hook of our own, and the logits."""
    seen: list[Tensor] = []

    def hook(_: nn.Module, args: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).clone())

    handle = network.get_submodule(layer).register_forward_hook(hook)
    try:
        logits = network(inputs)
    finally:
        handle.remove()
    return seen[-1], logits


def record_features(network: nn.Module, head: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What the head is given, and the logits."""
    seen: list[Tensor] = []
    layer = network.get_submodule(head)
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    try:
        logits = network(inputs)
    finally:
        handle.remove()
    return seen[-1], logits
