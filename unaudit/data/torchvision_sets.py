"""Classification sets in torchvision's file layouts: ``torchvision:CIFAR10?root=DIR&train=true``.

Nothing is ever downloaded. CIFAR's files are pickles and SVHN's are MATLAB files: before
torchvision opens any of them, all are compared with the MD5 sums of the published sets that
torchvision carries, so a file made by somebody else is refused, not unpickled. (MD5 collisions
can be made, but not a second file with a published file's sum.) MNIST's files are plain bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from unaudit.data.array_dataset import ArrayDataset
from unaudit.data.dataset import Dataset
from unaudit.data.image_folder import open_image_folder
from unaudit.data.indexed import Index
from unaudit.data.labels import as_labels
from unaudit.data.preprocess import Preprocessor
from unaudit.data.rows import MemoryRows
from unaudit.data.source import FORMATS, Format, Reading, Source
from unaudit.engine.store import content_key
from unaudit.errors import UsageError
from unaudit.registry import did_you_mean
from unaudit.text import plain, quote

CIFAR = ("CIFAR10", "CIFAR100")
MNIST = ("MNIST", "FashionMNIST", "KMNIST")
SETS = (*CIFAR, *MNIST, "SVHN", "ImageFolder")


def open_torchvision(source: Source, reading: Reading) -> Dataset:
    """A published set that lies on this machine; its examples are uint8 arrays, channels first.

    Raises:
        UsageError: unknown set or option.
        InputError: files are missing or are not the published ones.
    """
    name, _, query = source.spec.partition(":")[2].partition("?")
    options = _options(source, name, query)
    root = Path(options["root"])
    if name == "ImageFolder":
        folder = Source.at(source.spec, root)
        if not folder.is_folder:
            raise source.error("root is not a folder; give the folder of the class folders")
        return open_image_folder(folder, reading)
    part = options["split"] if name == "SVHN" else f"train={options['train'].lower()}"
    source = replace(source, label=f"{name} ({part})")
    images, labels = _load(source, name, root, options)
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    content = content_key("torchvision", images=digest.hexdigest(), shape=list(images.shape))
    numbers, _ = as_labels(labels, source.spec, None)
    return ArrayDataset(
        source,
        Index(numbers, None, None, content),
        MemoryRows(images),
        Preprocessor(reading.preprocess, "array"),
        reading.store,
    )


FORMATS.register("torchvision")(Format(recognizes=lambda source: False, open=open_torchvision))


def _options(source: Source, name: str, query: str) -> dict[str, str]:
    where = plain(source.spec, 400)
    if name not in SETS:
        raise UsageError(f"{where}: unknown set {quote(name)}{did_you_mean(name, SETS)}")
    known = ["root"]
    if name != "ImageFolder":
        known.append("split" if name == "SVHN" else "train")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in known:
            raise UsageError(
                f"{where}: unknown option {quote(option)}{did_you_mean(option, known)}"
            )
    if not options.get("root"):
        raise UsageError(f"{where}: no root given; write torchvision:{name}?root=FOLDER")
    if options.setdefault("train", "true").lower() not in ("true", "false"):
        raise UsageError(f"{where}: train must be true or false")
    if options.setdefault("split", "train") not in ("train", "test", "extra"):
        raise UsageError(f"{where}: split must be train, test or extra")
    return options


def _load(
    source: Source, name: str, root: Path, options: dict[str, str]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.generic]]:
    """(n, channels, height, width) uint8 images and (n,) labels."""
    from unaudit.loading.torchvision_shim import import_torchvision

    datasets = import_torchvision().datasets
    kind = getattr(datasets, name)
    train = options["train"].lower() == "true"
    try:
        if name in CIFAR:
            folder = root / kind.base_folder
            meta = (kind.meta["filename"], kind.meta["md5"])
            _check_sums(source, folder, [*kind.train_list, *kind.test_list, meta])
            found = kind(str(root), train=train, download=False)
            return np.moveaxis(found.data, -1, 1), np.asarray(found.targets)
        if name == "SVHN":
            _, file, md5 = kind.split_list[options["split"]]
            _check_sums(source, root, [(file, md5)])
            found = kind(str(root), split=options["split"], download=False)
            return found.data, found.labels
        legacy = root / name / "processed"
        if legacy.exists():
            raise source.error(
                "the folder 'processed' of an old torchvision holds pickles; remove it, the folder "
                "'raw' is enough"
            )
        found = kind(str(root), train=train, download=False)
        return found.data.numpy()[:, None], found.targets.numpy()
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise source.error(
            f"{name} cannot be read from that root ({plain(error, 80)}); put the published files "
            "there, as torchvision does with download=True"
        ) from None


def _check_sums(source: Source, folder: Path, files: list[Any]) -> None:
    """Compare files with their published MD5 sums.

    Raises:
        InputError: one is missing or differs.
    """
    for name, published in files:
        path = folder / name
        if not path.is_file():
            raise source.error(
                f"no file {folder.name}/{name} below root; put the published files there, as "
                "torchvision does with download=True"
            )
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != published:
            raise source.error(
                f"{folder.name}/{name} is not the published file, and unpickling another could run "
                "code; get the published one, or store the data as npz or parquet"
            )
