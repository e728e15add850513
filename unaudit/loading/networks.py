"""Small networks that come with unaudit, so that an audit needs no foreign code.

Their stages are named children, the last of which is always ``head``, a linear layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """A fully connected ReLU network that flattens its input.

    Args:
        widths: Inputs, hidden units of each layer, classes; at least two numbers.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    *hidden, last = range(1, len(widths))
    for index in hidden:
        layers[f"linear{index}"] = nn.Linear(widths[index - 1], widths[index])
        layers[f"relu{index}"] = nn.ReLU()
    layers["head"] = nn.Linear(widths[last - 1], widths[last])
    return nn.Sequential(layers)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, fig. 2).

    Where the shape changes, the shortcut is a 1×1 convolution (their option B): unlike option A,
    the padding with zeros, it needs no code beyond layers.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def resnet(depth: int, width: int, num_classes: int, in_channels: int) -> nn.Sequential:
    """The residual network for small images of He et al. 2016, §4.2.

    Args:
        depth: Number of layers, 6n + 2: a stem, three stages of n blocks, a head.
        width: Channels of the first stage; each later stage doubles them and halves the image.
    """
    blocks = (depth - 2) // 6
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
    )
    channels = width
    for stage in range(3):
        out_channels = width << stage
        first = BasicBlock(channels, out_channels, stride=1 if stage == 0 else 2)
        rest = [BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)]
        layers[f"stage{stage + 1}"] = nn.Sequential(first, *rest)
        channels = out_channels
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, num_classes)
    network = nn.Sequential(layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
