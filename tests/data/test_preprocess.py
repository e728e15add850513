"""Preprocessing against Pillow and torchvision's arithmetic, written out."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.data.conftest import Opener, Tiny
from unaudit.data import Dataset
from unaudit.data.preprocess import Preprocessor
from unaudit.errors import UsageError
from unaudit.plan import PreprocessSection

Everything = Callable[[Dataset], npt.NDArray[np.float32]]
Encode = Callable[..., bytes]


@pytest.fixture
def photos(tmp_path: Path, encode: Encode) -> tuple[Path, list[bytes]]:
    """Smooth images of different sizes in different formats and modes, as parquet."""
    rng = np.random.default_rng(5)
    files = []
    for number, kind in enumerate(("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM")):
        small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        size = (30 + 7 * number, 24 + 5 * number)
        image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        if kind == "GIF":
            image = image.quantize(32)
        out = io.BytesIO()
        image.save(out, kind)
        files.append(out.getvalue())
    table = pa.table({"image": files, "label": [0] * len(files)})
    pq.write_table(table, tmp_path / "photos.parquet")
    return tmp_path / "photos.parquet", files


def by_pillow(data: bytes, resize: tuple[int, int], crop: tuple[int, int], mode: str) -> Any:
    image = Image.open(io.BytesIO(data)).convert(mode)
    image = image.resize(resize[::-1], Image.Resampling.BILINEAR)
    left, top = round((resize[1] - crop[1]) / 2), round((resize[0] - crop[0]) / 2)
    image = image.crop((left, top, left + crop[1], top + crop[0]))
    pixels = np.array(image)[..., None] if mode == "L" else np.array(image)
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)


@pytest.mark.parametrize(("channels", "mode"), [(None, "RGB"), ("rgb", "RGB"), ("gray", "L")])
def test_photos(
    photos: tuple[Path, list[bytes]],
    opened: Opener,
    everything: Everything,
    channels: str | None,
    mode: str,
) -> None:
    path, files = photos
    dataset = opened(
        path, preprocess={"channels": channels, "resize": (19, 21), "center_crop": (14, 16)}
    )
    expected = torch.stack([by_pillow(data, (19, 21), (14, 16), mode) for data in files])
    assert dataset.input_shape == tuple(expected.shape[1:])
    assert np.array_equal(everything(dataset), expected.numpy())


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "transparent P"])
def test_image_modes(
    tmp_path: Path, opened: Opener, everything: Everything, tiny: Tiny, mode: str
) -> None:
    image = Image.fromarray(tiny.images[0])
    out = io.BytesIO()
    if mode == "transparent P":
        image = image.convert("P")
        image.save(out, "PNG", transparency=bytes(range(256)))
    else:
        image = image.convert(mode)
        image.save(out, "JPEG" if mode == "CMYK" else "PNG")
    table = pa.table({"image": [out.getvalue()], "label": [0]})
    pq.write_table(table, tmp_path / "d.parquet")
    for channels, target in (("rgb", "RGB"), ("gray", "L")):
        expected = np.array(Image.open(io.BytesIO(out.getvalue())).convert(target))
        dataset = opened(tmp_path / "d.parquet", preprocess={"channels": channels, "scale": 1})
        found = everything(dataset)[0].transpose(1, 2, 0)
        assert np.array_equal(found.squeeze(), expected.astype(np.float32))


@pytest.mark.parametrize("layout", ["as-is", "nhwc"])
def test_stored_pixels_are_resized_like_image_files(
    tmp_path: Path,
    tiny: Tiny,
    opened: Opener,
    everything: Everything,
    encode: Encode,
    layout: str,
) -> None:
    x = tiny.images if layout == "nhwc" else np.moveaxis(tiny.images, -1, 1)
    np.savez(tmp_path / "d.npz", x=x, y=tiny.labels)
    table = pa.table({"image": [encode(p) for p in tiny.images], "label": tiny.labels})
    pq.write_table(table, tmp_path / "d.parquet")
    settings = {"resize": (9, 4), "center_crop": (5, 3), "layout": layout}
    arrays = opened(tmp_path / "d.npz", preprocess=settings)
    images = opened(tmp_path / "d.parquet", preprocess=settings)
    assert arrays.input_shape == images.input_shape == (3, 5, 3)
    assert np.array_equal(everything(arrays), everything(images))


def test_float_arrays_are_resized_without_rounding(
    tmp_path: Path, tiny: Tiny, opened: Opener, everything: Everything
) -> None:
    x = tiny.images.transpose(0, 3, 1, 2) / 255
    np.savez(tmp_path / "f.npz", x=x, y=tiny.labels)
    found = everything(opened(tmp_path / "f.npz", preprocess={"resize": (12, 10)}))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).float(), (12, 10), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    gray = x[:, 0]
    np.savez(tmp_path / "g.npz", x=gray, y=tiny.labels)
    found = everything(opened(tmp_path / "g.npz", preprocess={"resize": (12, 10)}))
    np.testing.assert_allclose(found, expected.numpy()[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "scale", "divisor"),
    [
        (np.uint8, None, 255),
        (np.uint8, 1.0, 1),
        (np.int64, None, 1),
        (np.uint16, None, 1),
        (np.float16, None, 1),
        (">f8", 2.0, 2),
        (np.bool_, None, 1),
    ],
)
def test_default_scale(
    tmp_path: Path,
    opened: Opener,
    everything: Everything,
    dtype: npt.DTypeLike,
    scale: float | None,
    divisor: float,
) -> None:
    x = np.array([[0, 1], [1, 5]]).astype(dtype)
    np.savez(tmp_path / "d.npz", x=x, y=[0, 1])
    found = everything(opened(tmp_path / "d.npz", preprocess={"scale": scale}))
    assert np.array_equal(found, x.astype(np.float32) / np.float32(divisor))


@pytest.mark.parametrize(
    ("shape", "layout", "result", "mean"),
    [
        ((7,), "as-is", (7,), (0.5,)),
        ((7,), "as-is", (7,), tuple(range(7))),
        ((3, 20), "as-is", (3, 20), (1.0, 2.0, 3.0)),
        ((3, 20), "as-is", (3, 20), (1.0,)),
        ((20, 3), "nhwc", (3, 20), (1.0, 2.0, 3.0)),
        ((4, 5, 3), "nhwc", (3, 4, 5), (1.0, 2.0, 3.0)),
        ((3, 4, 5), "as-is", (3, 4, 5), (1.0, 2.0, 3.0)),
        ((2, 4, 5, 3), "nhwc", (3, 2, 4, 5), (1.0, 2.0, 3.0)),
    ],
)
def test_inputs_of_any_fixed_shape(
    tmp_path: Path,
    opened: Opener,
    everything: Everything,
    shape: tuple[int, ...],
    layout: str,
    result: tuple[int, ...],
    mean: tuple[float, ...],
) -> None:
    x = np.random.default_rng(1).normal(size=(6, *shape)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros(6, dtype=int))
    std = tuple(value + 0.5 for value in mean)
    dataset = opened(tmp_path / "d.npz", preprocess={"layout": layout, "mean": mean, "std": std})
    assert dataset.input_shape == result
    moved = np.moveaxis(x, -1, 1) if layout == "nhwc" else x
    per_channel = (-1,) + (1,) * (len(shape) - 1)
    m, s = (np.array(v, dtype=np.float32).reshape(per_channel) for v in (mean, std))
    assert np.array_equal(everything(dataset), (moved - m) / s)


@pytest.mark.parametrize(
    ("shape", "settings", "complaint"),
    [
        ((1, 4, 5), {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}, "have 3 values, but examples"),
        ((3, 4, 5), {"mean": (0.1,), "std": (1,)}, "have 1 value, but examples of shape 3×4×5"),
        ((4, 5, 3), {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}, "set preprocess.layout"),
        ((7,), {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}, "examples of shape 7 have 7"),
        ((7,), {"resize": (4, 4)}, "need images, but examples have shape 7"),
        ((7,), {"center_crop": (4, 4)}, "need images"),
        ((2, 3, 4, 5), {"resize": (4, 4)}, "examples have shape 2×3×4×5"),
        ((4, 5), {"resize": (4, 4), "layout": "nhwc"}, "need images"),
        ((3, 4, 5), {"channels": "gray"}, "converts decoded images only"),
        ((4, 5), {"channels": "rgb"}, "converts decoded images only"),
        ((3, 4, 5), {"center_crop": (5, 5)}, "set preprocess.resize"),
        ((7,), {"scale": 1e-40}, "preprocess.scale of 1e-40 is out of range"),
        ((7,), {"mean": (0.0,), "std": (1e-40,)}, "preprocess.std of 1e-40 is out of range"),
    ],
)
def test_settings_that_do_not_fit(
    tmp_path: Path,
    opened: Opener,
    shape: tuple[int, ...],
    settings: dict[str, Any],
    complaint: str,
) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, *shape)), y=[0, 1])
    with pytest.raises(Exception, match="preprocess") as error:
        opened(tmp_path / "d.npz", preprocess=settings)
    assert complaint in str(error.value)
    assert getattr(error.value, "exit_code", None) == 2


def test_wrong_channel_count_of_images(
    tmp_path: Path, opened: Opener, encode: Encode, tiny: Tiny
) -> None:
    pq.write_table(
        pa.table({"image": [encode(tiny.images[0])], "label": [0]}), tmp_path / "d.parquet"
    )
    normal = {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}
    opened(tmp_path / "d.parquet", preprocess=normal)
    with pytest.raises(
        UsageError, match=r"1×6×5 have 1 channel.*set preprocess.layout or channels"
    ):
        opened(tmp_path / "d.parquet", preprocess={"channels": "gray", **normal})


def test_channels_that_arrays_have_already(tmp_path: Path, opened: Opener) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3, 4, 5), dtype=np.uint8), y=[0, 1])
    assert opened(tmp_path / "d.npz", preprocess={"channels": "rgb"}).input_shape == (3, 4, 5)


def test_every_setting_is_in_the_digest() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"resize": (3, 4)},
        {"resize": (4, 3)},
        {"center_crop": (3, 4)},
        {"channels": "gray"},
        {"channels": "rgb"},
        {"layout": "nhwc"},
        {"scale": 2.0},
        {"mean": (0.0,), "std": (1.0,)},
        {"mean": (0.0,), "std": (2.0,)},
    ]
    digests = [Preprocessor(PreprocessSection(**s), "array").digest for s in settings]
    assert len(set(digests)) == len(settings)
    of_texts = {"tokenizer", "max_length", "truncation"}
    assert set(PreprocessSection.model_fields) - of_texts == {key for s in settings for key in s}
    assert Preprocessor(PreprocessSection(), "image").digest not in digests
