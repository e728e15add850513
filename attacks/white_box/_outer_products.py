"""Squared norms of per-example gradients of single layers, from outer products.

The gradient of a layer's weight for one example is a sum of outer products of what the layer was
given and what came back: G = Σ_t g_t a_tᵀ. For a linear layer with one position per example its
norm is ‖g‖·‖a‖ (Goodfellow 2015, arXiv 1510.01799); with T positions it is
‖G‖² = Σ_st (a_s·a_t)(g_s·g_t), which never forms G, or G itself is formed if that is cheaper
(Bu et al. 2022, "Scalable and efficient training of large convolutional neural networks with
differential privacy", mixed ghost clipping). Convolutions are linear layers on patches. Patches
overlap, so where a convolution moves by single pixels, the products a_s·a_t need no patches: each
is a sum of products of pixels, as many as the kernel has places, and neighbors share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

NUMBERS_AT_ONCE = 1 << 24
"""Numbers in the intermediate arrays held at once: 64 MiB of float32."""
NUMBERS_IN_CACHE = 1 << 19
"""The same on a CPU, which is several times as fast while they stay in its cache."""
TOUCH = 8
"""Multiplications that a matrix product does while a number is copied or added (measured)."""

SquaredNorm: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(layer, its input (b, …), gradient of its output (b, …)) → (b,) squared norms of the gradients of
the layer's own parameters that are trained."""


def rule_for(layer: nn.Module) -> SquaredNorm | None:
    """How to get the norm for a layer; None where it is not known."""
    kind = type(layer)
    if kind is nn.Linear:
        return _linear
    if kind in (nn.Conv1d, nn.Conv2d):
        return _convolution
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return _batch_norm if not layer.training and layer.running_mean is not None else None
    if kind is nn.GroupNorm:
        return _group_norm
    if kind.__name__.endswith("RMSNorm") and [*layer._parameters] == ["weight"]:
        return _rms_norm
    return _layer_norm if kind is nn.LayerNorm else None


def _linear(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    a = given.reshape(len(given), -1, given.shape[-1])
    g = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    total = g.new_zeros(len(g))
    if _trained(layer.weight):
        positions, size = a.shape[1], a.shape[2] * g.shape[2]
        if positions == 1:
            total += a.square().sum(dim=(1, 2)) * g.square().sum(dim=(1, 2))
        elif 2 * positions**2 <= size:
            total += _in_parts(_by_patches, a, g, 2 * positions**2)
        else:
            total += _in_parts(_formed, a, g, size)
    if _trained(layer.bias):
        total += g.sum(dim=1).square().sum(dim=1)
    return total


def _convolution(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    total = gradient.new_zeros(len(gradient))
    if _trained(layer.bias):
        total += gradient.flatten(2).sum(dim=2).square().sum(dim=1)
    if _trained(layer.weight):
        window, given = _window(layer, given)
        if isinstance(layer, nn.Conv1d):
            given, gradient = given.unsqueeze(2), gradient.unsqueeze(2)
        groups = layer.groups
        a = given.reshape(-1, given.shape[1] // groups, *given.shape[2:])
        g = gradient.reshape(-1, gradient.shape[1] // groups, *gradient.shape[2:])
        total += window.squared_norms(a, g).view(-1, groups).sum(dim=1)
    return total


def _window(layer: nn.Conv1d | nn.Conv2d, given: Tensor) -> tuple[Window, Tensor]:
    """How the layer moves over what it is given; padding other than by zeros is done."""
    # what the layer itself pads by, also where its padding is called 'same'
    padding = list(layer._reversed_padding_repeated_twice)
    if layer.padding_mode != "zeros":
        given = functional.pad(given, padding, mode=layer.padding_mode)
        padding = [0] * len(padding)
    ones = (1,) * (2 - len(layer.kernel_size))
    return (
        Window(
            kernel=(*ones, *layer.kernel_size),
            stride=(*ones, *layer.stride),
            dilation=(*ones, *layer.dilation),
            padding=(*padding, 0, 0)[:4],
        ),
        given,
    )


@dataclass(frozen=True)
class Window:
    """How a convolution moves over rows and columns."""

    kernel: tuple[int, ...]
    """Rows, columns."""
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    """Zeros at the left, right, top and bottom."""

    def squared_norms(self, given: Tensor, gradient: Tensor) -> Tensor:
        """(n,) for given (n, c, H, W) and gradient (n, o, h, w), by the cheapest of three ways."""
        channels, outputs = given.shape[1], gradient.shape[1]
        positions, width = gradient[0, 0].numel(), channels * math.prod(self.kernel)
        size = {"formed": width * outputs, "patches": 2 * positions**2}
        cost = {
            "formed": positions * width * outputs + TOUCH * (positions * width + size["formed"]),
            "patches": positions**2 * (width + outputs)
            + TOUCH * (positions * width + size["patches"]),
        }
        if self.stride == (1, 1):
            pixels = given.shape[2] * self.row(given, gradient)
            size["pixels"] = 3 * pixels**2
            cost["pixels"] = pixels**2 * (channels + outputs + TOUCH * (sum(self.kernel) + 2))
        way = min(cost, key=lambda each: cost[each])
        if way == "pixels":
            return _in_parts(self.by_pixels, given, gradient, size[way])
        known = _formed if way == "formed" else _by_patches

        def by_known(given: Tensor, gradient: Tensor) -> Tensor:
            return known(self.patches(given), gradient.flatten(2).transpose(1, 2))

        return _in_parts(by_known, given, gradient, positions * width + size[way])

    def patches(self, given: Tensor) -> Tensor:
        """(n, positions, kernel × channels); channels last, as long pieces of memory copy fast."""
        patches = given.permute(0, 2, 3, 1)
        if any(self.padding):
            patches = functional.pad(patches, (0, 0, *self.padding))
        for axis, (kernel, stride, dilation) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True), start=1
        ):
            reach = dilation * (kernel - 1) + 1
            patches = patches.unfold(axis, reach, stride)[..., ::dilation]
        n, rows, columns = patches.shape[:3]
        return patches.permute(0, 1, 2, 4, 5, 3).reshape(n, rows * columns, -1)

    def row(self, given: Tensor, gradient: Tensor) -> int:
        """Numbers in a row that is followed by so many zeros that no step leads past them."""
        return max(given.shape[3] + max(self.padding[:2]), gradient.shape[3])

    def by_pixels(self, given: Tensor, gradient: Tensor) -> Tensor:
        """(n,) squared norms where the window moves by single pixels.

        The products of all pixels with all pixels, summed over the steps that the kernel makes: a
        step moves both pixels alike. With the pixels of an image in one line, rows separated by
        zeros, a step to the side moves the whole array of products by a fixed distance in memory.
        """
        (n, _, height, width), row = given.shape, self.row(given, gradient)
        pixels, down = height * row, gradient.shape[2]
        products = _gram(functional.pad(given, (0, row - width))).view(n, pixels**2)
        aside = torch.zeros_like(products)
        for place in range(self.kernel[1]):
            step = (place * self.dilation[1] - self.padding[0]) * (pixels + 1)
            to, origin = max(0, -step), max(0, step)
            count = max(0, pixels**2 - abs(step))
            aside[:, to : to + count] += products[:, origin : origin + count]
        aside = aside.view(n, height, row, height, row)
        sums = aside.new_zeros((n, down, row, down, row))
        for place in range(self.kernel[0]):
            step = place * self.dilation[0] - self.padding[2]
            first, stop = max(0, -step), min(down, height - step)
            if first < stop:
                moved = aside[:, first + step : stop + step, :, first + step : stop + step]
                sums[:, first:stop, :, first:stop] += moved
        back = _gram(functional.pad(gradient, (0, row - gradient.shape[3])))
        return (sums.view(n, -1) * back.view(n, -1)).sum(dim=1)


def _gram(maps: Tensor) -> Tensor:
    """(n, pixels, pixels) products of the pixels of maps (n, channels, …)."""
    flat = maps.flatten(2)
    return flat.transpose(1, 2) @ flat


def _by_patches(a: Tensor, g: Tensor) -> Tensor:
    """(n,) for positions a (n, T, k) and g (n, T, o)."""
    return ((a @ a.transpose(1, 2)) * (g @ g.transpose(1, 2))).sum(dim=(1, 2))


def _formed(a: Tensor, g: Tensor) -> Tensor:
    """The same by way of the gradients themselves."""
    norms: Tensor = torch.linalg.vector_norm(g.transpose(1, 2) @ a, dim=(1, 2))
    return norms.square()


def _in_parts(norms: Callable[[Tensor, Tensor], Tensor], a: Tensor, g: Tensor, size: int) -> Tensor:
    """(n,) ``norms`` of as many examples at a time as memory is meant to hold."""
    numbers = NUMBERS_IN_CACHE if a.device.type == "cpu" else NUMBERS_AT_ONCE
    step = max(1, numbers // size)
    return torch.cat(
        [norms(part, own) for part, own in zip(a.split(step), g.split(step), strict=True)]
    )


def _batch_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    plain = functional.batch_norm(given, layer.running_mean, layer.running_var, eps=layer.eps)
    return _scale_and_shift(layer, plain, gradient)


def _group_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.GroupNorm)
    plain = functional.group_norm(given, layer.num_groups, eps=layer.eps)
    return _scale_and_shift(layer, plain, gradient)


def _layer_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(layer, nn.LayerNorm)
    plain = functional.layer_norm(given, layer.normalized_shape, eps=layer.eps)
    shape = (len(plain), -1, math.prod(layer.normalized_shape))
    return _scale_and_shift(
        layer, plain.reshape(shape).transpose(1, 2), gradient.reshape(shape).transpose(1, 2)
    )


def _rms_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    """Of normalizations that every family of language models has its own of: some multiply by the
    weight, some by one more than it, and all are linear in it."""
    weight = layer.get_parameter("weight").detach()
    none, ones = (
        torch.func.functional_call(layer, {"weight": torch.full_like(weight, value)}, (given,))
        for value in (0.0, 1.0)
    )
    shape = (len(given), -1, weight.numel())
    plain = (ones - none).reshape(shape)
    return _scale_and_shift(layer, plain.transpose(1, 2), gradient.reshape(shape).transpose(1, 2))


def _scale_and_shift(layer: nn.Module, plain: Tensor, gradient: Tensor) -> Tensor:
    """(b,) for normalized values and gradients (b, channels, …)."""
    shape = (len(plain), plain.shape[1], -1)
    plain, gradient = plain.reshape(shape), gradient.reshape(shape)
    total = gradient.new_zeros(len(gradient))
    if _trained(layer.weight):
        total += (plain * gradient).sum(dim=2).square().sum(dim=1)
    if _trained(getattr(layer, "bias", None)):
        total += gradient.sum(dim=2).square().sum(dim=1)
    return total


def _trained(parameter: object) -> bool:
    return isinstance(parameter, Tensor) and parameter.requires_grad
