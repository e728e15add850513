"""Attacks with shadow models on CIFAR-10: what they see of four subjects, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SUBJECTS = ("retrained", "finetune", "scrub", "head-distillation")
ATTACKS = ("loss", "lira", "u-lira", "rmia", "klom")
PAPER_MODELS, PAPER_HALF, PAPER_HOURS = 128, 25_000, (300, 500)
"""Bases of IDI 2024, appendix C.1, examples of each, and GPU-hours for a method: each base unlearns
40 forget sets there, once here."""
TRAINING_FLOP = 3 * 2 * 0.56e9
"""Operations for one example and epoch of ResNet-18 on 32 × 32 pixels: 0.56 G multiply-adds
forward, twice as many backward."""
GPU_FLOPS = 50e12
"""Operations a second that such networks get out of one data-center GPU in bf16: our assumption, a
sixth of what an A100 can."""


def table(audit: Callable[[str], Path], shadows: int) -> str:
    """Audit every subject; one row for each, AUC with its interval for each attack.

    Args:
        audit: runs ``unaudit check`` on a subject; the folder of its record.
        shadows: how many there are, for the heading.
    """
    lines = [
        f"AUC of forget against unseen [90 %], {shadows} shadow models; in brackets alone and of "
        "references: what the attack measures; * = it tells the original from retrained models",
        "| subject | verdict | " + " | ".join(ATTACKS) + " |",
        "|---|---|" + "---|" * len(ATTACKS),
    ]
    for name in SUBJECTS:
        record = json.loads((audit(name) / "record.json").read_text())
        cells = [_cell(record, attack) for attack in ATTACKS]
        outcome = record["verdict"]["outcome"]
        lines.append(f"| {name} | {outcome} | " + " | ".join(cells) + " |")
    controls = {row["probe"]: row for row in record["calibration"]["probes"]}
    for role in ("original", "retrained"):
        cells = [_control(controls.get(attack), role) for attack in ATTACKS]
        lines.append(f"| {role} (reference) | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost(models: int, seconds: float, workers: int, epochs: int) -> str:
    """Models per hour, and what the paper's number of bases would cost on one GPU.

    Args:
        models: trained and made to unlearn.
        seconds: that all of them took.
        workers: processes that trained side by side.
        epochs: of each, unlearning included.
    """
    whole = PAPER_MODELS * PAPER_HALF * epochs * TRAINING_FLOP / GPU_FLOPS / 3600
    return (
        f"{models} shadow models, each made to unlearn once: {seconds / 60:.0f} min on {workers} "
        f"processor cores, {3600 * models / seconds:.0f} an hour\n"
        f"{PAPER_MODELS} ResNet-18 on {PAPER_HALF:,} images, {epochs} epochs: {whole:.1f} h on one "
        f"GPU at {GPU_FLOPS / 1e12:.0f} TFLOP/s; in the paper {PAPER_HOURS[0]}–{PAPER_HOURS[1]} "
        "GPU-hours a method"
    )


def _cell(record: dict[str, Any], attack: str) -> str:
    found = {row["probe"]: row for row in record["findings"]}.get(attack)
    if found is None:
        return "–"
    curve = {row["probe"]: row for row in record["calibration"]["rocs"]}.get(attack)
    shown = f"({found['measure']:.3f})"
    if curve is not None:
        area = curve["auc"]
        shown = f"{area['estimate']:.3f} [{area['low']:.3f}, {area['high']:.3f}]"
    informative = {row["probe"]: row["informative"] for row in record["calibration"]["probes"]}
    return f"{shown}{'*' if informative.get(attack) else ''}"


def _control(control: dict[str, Any] | None, role: str) -> str:
    if control is None:
        return "–"
    if role == "original":
        return "–" if control["original"] is None else f"{control['original']:.3f}"
    return ", ".join(f"{value:.3f}" for value in control["retrained"]) or "–"
