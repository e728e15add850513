"""The tiny data set in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.conftest import Tiny

Encode = Callable[..., bytes]


def chw(tiny: Tiny) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.moveaxis(tiny.images, -1, 1))


def write_npz(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    np.savez(folder / "d.npz", x=chw(tiny), y=tiny.labels, id=np.array(tiny.ids))
    return folder / "d.npz"


def write_npz_deflated(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    np.savez_compressed(
        folder / "d.npz",
        inputs=chw(tiny).astype(np.float64),
        label=tiny.labels.astype(np.float32)[:, None],
        ids=np.array([name.encode() for name in tiny.ids]),
    )
    return folder / "d.npz"


def write_npz_fortran(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    x = np.asfortranarray(chw(tiny).astype(">i4"))
    np.savez(folder / "d.npz", images=x, labels=tiny.labels.astype(np.uint8), id=tiny.ids)
    return folder / "d.npz"


def write_parquet_struct(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    images = [{"bytes": encode(pixels), "path": "x.png"} for pixels in tiny.images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "id": pa.array(tiny.ids).dictionary_encode(),
            "img": pa.array(images, kind),
            "label": tiny.labels,
            "note": ["not used"] * 12,
        }
    )
    pq.write_table(table, folder / "d.parquet", row_group_size=5)
    return folder / "d.parquet"


def write_parquet_binary(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    images = [
        encode(pixels, ("BMP", "PNG", "PPM")[row % 3]) for row, pixels in enumerate(tiny.images)
    ]
    table = pa.table(
        {
            "image": pa.array(images, pa.large_binary()),
            "labels": pa.array([f"c{label}" for label in tiny.labels]).dictionary_encode(),
            "ids": tiny.ids,
        }
    )
    pq.write_table(table, folder / "d.parquet", row_group_size=7)
    return folder / "d.parquet"


def write_parquet_lists(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    flat = pa.array(chw(tiny).reshape(-1))
    lines = pa.FixedSizeListArray.from_arrays(flat, 5)
    planes = pa.ListArray.from_arrays(pa.array(np.arange(0, 12 * 18 + 1, 6), pa.int32()), lines)
    x = pa.LargeListArray.from_arrays(pa.array(np.arange(0, 12 * 3 + 1, 3), pa.int64()), planes)
    table = pa.table({"y": tiny.labels.astype(np.int8), "features": x, "id": tiny.ids})
    pq.write_table(table, folder / "d.parquet", row_group_size=4)
    return folder / "d.parquet"


def write_folder(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    for name, pixels in zip(tiny.ids, tiny.images, strict=True):
        path = folder / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels))
    (folder / "d" / "c0" / ".DS_Store").write_bytes(b"\0")
    (folder / "d" / "classes.json").write_text("[]")
    return folder / "d"


def write_jsonl(folder: Path, tiny: Tiny, encode: Encode) -> Path:
    rows = zip(tiny.ids, chw(tiny).tolist(), tiny.labels.tolist(), strict=True)
    lines = [json.dumps({"id": i, "x": x, "y": y, "note": "é"}) for i, x, y in rows]
    (folder / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode())
    return folder / "d.jsonl"


Writer = Callable[[Path, Tiny, Encode], Path]
WRITERS: tuple[Writer, ...] = (
    write_npz,
    write_npz_deflated,
    write_npz_fortran,
    write_parquet_struct,
    write_parquet_binary,
    write_parquet_lists,
    write_folder,
    write_jsonl,
)
PREPROCESS = {"scale": 255.0, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
