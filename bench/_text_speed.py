"""What padding of texts costs, and what a black-box audit costs beside one pass."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from _texts import MAX_LENGTH, opened

from unaudit.data.text_dataset import TextDataset
from unaudit.engine.store import Store
from unaudit.loading.hugging_face_network import TokenNetwork
from unaudit.pipeline import audit as run_audit
from unaudit.plan import AuditPlan
from unaudit.tokens import are_present

SCORED = 256
"""Examples per batch of a forward pass."""
ROUNDS = 5


def compare_padding(folder: Path) -> float:
    """Time one pass over the training texts in three ways; seconds per text of the best."""
    with tempfile.TemporaryDirectory() as cache:
        model, data = opened(folder, Store(Path(cache)))
        network = model.module
        assert isinstance(network, TokenNetwork)
        rows = np.arange(len(data), dtype=np.int64)
        together = rows[data.cheapest_order(rows)]
        lengths = data.lengths
        print(f"{len(data)} texts of {lengths.mean():.1f} tokens, at most {lengths.max()}")
        data.pad_to(MAX_LENGTH)
        ways: dict[str, Callable[[], Iterator[torch.Tensor]]] = {
            f"padded to {MAX_LENGTH}": lambda: whole_width(network, data, rows),
            "to the longest of a batch": lambda: cropped(network, data, rows),
            "of like length together": lambda: cropped(network, data, together),
        }
        found = {}
        for name, way in ways.items():
            scores, seconds = best_of(way)
            found[name] = (scores, seconds)
            print(f"{name:28s} {seconds:6.2f} s {len(data) / seconds:9,.0f} texts/s", flush=True)
    (naive, slow), _, (sorted_scores, fast) = found.values()
    back = torch.empty_like(sorted_scores)
    back[torch.from_numpy(together)] = sorted_scores
    off = (naive - back).abs().max() / naive.std()
    print(f"naive / bucketed {slow / fast:.2f}; logits differ by {off:.1e} of their spread")
    return fast / len(data)


def time_pass(folder: Path) -> float:
    """Seconds per text of one pass that gives every token's logits and keeps none of them."""
    with tempfile.TemporaryDirectory() as cache:
        model, data = opened(folder, Store(Path(cache)))
        rows = np.arange(len(data), dtype=np.int64)
        together = rows[data.cheapest_order(rows)]
        times = []
        with torch.inference_mode():
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                for ids in data.batches(together, SCORED):
                    model.module(ids)
                times.append(time.perf_counter() - begin)
        print(
            f"{len(data)} texts of {data.lengths.mean():.1f} tokens, at most {data.lengths.max()}"
        )
        print(f"one pass {min(times):.2f} s")
    return min(times) / len(data)


def compare_audit(folder: Path, per_text: float) -> None:
    """A black-box audit without references, tokenizing and loading included."""
    (folder / "forget.txt").write_text("".join(f"train-{row:05d}\n" for row in range(200)))
    with tempfile.TemporaryDirectory() as cache:
        plan = AuditPlan.build(
            {
                "model": {"path": str(folder / "base")},
                "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "unseen")},
                "request": {"forget": str(folder / "forget.txt")},
                "policy": {"access": "black-box"},
                "run": {"store": cache, "batch_size": SCORED},
            }
        )
        begin = time.perf_counter()
        record = run_audit(plan)
        seconds = time.perf_counter() - begin
    scored = record.request.forget + record.request.retain + record.request.unseen
    one = per_text * scored
    print(f"black-box audit {seconds:.2f} s = {seconds / one:.2f} passes of {one:.2f} s")
    for stage, spent in sorted(record.environment.seconds.items(), key=lambda item: -item[1])[:5]:
        print(f"  {stage:28s} {spent:6.2f} s")


def whole_width(
    network: TokenNetwork, data: TextDataset, rows: np.ndarray
) -> Iterator[torch.Tensor]:
    """Every column is computed, as where all texts are padded to one length."""
    for ids in data.batches(rows, SCORED):
        present = are_present(ids)
        yield network._logits(ids.masked_fill(~present, network.filler), present)


def cropped(network: TokenNetwork, data: TextDataset, rows: np.ndarray) -> Iterator[torch.Tensor]:
    for ids in data.batches(rows, SCORED):
        yield network(ids)


def best_of(way: Callable[[], Iterator[torch.Tensor]]) -> tuple[torch.Tensor, float]:
    """Logits, and the seconds of the fastest of some passes."""
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            scores = torch.cat(list(way()))
            times.append(time.perf_counter() - begin)
    return scores, min(times)
