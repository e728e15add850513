"""What a look inside adds to a record: curves over layers and steps, and a projection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unaudit.report.record import (
    Curve,
    Curves,
    Depth,
    Inside,
    LayerChange,
    ProjectedModel,
    Projection,
    Record,
    Role,
    ShallowChange,
)

SHALLOW_LAYERS = ("linear1", "features")
DEEP_LAYERS = tuple(f"encoder.layers.encoder_layer_{i}" for i in range(12))


def curves(
    probe: str,
    x: tuple[str, ...] | tuple[float, ...],
    low: float,
    high: float,
    near: float,
    references: int,
    rng: np.random.Generator,
) -> Curves:
    """Curves from ``low`` (retrained) to ``high`` (original); the subject ``near`` of the way."""

    def one(name: str, role: Role, at: float, noise: float, band: bool) -> Curve:
        rise = np.linspace(0.6, 1.0, len(x))
        y = (low + at * (high - low)) * rise + noise * rng.normal(size=len(x))
        ends = (tuple((y - 0.02).tolist()), tuple((y + 0.02).tolist()))
        return Curve(
            model=name,
            role=role,
            y=tuple(y.tolist()),
            low=ends[0] if band else None,
            high=ends[1] if band else None,
        )

    layers = isinstance(x[0], str)
    return Curves(
        probe=probe,
        title=f"Curves of {probe}",
        axis="layer" if layers else "step",
        x=x,
        y_label="mutual information, nats" if layers else "accuracy on forget examples",
        unit="nats" if layers else "",
        band="one standard error",
        series=(
            one("subject", "subject", near, 0.0, True),
            one("original", "original", 1.0, 0.0, True),
            *(
                one(f"retrained {i}", "retrained", 0.0, 0.01, False)
                for i in range(1, references + 1)
            ),
        ),
    )


def projection(models: Sequence[tuple[str, Role]], rng: np.random.Generator) -> Projection:
    def one(name: str, role: Role) -> ProjectedModel:
        points = np.round(rng.normal(size=(90, 2)), 3)
        x, y = points.T.tolist()
        return ProjectedModel(
            model=name, role=role, explained=(0.31, 0.22), x=tuple(x), y=tuple(y), near=0.72
        )

    return Projection(
        forget=40, retain=30, unseen=20, neighbors=5, models=tuple(one(*model) for model in models)
    )


def looked_inside(
    record: Record, kind: Depth, *, layers: tuple[str, ...] = SHALLOW_LAYERS, near: float = 1.0
) -> Record:
    """The same audit with white-box access."""
    rng = np.random.default_rng(3)
    references = len(record.controls.retrained)
    steps = tuple(float(step) for step in (0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 28, 37, 49, 64))
    changed = kind == "none"
    inside = Inside(
        shallow=ShallowChange(
            kind=kind,
            identical_share=0.0 if changed else 0.9535,
            activation_difference=0.21 if changed else 0.0,
            head_differs=kind != "identical weights",
            layers=tuple(
                LayerChange(name=name, distance=d, relative=d / 8)
                for name, d in (("linear1", 0.4 * changed), ("head", 2.19))
            ),
        ),
        curves=(
            curves("idi", layers, 0.12, 0.31, near, references, rng),
            curves("cka", layers, 0.9, 0.5, near, references, rng),
            curves("relearn", steps, 0.6, 1.0, near, references, rng),
            curves("relearn-fresh-head", steps, 0.6, 1.0, near, references, rng),
        ),
        projection=projection(
            (("original", "original"), ("subject", "subject"), ("retrained 1", "retrained")), rng
        ),
    )
    policy = record.plan.policy.model_copy(update={"access": "white-box"})
    return record.model_copy(
        update={
            "plan": record.plan.model_copy(update={"policy": policy}),
            "verdict": record.verdict.model_copy(update={"assurance_level": 3}),
            "inside": inside,
        }
    )
