"""Folders of images and images that cannot be used."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.complaints import complaint_about, folder_of, kept_parquet, use
from tests.data.conftest import Opener

Encode = Callable[..., bytes]


def test_mixed_sizes(tmp_path: Path, opened: Opener, encode: Encode) -> None:
    root = folder_of(tmp_path / "d", encode, (5, 6), (5, 7))
    message = complaint_about(opened, root)
    assert "example 'class 1/1.png' has 5×7 pixels" in message
    assert message.endswith("set preprocess.resize")
    use(opened(root, preprocess={"resize": (4, 4)}))
    use(opened(root, preprocess={"center_crop": (5, 5)}))
    message = complaint_about(opened, root, center_crop=(6, 5))
    assert "fewer than preprocess.center_crop asks for (6×5); set preprocess.resize" in message


def test_a_switch_of_another_package_does_not_let_damaged_images_in(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "PNG")
    (folder / "half.png").write_bytes(whole.getvalue()[:-900])
    assert "half.png" in complaint_about(opened, tmp_path / "images")


@pytest.mark.parametrize("keep", [0, 5, 20, 60, -60])
def test_unreadable_images_are_named(
    tmp_path: Path, opened: Opener, encode: Encode, keep: int
) -> None:
    root = folder_of(tmp_path / "d", encode, (40, 40), (40, 40), (40, 40))
    bad = root / "class 0" / "2.png"
    bad.write_bytes(bad.read_bytes()[:keep])
    assert "'class 0/2.png' is " in complaint_about(opened, root)


def test_other_files_in_a_class_folder(tmp_path: Path, opened: Opener, encode: Encode) -> None:
    root = folder_of(tmp_path / "d", encode)
    (root / "class 1" / "notes.txt").write_text("hello")
    assert "'class 1/notes.txt' is not a PNG, JPEG" in complaint_about(opened, root)
    (root / "class 1" / "notes.txt").unlink()
    (root / "class 1" / "Thumbs.db").write_text("hello")
    (root / "class 1" / ".hidden").mkdir()
    (root / ".git").mkdir()
    use(opened(root))
    (root / "loose.bin").write_bytes((root / "class 0" / "0.png").read_bytes())
    assert "'loose.bin' lies outside the class folders" in complaint_about(opened, root)


@pytest.mark.parametrize("where", ["file", "folder", "class", "dangling", "loop"])
def test_links_out_of_the_folder(
    tmp_path: Path, opened: Opener, encode: Encode, where: str
) -> None:
    root = folder_of(tmp_path / "d", encode)
    outside = folder_of(tmp_path / "outside", encode)
    link, target = {
        "file": (root / "class 0" / "9.png", outside / "class 0" / "0.png"),
        "folder": (root / "class 0" / "sub", outside),
        "class": (root / "class 9", outside / "class 0"),
        "dangling": (root / "class 0" / "9.png", root / "none.png"),
        "loop": (root / "class 0" / "again", root),
    }[where]
    link.symlink_to(target)
    assert "is a symbolic link" in complaint_about(opened, root)


def test_pipes_are_not_read(tmp_path: Path, opened: Opener, encode: Encode) -> None:
    root = folder_of(tmp_path / "d", encode)
    os.mkfifo(root / "class 0" / "9.png")
    assert "'class 0/9.png' is not a regular file" in complaint_about(opened, root)
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in complaint_about(opened, tmp_path / "pipe.csv")


def test_folders_without_images(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "d").mkdir()
    assert "no images in class folders" in complaint_about(opened, tmp_path / "d")
    (tmp_path / "d" / "cat").mkdir()
    assert "no images in class folders" in complaint_about(opened, tmp_path / "d")


def test_file_names_that_no_list_of_ids_can_hold(
    tmp_path: Path, opened: Opener, encode: Encode
) -> None:
    root = folder_of(tmp_path / "d", encode)
    (root / "class 0" / "0.png").rename(root / "class 0" / "a\n\x1b[31m.png")
    assert "holds control characters" in complaint_about(opened, root)
    (root / "class 0" / "a\n\x1b[31m.png").rename(root / "class 0" / os.fsdecode(b"\xff.png"))
    assert "is not valid Unicode" in complaint_about(opened, root)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (png_of_size(100_000, 100_000), "is an image of 100000×100000 pixels, more than"),
        (png_of_size(40, 40), "is a damaged image"),
        (b"\xff\xd8\xff\xe0garbage", "is a damaged image"),
        (b"RIFF\x10\0\0\0WEBPVP8 garbage", "is a damaged image"),
        (b"GIF89a" + b"\xff" * 30, "is a damaged image"),
        (b"BM" + b"\xff" * 60, "is a damaged image"),
        (b"P6 x", "is a damaged image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not a PNG"),
        (b"<svg/>", "is not a PNG"),
        (b"II*\0" + b"\0" * 20, "is not a PNG"),
    ],
)
def test_hostile_images(tmp_path: Path, opened: Opener, image: bytes, complaint: str) -> None:
    path = kept_parquet(tmp_path / "d.parquet", {"image": [image], "label": [0]})
    assert f"example 0 {complaint}" in complaint_about(opened, path)


def test_images_with_more_than_eight_bits(tmp_path: Path, opened: Opener, encode: Encode) -> None:
    deep = encode(np.full((4, 4), 40_000, dtype=np.uint16))
    path = kept_parquet(tmp_path / "d.parquet", {"image": [deep], "label": [0]})
    assert "more than 8 bits per channel" in complaint_about(opened, path)
