"""Sizes and times as people write them."""

from __future__ import annotations

import re

import click

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
BYTES = {"b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", start=1)
    # as in GNU coreutils: K and KiB are 1024, KB is 1000
    for unit, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_NUMBER = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([A-Za-z]+)")


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Callback of an option: ``90s``, ``45m``, ``12h``, ``30d`` or ``2w`` in seconds."""
    found = None if value is None else _read(value, SECONDS)
    if found is None and value is not None:
        raise click.BadParameter(
            f"{value!r} is no time; write a number and s, m, h, d or w, like 30d", ctx, param
        )
    return found


def n_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: ``500M``, ``10G``, ``1.5GiB`` or ``20GB`` in bytes."""
    found = None if value is None else _read(value.lower(), BYTES)
    if found is None and value is not None:
        raise click.BadParameter(
            f"{value!r} is no size; write a number and B, K, M, G or T, like 10G", ctx, param
        )
    return None if found is None else round(found)


def _read(text: str, units: dict[str, int]) -> float | None:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]


def age(span: float) -> str:
    """How long ago, given in seconds, in the largest unit that fits."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if span >= length:
            return f"{span // length:,.0f} {unit}"
    return "now"
