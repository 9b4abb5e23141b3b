"""The report of arms whose clients choose: tables, curves, and all of it from runs."""

import csv
import io
import warnings
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from support.client_arms import arm, reference
from support.federations import snapshot, tiny
from support.html_pages import read_page

from fedtlu_fast import simulate
from fedtlu_fast.report.aggregate.client_choices import arms_choices
from fedtlu_fast.report.aggregate.clients import client_cells, client_rows, client_table
from fedtlu_fast.report.aggregate.curves import agreement_curves, quality_curves
from fedtlu_fast.report.figures.arm_curves import curves_by_budget
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.parts import png
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.results import ArmResult, read_arm
from fedtlu_fast.tasks.metrics import ACCURACY, PERPLEXITY

TOP = [[3, 4], [3, 4]]
APART = [[1, 4], [3, 4]]


def results() -> list[ArmResult]:
    return [
        arm("random@1", 0, [APART, APART], accuracy=0.5),
        arm("random@1", 1, [APART, APART], accuracy=0.6),
        arm("own@1", 0, [TOP, APART], accuracy=0.7),
        arm("own@1", 1, [TOP, APART], accuracy=0.7),
        arm("own@2", 0, [TOP, TOP], accuracy=0.75),
        arm("full", 0, [[[1, 2, 3, 4]] * 2] * 2, accuracy=0.8),
        reference("zero_shot", 0, 0.4),
    ]


def test_accuracy_comes_first_and_gains_are_over_random_within_the_budget() -> None:
    rows = client_rows(results())
    heads, cells = client_cells(rows)
    assert heads == [
        "arm",
        "global acc, %",
        "over random, points",
        "local acc, %",
        "MB up",
        "rounds, seconds",
    ]
    shown = {line[0]: line[1:] for line in cells}
    assert shown["random@1"][:2] == ["55.00 ± 7.07", "-"]
    assert shown["own@1"] == ["70.00 ± 0.00", "+15.00 ± 7.07", "70.00 ± 0.00", "20.0", "4.0"]
    assert shown["own@2"][1] == shown["full"][1] == "-", "there is no random@2 and no random"
    assert shown["zero_shot"] == ["40.00", "-", "40.00", "-", "-"]
    assert rows[2]["seeds"] == [0]
    assert rows[1]["gain_over_random_pct"] == 0, "perplexities are kept for table.csv"


def test_perplexities_are_shown_where_there_is_no_accuracy_and_gains_where_there_is_random() -> None:
    found = [
        arm("own@1", 0, [TOP], accuracy=None, test_perplexity=18.0),
        arm("random@1", 0, [TOP], accuracy=None, test_perplexity=20.0),
        arm("own@2", 0, [TOP], accuracy=None, test_perplexity=None),
    ]
    heads, cells = client_cells(client_rows(found))
    assert heads == ["arm", "global ppl", "over random, %", "local ppl", "MB up", "rounds, seconds"]
    assert [line[1:3] for line in cells] == [["18.00", "+10.00"], ["20.00", "-"], ["-", "-"]]
    assert "over random, %" not in client_cells(client_rows(found[:1]))[0]


def test_a_figure_of_the_users_own_comes_first() -> None:
    rouge = {"better": "higher", "title": "ROUGE", "percent": False}
    own = {"headline": "rouge", "figures": {"rouge": rouge}, "test_perplexity": None}
    found = [arm("own@1", 0, [TOP], accuracy=None, test_rouge=0.25, local_rouge=0.125, **own)]
    heads, cells = client_cells(client_rows(found))
    assert heads[:3] == ["arm", "global rouge", "local rouge"]
    assert cells[0][:3] == ["own@1", "0.25", "0.125"]


def test_many_arms_with_long_names_fit_a_terminal() -> None:
    names = [f"strategic-snr@1..4+lam={lam:g}" for lam in np.linspace(0.01, 0.35, 35)]
    found = [
        arm(name, seed, [TOP], accuracy=0.5 + seed / 10, test_macro_f1=0.4)
        for name in names
        for seed in (0, 1)
    ]
    found.append(arm("random@1..4", 0, [TOP], bytes_up=123_456_000_000, seconds=54321.0))
    console = Console(width=110, record=True, file=StringIO())
    console.print(client_table(client_rows(found), "Comparison"))
    lines = console.export_text().splitlines()
    assert sum(line.strip().startswith("strategic-snr@1..4+lam=") for line in lines) == 35
    assert any("55.00 ± 7.07" in line and "0.400 ± 0.000" in line for line in lines)
    assert any("123,456" in line and "54,321" in line for line in lines)
    assert len(lines) == 36 + 6, "title, blank, two lines of heads, rule, arms, blank: no arm is folded"


def panels_of(figure: Figure) -> dict[str, list[np.ndarray]]:
    """The ends of the lines in each panel, by its title."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png(lambda: figure).startswith(b"\x89PNG")
    return {
        axes.get_title(loc="left"): [np.asarray(line.get_ydata())[-1] for line in axes.lines]
        for axes in figure.axes
    }


def test_curves_have_a_panel_for_each_budget_and_levels_in_all() -> None:
    curves = quality_curves(results(), ACCURACY)
    assert curves["own@1"].mean().tolist() == pytest.approx([50, 60, 70])
    figure = curves_by_budget(curves, "accuracy, %", first=1, bands=True)
    found = panels_of(figure)
    assert sorted(found["budget 1"]) == pytest.approx([40, 55, 70, 80])
    assert sorted(found["budget 2"]) == pytest.approx([40, 75, 80])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "own", "full", "zero_shot"]
    low, high = figure.axes[0].get_ylim()
    assert low < 30
    assert high > 80


def test_rounds_before_the_first_shown_do_not_decide_the_limits() -> None:
    curves = quality_curves([arm("own@1", 0, [TOP] * 3, accuracy=0.9)], ACCURACY)
    figure = curves_by_budget(curves, "accuracy, %", first=3, marked=1)
    assert figure.axes[0].get_ylim()[0] == pytest.approx(80 - 0.5)
    panels_of(figure)


def test_equal_lines_are_named() -> None:
    found = [arm("top@1", 0, [TOP, TOP]), arm("own@1", 0, [TOP, TOP]), arm("random@1", 0, [APART, TOP])]
    curves = agreement_curves(arms_choices(found))
    assert curves["random@1"].values.tolist() == [[0, 1]]
    figure = curves_by_budget(curves, "agreement", first=2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["same line: top, own"]
    many = {f"a-rather-long-name{place}@1": curves["own@1"] for place in range(5)}
    (names,) = curves_by_budget(many, "agreement", first=2).axes[0].texts
    assert names.get_text().count("\n") == 2


def test_without_budgets_there_is_one_panel_and_colours() -> None:
    found = [arm("full", 0, [TOP], accuracy=None), arm("fedlp", 0, [APART], accuracy=None)]
    figure = curves_by_budget(quality_curves(found, PERPLEXITY), "perplexity", first=1)
    assert list(panels_of(figure)) == [""]
    first, second = figure.axes[0].lines
    assert first.get_color() != second.get_color()


def test_arms_without_any_test_have_no_curve() -> None:
    untested = arm("own@1", 0, [TOP])
    rows = [{**row, "test_accuracy": None} for row in untested.metrics]
    assert quality_curves([replace(untested, metrics=rows), ArmResult("x", 0, {}, [], [])], ACCURACY) == {}


def test_everything_is_written_from_runs(
    text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arms = {
        "random@1": {"selector": "random", "budget": 1},
        "strategic@1": {"selector": "strategic", "budget": 1},
        "random@2": {"selector": "random", "budget": 2},
        "fedlp": {"selector": "fedlp"},
    }
    found = []
    for name, chosen in arms.items():
        config = tiny(
            text, rounds=3, warmup_rounds=1, selection={"selector": "full"}, client_selection=chosen
        )
        simulate(config, tmp_path / f"{name}-seed0")
        found.append(replace(read_arm(tmp_path / f"{name}-seed0"), selector=name))
    found.append(ArmResult("local_only", 0, {"test_perplexity": 30.0}, [], []))
    before = {path for path in snapshot(tmp_path) if "/" not in path}
    rows = write_comparison_report(found, RunSettings.of(config.to_yaml()), tmp_path)
    assert [row["selector"] for row in rows] == [*arms, "local_only"]
    assert {path for path in snapshot(tmp_path) if "/" not in path} - before == {
        "comparison.json",
        "costs.csv",
        "costs.md",
        "report.html",
        "table.csv",
        "table.md",
    }
    pictures = ["agreement.png", "comparison.png", "costs-end.png", "costs.png", "maps.png"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == pictures
    page = read_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    titles = [own["data-title"] for _, own in page.tags if "data-title" in own]
    assert [title.partition(":")[0] for title in titles] == [
        *(f"Global test, one seed, budget {budget}" for budget in (1, 2)),
        *arms,
        *(f"How far clients agree, budget {budget}" for budget in (1, 2)),
        "Clients by rounds",
        *(
            f"perplexity (lower is better) over {cost}, budget {b}"
            for b in (1, 2)
            for cost in ("MB up", "GFLOP")
        ),
    ]
    assert page.texts["span"].count("strategic@1") >= 2, "in legends"
    costs = {row["arm"]: row for row in csv.DictReader(io.StringIO((tmp_path / "costs.csv").read_text()))}
    assert list(costs) == list(arms)
    assert float(costs["strategic@1"]["probe_share"]) > 0 == float(costs["random@1"]["probe_share"])
    assert float(costs["random@1"]["bytes_up"]) == found[0].summary["bytes_up"]
    assert tuple(found[0].summary["open_blocks"]) == arms_choices(found)["random@1"][0].blocks
    # An arm whose directory is gone costs the costs, and nothing else.
    (tmp_path / "table.md").unlink()
    assert write_comparison_report([arm("own@1", 0, [TOP])], RunSettings.of(config.to_yaml()), tmp_path)
    assert "the costs could not be made" in caplog.text
    assert "own@1-seed0" in caplog.text
    assert (tmp_path / "table.md").exists()
