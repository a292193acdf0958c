"""Scales, label places, the drawings and the standalone picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from tests.comparison_results import made_up
from tokenmix.pages.charts import Curves, Point, Scale, amount_scale, place_labels, scatter, value_scale
from tokenmix.pages.comparison import pareto_svg


def test_scales_map_their_ends_and_keep_order() -> None:
    for scale in (Scale(1, 100, 40, 400), Scale(1, 100, 40, 400, "log"), Scale(10, 99, 400, 40, "error", 0.1)):
        assert scale(scale.low) == pytest.approx(scale.start)
        assert scale(scale.high) == pytest.approx(scale.stop)
        pixels = [scale(value) for value, _ in scale.ticks()]
        assert pixels == sorted(pixels, reverse=scale.start > scale.stop)
        assert len(pixels) >= 3


def test_ticks_are_round_and_inside() -> None:
    assert [text for _, text in Scale(0, 10, 0, 300).ticks(5)] == ["0", "2", "4", "6", "8", "10"]
    assert [text for _, text in Scale(96.9, 98.1, 0, 300).ticks(4)] == ["97.0", "97.5", "98.0"]
    assert [value for value, _ in Scale(1, 7, 0, 300, "whole").ticks(3)] == [2, 4, 6]
    assert [text for _, text in Scale(0.5, 40, 0, 120, "log").ticks()] == ["1", "3", "10", "30"]


def test_axes_bend_where_the_range_demands() -> None:
    assert amount_scale([1.0, 4.0], 0, 100).kind == "linear"
    assert amount_scale([1.0, 40.0], 0, 100).kind == "log"
    assert amount_scale([0.0, 40.0], 0, 100).kind == "linear"
    assert value_scale([97.0, 98.0], 0, 100, weight=0.3).kind == "linear"
    assert value_scale([40.0, 99.0], 0, 100, weight=0.3).kind == "error"
    assert value_scale([40.0, 100.0], 0, 100, weight=0.3)(100.0) == pytest.approx(100.0)
    flat = value_scale([98.0, 98.0], 0, 100, weight=0.25)
    assert flat.high - flat.low >= 4 * 0.25


def test_labels_keep_apart() -> None:
    points = [(100.0 + 9 * place, 100.0 + 2 * place, f"mixer_{place}") for place in range(8)]
    boxes = []
    for place, (_, _, label) in zip(place_labels(points, (0, 0, 400, 300)), points, strict=True):
        assert place, label
        wide = 6.7 * len(label)
        left = {"start": place.x, "end": place.x - wide, "middle": place.x - wide / 2}[place.anchor]
        assert left >= 0
        assert left + wide <= 400
        boxes.append((left, place.y - 10, left + wide, place.y + 2))
    for place, a in enumerate(boxes):
        for b in boxes[place + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_labels_without_room_are_left_out_but_for_those_of_the_front() -> None:
    points = [(60.0, 60.0, f"a rather long name, number {place}") for place in range(40)]
    places = place_labels(points, (0, 0, 300, 200), firm=[place == 20 for place in range(40)])
    assert places[20]
    assert 1 <= sum(place is not None for place in places) < 20


def points(*values: float, **more: Any) -> list[Point]:
    """A point for each value, each at twice the cost of the one before, all on the front."""
    return [
        Point(2.0**place, value, f"<{place}>", [f"<{place}>", "more"], place, True, **more)
        for place, value in enumerate(values)
    ]


TITLES: dict[str, Any] = {"costs": "latency, ms", "values": "score, %", "title": "a & b"}


def groups(drawing: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(drawing)
    return [group for group in root.iter("g") if "point" in group.get("class", "").split()]


def test_scatter_draws_each_point_once_and_fills_the_front() -> None:
    drawn = groups(scatter([*points(90, 95), Point(3, 80, "c", ["c"], 2, False)], weight=0.1, **TITLES))
    assert all(len(group.findall("circle")) == 2 for group in drawn)
    assert [group.get("data-mixer") for group in drawn] == ["0", "1", "2"]
    assert [("front" in group.get("class", "")) for group in drawn] == [True, True, False]
    assert (drawn[0].get("data-tip") or "").split() == ["<0>", "more"]


@pytest.mark.parametrize("lower", [False, True])
def test_better_is_up_or_down(lower) -> None:
    drawing = scatter(points(3.0, 2.0) if lower else points(2.0, 3.0), lower_is_better=lower, **TITLES)
    first, second = (float(group.findall("circle")[1].get("cy", "")) for group in groups(drawing))
    assert (first < second) == lower
    assert ("↙ better" in drawing) == lower


@pytest.mark.parametrize("value", [0.0, 50.0, 100.0, -3.0, 1e6])
def test_scatter_of_a_single_point(value: float) -> None:
    for weight in (None, 0.3):
        band = ("interval", (value - 1, value + 1))
        drawing = scatter(points(value, value_range=(value - 9, value + 9)), weight=weight, band=band, **TITLES)
        assert len(groups(drawing)) == 1
        assert "nan" not in drawing.lower()


def test_curves_draw_lines_single_epochs_as_dots_and_nothing_for_nothing() -> None:
    chart = Curves("loss", "loss", "", [("a", [(1, 2.0), (2, 1.0)]), ("b", []), ("<c>", [(1, 1.5)])])
    assert chart.shown() == [(0, "a"), (2, "<c>")]
    root = ElementTree.fromstring(chart.drawn())
    assert [line.get("data-mixer") for line in root.iter("path") if "curve" in line.get("class", "").split()] == ["0"]
    assert [dot.get("data-mixer") for dot in root.iter("circle")] == ["2"]


def test_standalone_picture_is_whole() -> None:
    picture = pareto_svg(made_up())
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in picture
    assert "data-" not in picture
    assert re.search(r'<rect x="-16" y="-44" [^>]*fill="#ffffff"', picture)  # its own background
    assert not re.search(r"(href|src|url\()", picture)
    assert "PyTorch, batch 32" in pareto_svg(made_up(), runtime="pytorch", batch=32)


def test_standalone_picture_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        pareto_svg({"mixers": {"aff": {"test_top1": 97.0}}})
    with pytest.raises(ValueError, match="nothing was measured with onnxruntime at batch 7"):
        pareto_svg(made_up(), batch=7)


def test_names_are_escaped_in_pictures() -> None:
    results = made_up(mixers=2)
    results["mixers"]["aff"]["mixer"] = 'my.file:Mix(a="<&>")'
    ElementTree.fromstring(pareto_svg(results))
