"""Condense what white-box access showed: what was left as it was, curves, and a projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from unaudit.case import Case
from unaudit.evidence import Task
from unaudit.measuring import Measurement, Reading
from unaudit.recording.projection import project
from unaudit.report.record import Curve, Curves, Inside, LayerChange, Role, ShallowChange
from unaudit.shallow import shallow_change
from unaudit.white_box import WhiteBox


def inside(
    case: Case,
    inside_of: Mapping[str, WhiteBox],
    measurements: Sequence[Measurement],
    rng: np.random.Generator,
) -> Inside | None:
    """What white-box views and the details of white-box probes show; None if there are no views.

    Args:
        case: what is audited.
        inside_of: views by the candidates' labels; a model without one is passed over.
        measurements: of all probes.
        rng: chooses the examples of the projection; its own numbers stay as they would be.

    Raises:
        InputError: a network has no features to look at.
    """
    subject = inside_of.get(case.subject.label)
    if subject is None:
        return None
    original = None if case.original is None else inside_of.get(case.original.label)
    return Inside(
        shallow=None if original is None else _shallow(subject, original),
        curves=curves(measurements, case.task),
        projection=project(case, inside_of, rng.spawn(1)[0]),
    )


def _shallow(subject: WhiteBox, original: WhiteBox) -> ShallowChange:
    found = shallow_change(subject, original)
    return ShallowChange(
        kind=found.kind,
        identical_share=found.identical_share,
        activation_difference=found.activation_difference,
        head_differs=found.head_differs,
        layers=tuple(
            LayerChange(name=layer.layer, distance=layer.distance, relative=layer.relative)
            for layer in found.layers
        ),
    )


def curves(
    measurements: Sequence[Measurement], task: Task = "classification"
) -> tuple[Curves, ...]:
    """The curves that probes left in their details; a probe that left none is passed over.

    Args:
        measurements: of all probes.
        task: of the models; the accuracy of a language model is that of its next tokens.
    """
    by_name = {measurement.card.name: measurement for measurement in measurements}
    found = (
        _curves(by_name[name], kind if task == "classification" else _of_tokens(kind))
        for name, kind in KINDS.items()
        if name in by_name
    )
    return tuple(drawn for drawn in found if drawn is not None)


@dataclass(frozen=True)
class _Line:
    """One model's values along the layers or steps."""

    x: tuple[Any, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True)
class _Kind:
    """What one probe's curves are called, and how they are read from a model's answers."""

    title: str
    axis: Literal["layer", "step"]
    y_label: str
    unit: str
    band: str
    read: Callable[[Reading], _Line | None]


def _information(reading: Reading) -> _Line | None:
    return _with_stderr(reading.answers[0].detail, "layers", "mi")


def _relearning(reading: Reading) -> _Line | None:
    line = _with_stderr(reading.answers[0].detail, "steps", "forget_accuracy")
    if line is None or line.low is None or line.high is None:
        return line
    return replace(
        line,
        low=tuple(max(0.0, value) for value in line.low),
        high=tuple(min(1.0, value) for value in line.high),
    )


def _with_stderr(detail: Mapping[str, Any], x: str, y: str) -> _Line | None:
    places, values = tuple(detail.get(x, ())), tuple(detail.get(y, ()))
    errors = tuple(detail.get(f"{y}_stderr", ()))
    if not places or len(places) != len(values):
        return None
    if len(errors) != len(values):
        return _Line(places, values)
    pairs = list(zip(values, errors, strict=True))
    return _Line(
        places,
        values,
        tuple(value - error for value, error in pairs),
        tuple(value + error for value, error in pairs),
    )


def _alignment(reading: Reading) -> _Line | None:
    """CKA by layer: mean and range over the references compared with."""
    each = [answer.detail.get("by_layer", {}) for answer in reading.answers]
    layers = tuple(name for name in each[0] if all(name in other for other in each))
    if not layers:
        return None
    values = [[1.0 - other[name] for other in each] for name in layers]
    means = tuple(fmean(found) for found in values)
    if len(each) == 1:
        return _Line(layers, means)
    return _Line(layers, means, tuple(map(min, values)), tuple(map(max, values)))


_STDERR = "one standard error"
KINDS: Mapping[str, _Kind] = {
    "idi": _Kind(
        "Information about the forget label",
        "layer",
        "mutual information, nats",
        "nats",
        _STDERR,
        _information,
    ),
    "cka": _Kind(
        "Likeness of features to retrained models",
        "layer",
        "linear CKA on the forget set",
        "",
        "range over the retrained models",
        _alignment,
    ),
    "relearn": _Kind(
        "Relearning",
        "step",
        "accuracy on forget examples",
        "",
        _STDERR,
        _relearning,
    ),
    "relearn-fresh-head": _Kind(
        "Relearning with a fresh last layer",
        "step",
        "accuracy on forget examples",
        "",
        _STDERR,
        _relearning,
    ),
}
"""By probe, in the order of the report."""


def _of_tokens(kind: _Kind) -> _Kind:
    return replace(kind, y_label=kind.y_label.replace("accuracy", "next-token accuracy"))


def _curves(measurement: Measurement, kind: _Kind) -> Curves | None:
    axis = kind.read(measurement.subject)
    if axis is None:
        return None
    named: list[tuple[str, Role, Reading | None]] = [
        ("subject", "subject", measurement.subject),
        ("original", "original", measurement.original),
        *((f"retrained {n}", "retrained", m) for n, m in enumerate(measurement.retrained, 1)),
    ]
    lines = [(label, role, kind.read(reading)) for label, role, reading in named if reading]
    series = tuple(
        Curve(model=label, role=role, y=line.y, low=line.low, high=line.high)
        for label, role, line in lines
        # networks of different shapes have different layers: no common axis, so no curve
        if line is not None and line.x == axis.x
    )
    return Curves(
        probe=measurement.card.name,
        title=kind.title,
        axis=kind.axis,
        x=axis.x if kind.axis == "layer" else tuple(float(step) for step in axis.x),
        y_label=kind.y_label,
        unit=kind.unit,
        band=kind.band if any(curve.low is not None for curve in series) else "",
        series=series,
    )
