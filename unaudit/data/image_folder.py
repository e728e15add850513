"""Folders of images, one per class: ``root/class name/….png``.

Classes are numbered by their folder's name in code point order, images are ordered as by
torchvision's ``ImageFolder`` (class, then folder, then file name), and an image's id is its POSIX
path below the root. Hidden files and folders are left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from unaudit.data.dataset import Dataset
from unaudit.data.ids import as_ids
from unaudit.data.image_dataset import ImageDataset
from unaudit.data.images import FORMAT_NAMES, image_class
from unaudit.data.indexed import Index
from unaudit.data.labels import named_labels
from unaudit.data.preprocess import Preprocessor
from unaudit.data.source import FORMATS, Format, Reading, Source, sha256_of
from unaudit.evidence import IntArray
from unaudit.text import quote

_LITTER = frozenset({"thumbs.db", "desktop.ini"})
"""Files that operating systems leave in folders of pictures."""


def open_image_folder(source: Source, reading: Reading) -> Dataset:
    """The data set in a folder.

    Raises:
        InputError: no class folders or images, a file that is no image, or a symbolic link that
            leads out of the folder or to another folder.
    """
    names = _class_names(source)
    paths = [path for name in names for path in _images(source, name)]
    if not paths:
        raise source.error(
            "no images in class folders; arrange them as FOLDER/class name/image.png"
        )
    digests = _digests(source, paths)
    ids = as_ids(paths, source.spec)
    # an empty class folder still counts, so that labels do not depend on what is in it
    classes = tuple(names) if reading.classes is None else reading.classes
    owners = [path.partition("/")[0] for path in paths]
    labels, _ = named_labels(owners, source.spec, ids, classes)
    content = hashlib.sha256(b"image folder\n")
    for path, digest in zip(paths, digests, strict=True):
        content.update(path.encode() + b"\n" + digest)

    def encoded(rows: IntArray) -> Iterator[bytes]:
        for row in rows.tolist():
            data = (source.path / paths[row]).read_bytes()
            if hashlib.sha256(data).digest() != digests[row]:
                raise source.error(
                    f"{quote(paths[row])} changed while it was being read; run again"
                )
            yield data

    index = Index(labels, ids, classes, content.hexdigest())
    return ImageDataset(
        source, index, encoded, Preprocessor(reading.preprocess, "image"), reading.store
    )


FORMATS.register("image-folder")(
    Format(recognizes=lambda source: source.is_folder, open=open_image_folder)
)


def _class_names(source: Source) -> list[str]:
    names: list[str] = []
    with os.scandir(source.path) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            _check_link(source, entry.path)
            if entry.is_dir():
                names.append(entry.name)
            elif entry.is_file() and _is_image(_head(entry.path)):
                raise source.error(
                    f"{quote(entry.name)} lies outside the class folders; move it into one"
                )
    return sorted(names)


def _images(source: Source, class_name: str) -> list[str]:
    """POSIX paths below the root of one class's files, in order."""
    found: list[str] = []
    top = source.path / class_name

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in sorted(os.walk(top, onerror=refuse)):
        # deciding here which folders to enter would come too late: sorted() has walked them all
        below = os.path.relpath(folder, source.path)
        if any(_is_hidden(part) for part in below.split(os.sep)):
            continue
        for name in folders:
            _check_link(source, os.path.join(folder, name))
        for name in sorted(files):
            if not _is_hidden(name):
                place = os.path.join(folder, name)
                _check_link(source, place)
                path = f"{below}/{name}".replace(os.sep, "/")
                if not os.path.isfile(place):  # reading a pipe would never end
                    raise source.error(f"{quote(path)} is not a regular file; take it out")
                found.append(path)
    return found


def _digests(source: Source, paths: list[str]) -> list[bytes]:
    """SHA-256 of every file; refuses those that are no images."""
    digests: list[bytes] = []
    for path in paths:
        place = source.path / path
        if not _is_image(_head(place)):
            raise source.error(
                f"{quote(path)} is not a {FORMAT_NAMES} image; convert it, or take it out of the "
                "folder"
            )
        digests.append(sha256_of(place))
    return digests


def _check_link(source: Source, path: str) -> None:
    """Links could smuggle in files from elsewhere, and links to folders could go in circles.

    Raises:
        InputError: the path is a link to a folder, to nothing, or out of the data set.
    """
    if not os.path.islink(path):
        return
    root = os.path.realpath(source.path)
    target = os.path.realpath(path)
    inside = os.path.commonpath([root, target]) == root
    if not inside or not os.path.isfile(target):
        shown = quote(os.path.relpath(path, source.path))
        raise source.error(
            f"{shown} is a symbolic link to a folder or out of the data set; put the files "
            "themselves there"
        )


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") and name != ".") or name.lower() in _LITTER


def _is_image(head: bytes) -> bool:
    return image_class(head) is not None


def _head(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(12)
