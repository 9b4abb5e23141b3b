"""Charts as SVG: scales, lines, maps and dots say what the numbers are, and escape names."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast.report.charts.chart import Chart, shortened
from fedtlu_fast.report.charts.dots import Dot, dot_chart
from fedtlu_fast.report.charts.lines import MOST_STOPS, Axes, Series, line_chart
from fedtlu_fast.report.charts.maps import LEVELS, map_chart
from fedtlu_fast.report.charts.maps import MOST_ROWS as MOST_MAP_ROWS
from fedtlu_fast.report.charts.scale import Scale, thinned
from fedtlu_fast.report.figures.style import COLOURS, OTHERS, PALETTE, Style, dash_lengths, on_dark

RED = Style("#D55E00", "-")
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script> & \x1b\u202e\ud800'


def drawn(chart: Chart | None) -> ElementTree.Element:
    """The drawing, which has to be well-formed."""
    assert chart is not None
    return ElementTree.fromstring(str(chart.drawing))


def say(at: int, row: int) -> str:
    return f"{at}, {row}"


def paths(chart: Chart | None, kind: str) -> list[str]:
    return [one.get("d", "") for one in drawn(chart).iter(f"{SVG}path") if one.get("class") == kind]


numbers = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 6))


@given(st.lists(numbers, min_size=1, max_size=20))
def test_a_scale_shows_all_numbers_and_its_ticks_are_within(values: list[float]) -> None:
    scale = Scale.over(values)
    assert all(0 <= scale.share(value) <= 1 for value in values)
    labels = scale.labels()
    assert len(labels) <= 7
    assert all(-1e-6 <= scale.share(tick) <= 1 + 1e-6 for tick, _ in labels)
    assert len({text for _, text in labels}) == len(labels), "no two ticks read the same"
    for tick, text in labels:
        assert float(text.replace(",", "")) == pytest.approx(tick, rel=0.01, abs=1e-5)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_ticks_of_rounds_are_whole(first: int, count: int) -> None:
    ticks = Scale(first - 0.5, first + count - 0.5, whole=True).ticks()
    assert ticks
    assert all(tick == round(tick) for tick in ticks)


@given(st.integers(1, 5000), st.integers(2, 500))
def test_thinning_keeps_both_ends(count: int, most: int) -> None:
    places = thinned(count, most)
    assert len(places) == min(count, most)
    assert (places[0], places[-1]) == (0, count - 1)
    assert places == sorted(set(places))


def test_numbers_without_an_end_have_an_axis() -> None:
    assert Scale.over([math.nan, math.inf]) == Scale(0.0, 1.0)
    assert Scale.over([3.0]).share(3.0) == pytest.approx(0.05 / 0.13)
    assert Scale(0, 1).labels()[1] == (0.2, "0.2")
    assert Scale(0, 1).labels(4)[1] == (0.25, "0.25")


def test_a_line_stands_where_its_numbers_are() -> None:
    values = np.array([[10.0, 20.0, 30.0], [10.0, 40.0, 30.0]])
    axes = Axes(vertical=Scale(0, 40))
    chart = line_chart("Title", [1, 2, 3], [Series("mine", RED, values)], axes)
    # Rounds 1 to 3 have half a round of room at each side; the mean is 10, 30, 30 of 40.
    assert paths(chart, "line") == ["M166.7 750L500 250L833.3 250"]
    assert paths(chart, "band") == ["M166.7 750L500 0L833.3 250L833.3 250L500 500L166.7 750Z"]
    assert chart is not None
    assert chart.readings["x"] == [167, 500, 833]
    (series,) = chart.readings["series"]
    assert series == {
        "name": "mine",
        "y": [750, 250, 250],
        "text": ["10.00", "30.00 (20.00 to 40.00)", "30.00"],
    }
    assert chart.numbers == (
        ["round", "mine"],
        [["1", "10.00"], ["2", "30.00 (20.00 to 40.00)"], ["3", "30.00"]],
    )
    assert chart.numeric == [False, True]
    assert chart.summary == "mine: 10.00 at round 1, 30.00 at round 3."


def test_rounds_without_a_test_are_crossed_and_levels_reach_over_all() -> None:
    level = Series("level", RED, np.array([[5.0]]), level=True)
    gaps = Series("gaps", RED, np.array([[1.0, np.nan, 3.0]]))
    chart = line_chart("T", [1, 2, 3], [gaps, level], Axes(vertical=Scale(0, 10)))
    assert paths(chart, "line") == ["M166.7 900L833.3 700", "M0 500L1000 500"]
    assert chart is not None
    assert chart.readings["series"][0]["text"] == ["1.00", "-", "3.00"]
    assert [line[1] for line in chart.numbers[1]] == ["1.00", "-", "3.00"]


def test_what_lies_outside_is_said_and_not_marked() -> None:
    series = Series("x", RED, np.array([[900.0, 3.0]]))
    chart = line_chart("T", [1, 2], [series], Axes(vertical=Scale(0, 10)))
    assert chart is not None
    assert chart.readings["series"][0]["y"] == [None, 700]
    assert chart.note == "Some early rounds lie outside the picture."


def test_many_rounds_are_thinned() -> None:
    count = 10_000
    series = [Series(f"arm {arm}", RED, np.random.default_rng(arm).random((3, count))) for arm in range(4)]
    chart = line_chart("T", range(1, count + 1), series, Axes())
    assert chart is not None
    assert len(chart.readings["stops"]) == MOST_STOPS
    assert (chart.readings["stops"][0], chart.readings["stops"][-1]) == ("round 1", f"round {count}")
    assert len(str(chart.drawing)) < 100_000


def test_nothing_is_drawn_of_nothing() -> None:
    assert line_chart("T", [1], [Series("x", RED, np.array([[np.nan]]))], Axes()) is None
    assert dot_chart("T", [], across="x", say=str, spread="") is None
    empty = np.zeros((0, 2))
    assert map_chart("T", ["a", "b"], [], empty, say, summary="", style=RED, numbers=([], [])) is None


def test_a_map_shades_cells_and_joins_them() -> None:
    shades = np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 0.5], [np.nan, 0.01]])
    texts = [[f"{cell}" for cell in row] for row in shades]

    def text(at: int, row: int) -> str:
        return texts[at][row]

    chart = map_chart("T", ["a", "b"], [5, 6, 7, 8], shades, text, summary="s", style=RED, numbers=([], []))
    assert paths(chart, f"cell level{LEVELS}") == ["M0 0h500v500h-500z"]
    assert paths(chart, "cell level3") == ["M250 500h500v500h-500z"]
    assert paths(chart, "cell level1") == ["M750 500h250v500h-250z"]
    assert chart is not None
    words = chart.readings["words"]
    assert [[words[at] for at in row] for row in chart.readings["text"]] == texts
    assert chart.readings["x"] == [125, 375, 625, 875]


def test_a_map_of_very_many_blocks_shows_the_most_updated() -> None:
    shades = np.zeros((3, 500))
    shades[:, 400] = 1
    names = [f"h.{at}" for at in range(500)]
    chart = map_chart("T", names, [1, 2, 3], shades, say, summary="", style=RED, numbers=([], []))
    assert chart is not None
    assert len(chart.readings["rows"]) == MOST_MAP_ROWS
    assert "h.400" in chart.readings["rows"]
    assert "440 more rows" in chart.note


def test_dots_stand_in_rows_with_their_bars() -> None:
    dots = [Dot("one", "a", RED, 1.0, 0.0, 2.0), Dot("one", "b", RED, -1.0), Dot("two", "a", RED, 0.5)]
    chart = dot_chart("T", dots, across="gain", say="{:+.1f}".format, spread="95% interval", zero=True)
    found = drawn(chart)
    assert len(list(found.iter(f"{SVG}circle"))) == 3
    assert sum(one.get("class") == "bar" for one in found.iter(f"{SVG}line")) == 1
    assert chart is not None
    assert chart.numbers[1] == [
        ["one", "a", "+1.0", "+0.0 to +2.0"],
        ["one", "b", "-1.0", "-"],
        ["two", "a", "+0.5", "-"],
    ]
    assert chart.numeric == [False, False, True, True]


def test_names_act_on_nothing() -> None:
    values = np.array([[1.0, 2.0]])
    shades = np.array([[1.0], [0.0]])
    dots = [Dot(HOSTILE, HOSTILE, RED, 1.0)]

    def hostile(at: int, row: int) -> str:
        return HOSTILE

    for chart in (
        line_chart(HOSTILE, [1, 2], [Series(HOSTILE, RED, values)], Axes(mark=(1.5, HOSTILE))),
        map_chart(
            HOSTILE,
            [HOSTILE],
            [1, 2],
            shades,
            hostile,
            summary=HOSTILE,
            style=RED,
            numbers=([], []),
        ),
        dot_chart(HOSTILE, dots, across=HOSTILE, say=str, spread=HOSTILE),
    ):
        found = drawn(chart)
        assert found.get("role") == "img"
        assert {one.tag for one in found.iter()} <= {
            f"{SVG}{tag}" for tag in ("svg", "path", "line", "text", "rect", "circle")
        }
        text = str(chart and chart.drawing)
        assert "<script" not in text
        assert not any(sign in text for sign in ("\x1b", "\u202e", "\ud800"))


def test_long_names_keep_their_ends() -> None:
    assert shortened("transformer.h.10.attn.c_attn.weight", 22) == "trans…tn.c_attn.weight"
    assert len(shortened("x" * 100)) == 22
    assert shortened("short") == "short"


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG defines it."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", sorted({*COLOURS.values(), *OTHERS, *PALETTE}))
def test_colours_can_be_seen_on_a_dark_page(colour: str) -> None:
    assert contrast(on_dark(colour), "#14171b") >= 3


def test_dashes_of_pictures_have_dashes_in_svg() -> None:
    assert dash_lengths("-") == ""
    assert dash_lengths((0, (6, 1, 1, 1))) == "6 1 1 1"
