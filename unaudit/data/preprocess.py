"""From stored examples to what a model is fed: resize, crop, layout, scale, normalize."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from unaudit.data.images import BadExampleError
from unaudit.errors import UsageError
from unaudit.plan import PreprocessSection

CODE_VERSION = 1
"""Raise when a change of code changes what a model would be fed."""

_FOR_TEXTS = ("tokenizer", "max_length", "truncation")

Kind = Literal["image", "array"]
"""Decoded from an image file format, or stored as numbers."""


class Preprocessor:
    """The ``[preprocess]`` section at work.

    The order is fixed: color conversion, resize, center crop, channels to the front, float32,
    division by the scale, normalization. The default scale is 255 for decoded images and for
    uint8 arrays, else 1. Pillow resizes (bilinear, antialiased), so that pixels give the same
    input whatever file format they come from; arrays are resized channel by channel, those that
    are not uint8 in float32.
    """

    def __init__(self, settings: PreprocessSection, kind: Kind) -> None:
        for name in _FOR_TEXTS:
            if getattr(settings, name) != PreprocessSection.model_fields[name].default:
                raise UsageError(f"preprocess.{name} is for texts; take it out")
        self.settings = settings
        self.kind: Kind = kind
        self.mode = "L" if settings.channels == "gray" else "RGB"
        """Pillow mode that images are decoded to."""
        self.channels_last = kind == "image" or settings.layout == "nhwc"
        """Whether stored examples have their channels on the last axis."""
        for name, values in (("scale", (settings.scale,)), ("std", settings.std or ())):
            for value in values:
                # the division happens in float32, where tiny numbers are 0
                if value is not None and not 1e-30 < value < 1e30:
                    raise UsageError(f"preprocess.{name} of {value:g} is out of range; check it")

    @property
    def digest(self) -> str:
        """Of everything that decides how a stored example becomes an input."""
        settings = self.settings.model_dump_json(exclude=set(_FOR_TEXTS))
        text = f"{CODE_VERSION}\n{self.kind}\n{settings}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def fits(self) -> bool:
        """Whether examples of different sizes come out with one size."""
        return self.settings.resize is not None or self.settings.center_crop is not None

    def fit_image(self, image: Image.Image) -> Image.Image:
        """Resize and crop, if asked to.

        Raises:
            BadExampleError: the image is smaller than the crop.
        """
        if self.settings.resize is not None:
            height, width = self.settings.resize
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
        if self.settings.center_crop is not None:
            height, width = self.settings.center_crop
            if image.width < width or image.height < height:
                raise BadExampleError(
                    f"has {image.height}×{image.width} pixels (height × width), fewer than "
                    f"preprocess.center_crop asks for ({height}×{width}); set preprocess.resize"
                )
            left, top = round((image.width - width) / 2), round((image.height - height) / 2)
            image = image.crop((left, top, left + width, top + height))
        return image

    def fit_array(self, example: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Resize and crop one stored array; its axes stay where they are.

        Raises:
            BadExampleError: the array is smaller than the crop.
            UsageError: the array does not have the axes of an image.
        """
        if not self.fits:
            return example
        if example.ndim not in (2, 3) or (example.ndim == 2 and self.channels_last):
            shape = "×".join(str(size) for size in example.shape)
            raise UsageError(
                f"preprocess.resize and center_crop need images, but examples have shape {shape}; "
                "take them out"
            )
        axis = 2 if self.channels_last else 0
        planes = [example] if example.ndim == 2 else list(np.moveaxis(example, axis, 0))
        if example.dtype != np.uint8:
            planes = [plane.astype(np.float32) for plane in planes]
        fitted = [
            np.asarray(self.fit_image(Image.fromarray(np.ascontiguousarray(plane))))
            for plane in planes
        ]
        return fitted[0] if example.ndim == 2 else np.stack(fitted, axis=axis)

    def shape_of(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the input made from a fitted example of shape ``stored``.

        Raises:
            UsageError: mean and std have the wrong number of values, or channels cannot be had.
        """
        shape = (stored[-1], *stored[:-1]) if self.channels_last else stored
        written = "×".join(str(size) for size in shape)
        if self.kind == "array" and self.settings.channels is not None:
            wanted = 1 if self.mode == "L" else 3
            if (shape[0] if len(shape) > 2 else 1) != wanted:
                raise UsageError(
                    f"preprocess.channels = '{self.settings.channels}' converts decoded images "
                    f"only, but examples are arrays of shape {written}; take it out"
                )
        if self.settings.mean is not None:
            given = len(self.settings.mean)
            if given != shape[0] and (given != 1 or len(shape) > 2):
                raise UsageError(
                    f"preprocess.mean and std have {given} {'value' if given == 1 else 'values'}, "
                    f"but examples of shape {written} have {shape[0]} channels; give one value per "
                    "channel, or set preprocess.layout or channels"
                )
        return shape

    def finish(
        self, examples: npt.NDArray[np.generic], out: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.bool_] | None:
        """Turn a stack of fitted examples (k, …) into inputs in ``out`` (k, *input_shape).

        Returns which examples are finite: (k,) bool, or None if all of them must be.
        """
        moved = (
            np.moveaxis(examples, -1, 1) if self.channels_last and examples.ndim > 1 else examples
        )
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = moved
            scale = self.settings.scale
            if scale is None:
                scale = 255.0 if self.kind == "image" or examples.dtype == np.uint8 else 1.0
            if scale != 1.0:
                out /= np.float32(scale)
            if self.settings.mean is not None and self.settings.std is not None:
                per_channel = (-1,) + (1,) * (out.ndim - 2)
                out -= np.array(self.settings.mean, dtype=np.float32).reshape(per_channel)
                out /= np.array(self.settings.std, dtype=np.float32).reshape(per_channel)
            if examples.dtype.kind != "f":
                return None
            return np.asarray(np.isfinite(out).reshape(len(out), -1).all(axis=1))
