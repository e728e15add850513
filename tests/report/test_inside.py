"""What was seen inside the model: front page, numbers, figures and the sentences they give."""

from __future__ import annotations

import io
import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.console import Console

from unaudit.report.figures import draw
from unaudit.report.html import to_html
from unaudit.report.layers import short_names
from unaudit.report.readings import curve_reading
from unaudit.report.record import Curve, Curves, Depth, Inside, Record, Role
from unaudit.report.svg import CHARACTER, Figure
from unaudit.report.terminal import print_summary
from unaudit.report.text import printable
from unaudit.report.wording import SHALLOW, shallow

from .inside import DEEP_LAYERS, looked_inside
from .samples import deep, failing, hostile, passing
from .samples import shallow as shallow_sample

KINDS = pytest.mark.parametrize("kind", list(SHALLOW))


def words(html: str) -> str:
    found: list[str] = []

    class Words(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Words().feed(html)
    return " ".join(" ".join(found).split())


def front_page(record: Record) -> str:
    return words(to_html(record).split('<section id="verdict"')[1].split("</div>")[0])


def section(record: Record, name: str) -> str:
    return words(to_html(record).split(f'<section id="{name}"')[1].split("<h2")[1].split("<h2")[0])


def terminal(record: Record) -> list[str]:
    stream = io.StringIO()
    print_summary(record, Console(file=stream, width=80))
    return stream.getvalue().splitlines()


def with_inside(record: Record, **changes: object) -> Record:
    assert record.inside is not None
    return record.model_copy(update={"inside": record.inside.model_copy(update=changes)})


def series(subject: float, original: float | None, *retrained: float, unit: str = "nats") -> Curves:
    """Flat curves over two layers."""

    def flat(role: Role, level: float, name: str) -> Curve:
        return Curve(model=name, role=role, y=(level, level), low=None, high=None)

    drawn = [flat("subject", subject, "subject")]
    drawn += [] if original is None else [flat("original", original, "original")]
    drawn += [flat("retrained", y, f"retrained {i}") for i, y in enumerate(retrained, 1)]
    return Curves(
        probe="idi",
        title="Information",
        axis="layer",
        x=("one", "two"),
        y_label="nats",
        unit=unit,
        band="",
        series=tuple(drawn),
    )


@KINDS
def test_a_shallow_change_is_on_the_front_page_and_on_one_line_of_the_terminal(
    kind: Depth,
) -> None:
    record = looked_inside(passing(), kind)
    said = SHALLOW[kind]
    assert f"Shallow change. {said} Section 2 has the numbers." in front_page(record)
    lines = [line for line in terminal(record) if said in line]
    assert lines == [f"= {said}"]
    assert cell_len(lines[0]) <= 80
    assert said in section(record, "subject")


def test_a_changed_encoder_is_no_front_page_matter() -> None:
    record = deep()
    assert shallow(record) is None
    assert "Shallow" not in front_page(record)
    assert not [line for line in terminal(record) if line.startswith("=")]
    assert "That says nothing about depth" in section(record, "subject")


def test_an_untouched_head_on_equal_features_is_said() -> None:
    record = looked_inside(passing(), "encoder activations identical")
    assert record.inside is not None
    assert record.inside.shallow is not None
    same = record.inside.shallow.model_copy(update={"head_differs": False})
    assert "the last layer is the same" in front_page(with_inside(record, shallow=same))


def test_the_subject_section_has_the_numbers() -> None:
    said = section(shallow_sample(), "subject")
    assert "95.35% equal the original’s bit for bit" in said
    assert "at most 0.00% of their typical length" in said
    assert "differs from the original’s" in said
    assert "head 2.19 27.4%" in said


@pytest.mark.parametrize(
    ("inside", "subject", "looked"),
    [
        (None, "nothing inside the model was looked at", "the audit had black-box access"),
        (
            Inside(shallow=None, curves=(), projection=None),
            "no original model with weights",
            "No probe left curves",
        ),
    ],
)
def test_what_was_not_looked_at_is_said(inside: Inside | None, subject: str, looked: str) -> None:
    record = failing().model_copy(update={"inside": inside})
    assert subject in section(record, "subject")
    assert looked in section(record, "inside")
    assert not [line for line in terminal(record) if line.startswith("=")]


@pytest.mark.parametrize(
    ("item", "place", "distances"),
    [
        (
            series(0.41, 0.43, 0.1, 0.12),
            "subject's curve follows the original's",
            "0.020 0.30 0.020",
        ),
        (series(0.12, 0.5, 0.1, 0.12), "subject's curve follows the retr", "0.38 0.010 0.020"),
        (series(0.2, 0.5, 0.1, 0.12), "subject's curve is nearer to the retr", "0.30 0.090 0.020"),
        (series(0.3, 0.5, 0.1, 0.12), "subject's curve lies between", "0.20 0.19 0.020"),
        (series(-1.0, 0.5, 0.1, 0.12), "subject's curve lies apart from", "1.5 1.1 0.020"),
        (series(0.1, 0.2, 0.1, 0.3), "original's curve hardly stands out", "0.10 0.10 0.20"),
    ],
)
def test_readings_say_whose_curve_the_subject_follows(
    item: Curves, place: str, distances: str
) -> None:
    said = curve_reading(item)
    assert said.startswith(f"The {place}")
    # to the original, to the mean of the retrained, and of these from each other
    assert re.findall(r"([\d.]+) nats (?:to|from)", said) == distances.split()


def test_readings_without_references() -> None:
    assert "from the original's" in curve_reading(series(0.4, 0.5))
    assert "from the retrained models' mean" in curve_reading(series(0.4, None, 0.1))
    assert "no other model" in curve_reading(series(0.4, None))
    assert "of these" not in curve_reading(series(0.4, 0.5, 0.1)), "one model has no spread"


def test_readings_are_in_the_figures() -> None:
    record = shallow_sample()
    for figure in (*draw(record).curves, draw(record).projection):
        assert figure is not None
        assert figure.reading
        assert figure.reading in section(record, "inside")
    assert "follows the original's: mean distance 0" in draw(record).curves[0].reading
    assert "follows the retrained models'" in draw(deep()).curves[0].reading


def points_of(figure: Figure, style: str) -> list[list[tuple[float, float]]]:
    svg = ElementTree.fromstring(str(figure.wide))
    return [
        [
            (float(x), float(y))
            for x, y in (pair.split(",") for pair in line.attrib["points"].split())
        ]
        for line in svg.iter("polyline")
        if line.get("class") == style
    ]


def test_curves_are_drawn_where_they_are() -> None:
    record = shallow_sample()
    assert record.inside is not None
    item, figure = record.inside.curves[0], draw(record).curves[0]
    drawn = [
        *points_of(figure, "forget"),
        *points_of(figure, "line-original"),
        *points_of(figure, "line-retrained"),
    ]
    assert len(drawn) == len(item.series) == 7
    # one linear map takes all values to all heights
    values = [value for curve in item.series for value in curve.y]
    heights = [y for line in drawn for _, y in line]
    slope = (heights[-1] - heights[0]) / (values[-1] - values[0])
    for value, height in zip(values, heights, strict=True):
        assert height == pytest.approx(heights[0] + slope * (value - values[0]), abs=0.3)
    assert slope < 0, "higher is higher up"


def test_models_differ_by_shape_and_dashes() -> None:
    svg = str(draw(shallow_sample()).curves[0].wide)
    dashes = {
        style: set(re.findall(rf'class="{style}"[^>]*stroke-dasharray="([^"]+)"', svg))
        for style in ("forget", "line-original", "line-retrained")
    }
    assert dashes["forget"] == set()
    assert len(dashes["line-original"] | dashes["line-retrained"]) == 2
    for role in ("subject", "original", "retrained"):
        assert f">{role}</text>" in svg


def test_tables_hold_the_curves() -> None:
    record = shallow_sample()
    assert record.inside is not None
    item, figure = record.inside.curves[0], draw(record).curves[0]
    assert [row[0] for row in figure.rows] == list(item.x)
    for index, row in enumerate(figure.rows):
        assert row[1] == f"{item.series[0].y[index]:.3f}"
        assert row[2] == f"{item.series[1].y[index]:.3f}"
        retrained = [curve.y[index] for curve in item.series[2:]]
        assert row[3] == f"{sum(retrained) / len(retrained):.3f}"
        assert row[4] == f"{min(retrained):.3f} … {max(retrained):.3f}"
    steps = draw(record).curves[2]
    assert len(steps.rows) == 10
    assert steps.rows[0][0] == "0"
    assert steps.rows[-1][0] == "64"
    assert "Selected rows" in steps.note


def test_long_names_of_many_layers_keep_their_ends() -> None:
    figure = draw(deep()).curves[0]
    svg = ElementTree.fromstring(str(figure.wide))
    named = [t for t in svg.iter("text") if (t.text or "").startswith("layer_")]
    shown = [t.text or "" for t in named]
    assert len(shown) == len(set(shown)) >= 3
    assert set(shown) <= {name.removeprefix("encoder.layers.encoder_") for name in DEEP_LAYERS}
    for one, other in itertools.pairwise(named):
        half = (len(one.text or "") + len(other.text or "")) * CHARACTER * 10 / 2
        assert float(other.attrib["x"]) - float(one.attrib["x"]) > half
    assert [row[0] for row in figure.rows[:2]] == ["layer_0", "layer_1"]
    assert "“encoder.layers.encoder_” in front of names of layers is left out." in figure.note


@pytest.mark.parametrize(
    ("names", "short"),
    [
        ("transformer.h.0 transformer.h.1 features", "h.0 h.1 features"),
        (
            "bert.embeddings bert.encoder.layer.0 bert.encoder.layer.10 features",
            "embeddings layer.0 layer.10 features",
        ),
        ("layer1.0 layer1.1 layer2.0 layer2.1", "layer1.0 layer1.1 layer2.0 layer2.1"),
        ("m.0.attn.proj m.0.mlp.proj m.1.mlp.proj", "attn.proj m.0.mlp.proj m.1.mlp.proj"),
        ("0 1 2", "0 1 2"),
        ("a.b b", "a.b b"),
        ("a a", "a a"),
        ("relu1 features", "relu1 features"),
    ],
)
def test_short_names_of_layers_tell_them_apart(names: str, short: str) -> None:
    found = short_names(names.split())
    assert " ".join(found.names) == short
    assert len(set(found.names)) == len(set(names.split()))
    assert bool(found.cut) == (names != short)


@pytest.mark.parametrize(
    "changes",
    [
        {"x": ("one",)},
        {"x": ()},
        {"axis": "step"},
        {"axis": "step", "x": (3.0, 1.0)},
        {"axis": "step", "x": (-3.0, 1.0)},
        {"series": ()},
        {"series": series(1.0, 1.0, 1.0).series[1:]},
    ],
)
def test_curves_that_cannot_be_drawn_are_left_to_the_record(changes: dict[str, object]) -> None:
    item = series(0.4, 0.5, 0.1)
    record = with_inside(shallow_sample(), curves=(item, item.model_copy(update=changes)))
    assert len(draw(record).curves) == 1


def test_constant_curves_are_drawn() -> None:
    record = with_inside(shallow_sample(), curves=(series(0.0, 0.0, 0.0),))
    assert len(draw(record).curves) == 1


def test_projection_draws_each_point_once_and_says_how_it_was_made() -> None:
    record = shallow_sample()
    assert record.inside is not None
    drawn, figure = record.inside.projection, draw(record).projection
    assert drawn is not None
    assert figure is not None
    for picture in filter(None, (figure.wide, figure.narrow)):
        svg = ElementTree.fromstring(str(picture))
        for style, size in (
            ("point-forget", drawn.forget),
            ("point-retain", drawn.retain),
            ("point-unseen", drawn.unseen),
        ):
            marks = [path.attrib["d"] for path in svg.iter("path") if path.get("class") == style]
            legend, *panels = marks
            assert legend.count("M") == 1
            assert [panel.count("M") for panel in panels] == [size] * len(drawn.models)
        outlines = {re.sub(r"M[\d.,-]+?(?=m)", "", path.attrib["d"]) for path in svg.iter("path")}
        assert len(outlines) >= 3, "groups differ by shape"
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for path in svg.iter("path"):
            for x, y in re.findall(r"M([\d.]+),([\d.]+)", path.attrib["d"]):
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height
    assert "each model's own" in figure.caption
    assert "72% are forget examples in the original, 72% in the subject" in figure.reading
    assert "44% would be if all groups lay mixed" in figure.reading  # 39 of 89
    assert [row[0] for row in figure.rows] == ["original", "subject", "retrained 1"]


def test_a_projection_that_does_not_add_up_is_left_to_the_record() -> None:
    record = shallow_sample()
    assert record.inside is not None
    assert record.inside.projection is not None
    broken = record.inside.projection.model_copy(update={"unseen": 7})
    assert draw(with_inside(record, projection=broken)).projection is None


def test_hostile_layer_names_are_text() -> None:
    record = printable(hostile())
    figures = draw(record)
    assert len(figures.curves) == 4
    for figure in (*figures.curves, figures.projection):
        assert figure is not None
        svg = ElementTree.fromstring(str(figure.wide))
        assert {element.tag for element in svg} <= {
            "title",
            "desc",
            "line",
            "polyline",
            "polygon",
            "circle",
            "text",
            "path",
        }
    page = to_html(hostile())
    assert "<script" not in page
    assert "<img" not in page
