"""Encoded images to pixels, by Pillow and from a closed list of file formats."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from unaudit.text import plain

MAX_PIXELS = 1 << 26
"""Refuse larger images before decoding: 67 megapixels, 200 MB of RGB."""

# Image.open() would try every format that it knows, some of which start other programs
_FORMATS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"P5", PpmImagePlugin.PpmImageFile),
    (b"P6", PpmImagePlugin.PpmImageFile),
)
FORMAT_NAMES = "PNG, JPEG, WebP, BMP, GIF or PPM"

_EIGHT_BIT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"})


class BadExampleError(Exception):
    """Why one example cannot be used; whoever knows its id turns this into an InputError."""


def image_class(head: bytes) -> type[ImageFile.ImageFile] | None:
    """The decoder for data that begins with ``head`` (12 bytes or more), None if it is no image."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return next((kind for magic, kind in _FORMATS if head.startswith(magic)), None)


def decode(data: bytes, mode: str) -> Image.Image:
    """The first frame of an encoded image, in ``mode`` (``RGB`` or ``L``).

    Transparency is dropped, and an orientation tag is ignored, as by torchvision's loader.

    Raises:
        BadExampleError: no known format, damaged, too large, or more than 8 bits per channel.
    """
    kind = image_class(data[:12])
    if kind is None:
        raise BadExampleError(f"is not a {FORMAT_NAMES} image; convert or remove it")
    try:
        # other packages (WeasyPrint) switch this on for the whole process: half an image would pass
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        image: Image.Image = kind(io.BytesIO(data))
        width, height = image.size
        if width * height <= MAX_PIXELS:
            image.load()
            if image.mode in _EIGHT_BIT and image.mode != mode:
                # Pillow warns that converting would drop it, which is what is wanted here
                image.info.pop("transparency", None)
                image = image.convert(mode)
    except Exception as error:  # damaged data makes decoders fail in many ways
        reason = plain(error, 80) or type(error).__name__
        raise BadExampleError(f"is a damaged image ({reason}); replace or remove it") from None
    if width * height > MAX_PIXELS:
        raise BadExampleError(
            f"is an image of {width}×{height} pixels, more than the {MAX_PIXELS} allowed; shrink it"
        )
    if image.mode != mode:
        raise BadExampleError(
            f"is an image with more than 8 bits per channel (mode {image.mode}); convert it to 8 "
            "bits, or store the values as an array"
        )
    return image


def stack(images: Sequence[Image.Image]) -> npt.NDArray[np.uint8]:
    """(k, height, width, channels) uint8 pixels of images of one size and mode."""
    width, height = images[0].size
    channels = len(images[0].getbands())
    # one export of a tall canvas is cheaper than one export per small image
    canvas = images[0]
    if len(images) > 1:
        canvas = Image.new(canvas.mode, (width, height * len(images)))
        for position, image in enumerate(images):
            canvas.paste(image, (0, position * height))
    return np.asarray(canvas, dtype=np.uint8).reshape(len(images), height, width, channels)
