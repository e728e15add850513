"""A small world for shadow models: two classes of vectors or images, laid out as jobs read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unaudit.engine.jobs import Job
from unaudit.engine.store import Store
from unaudit.evidence import SplitName
from unaudit.shadows.design import Design, make_design
from unaudit.shadows.train import shadow_jobs
from unaudit.training import Recipe

MLP = "unaudit:mlp?widths=16-8-3"
RESNET = "unaudit:resnet?depth=8&width=2&num_classes=3&in_channels=1"
LABELS = ("labels", "unseen_labels")
RECIPE = Recipe(lr=0.1, epochs=3, batch=16)
SIZES: dict[SplitName, int] = {"forget": 12, "retain": 48, "unseen": 30, "validation": 10}


@dataclass(frozen=True, eq=False)
class Shadowed:
    """Data, and jobs over it."""

    inputs: dict[SplitName, torch.Tensor]
    labels: dict[SplitName, torch.Tensor]
    rows: dict[SplitName, npt.NDArray[np.int64]]
    places: dict[str, str]
    store: Store

    def design(self, models: int = 4, *, unlearning: bool = False) -> Design:
        labels = {name: values.numpy() for name, values in self.labels.items()}
        return make_design(labels, models, 0, scenario="sample", unlearning=unlearning)

    def jobs(self, design: Design, **changes: Any) -> list[Job]:
        given = {
            "arch": MLP,
            "trusted": False,
            "recipe": asdict(RECIPE),
            "augment": "none",
            "seed": 0,
            "n_classes": 3,
            "scenario": "sample",
            "head": None,
            "device": "cpu",
            "data": "these",
        }
        options = {**given, **changes}
        places = options.pop("places", self.places)
        sizes = [np.load(places[x]).shape[0] if x in places else 0 for x in LABELS]
        shape = np.load(places["inputs"]).shape[1:]
        jobs = shadow_jobs(
            design, self.rows, self.store, shape=shape, sizes=(sizes[0], sizes[1]), **options
        )
        return [replace(job, places={**places, **job.places}) for job in jobs]

    def pool(self, design: Design) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels in the order of the design's columns."""
        inputs = [self.inputs[name][torch.from_numpy(at)] for name, at in design.rows.items()]
        labels = [self.labels[name][torch.from_numpy(at)] for name, at in design.rows.items()]
        return torch.cat(inputs), torch.cat(labels)


def shadowed(folder: Path, shape: tuple[int, ...] = (16,)) -> Shadowed:
    """Training examples in an order of their own, with the forget ones among them."""
    rng = np.random.default_rng(0)
    trained = SIZES["forget"] + SIZES["retain"]
    order = rng.permutation(trained)
    rows: dict[SplitName, npt.NDArray[np.int64]] = {
        "forget": np.sort(order[: SIZES["forget"]]),
        "retain": np.sort(order[SIZES["forget"] :]),
        # some rows of the unseen data are no unseen examples
        "unseen": np.arange(SIZES["unseen"]) + 2,
        "validation": np.arange(SIZES["validation"]),
    }
    data, places = {}, {}
    sizes = {"": trained, "unseen_": SIZES["unseen"] + 2, "validation_": SIZES["validation"]}
    for prefix, count in sizes.items():
        labels = rng.integers(3, size=count)
        inputs = rng.normal(size=(count, *shape)).astype(np.float32)
        inputs.reshape(count, -1)[np.arange(count), labels] += 2
        data[prefix] = torch.from_numpy(inputs), torch.from_numpy(labels)
        for what, array in (("inputs", inputs), ("labels", labels)):
            places[f"{prefix}{what}"] = str(folder / f"{prefix}{what}.npy")
            np.save(places[f"{prefix}{what}"], array)
    source = {"forget": "", "retain": "", "unseen": "unseen_", "validation": "validation_"}
    parts = {
        name: [part[torch.from_numpy(at)] for part in data[source[name]]]
        for name, at in rows.items()
    }
    del places["validation_inputs"], places["validation_labels"]
    return Shadowed(
        inputs={name: part[0] for name, part in parts.items()},
        labels={name: part[1] for name, part in parts.items()},
        rows=rows,
        places=places,
        store=Store(folder / "store"),
    )


class Refusing:
    """An executor that must not be needed."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
        raise AssertionError("passed on")


def arrays_of(result: bytes, load: Callable[..., Any] = np.load) -> dict[str, npt.NDArray[Any]]:
    """What an npz file holds."""
    import io

    with load(io.BytesIO(result), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
