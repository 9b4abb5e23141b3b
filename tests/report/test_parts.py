import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from support.federations import tiny

from fedtlu_fast import StorageError
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.content import Notes, Section
from fedtlu_fast.report.pages.parts import attempt, charts, pictures, png, sections, sheets
from fedtlu_fast.report.pages.run import write_run_report
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.results import ArmResult, RunResult

NAMES = [
    "$\\frac$ one",
    "US$_to_CA$_rates",
    "中文",
    "\x1b[31m",
    "a\u202eb",
    "\ud800",
    os.fsdecode(b"\xff"),
    "[/x]",
]


def figure_of(name: str) -> Figure:
    figure = Figure(figsize=(3, 2), dpi=50, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(name)
    axes.set_yticks([0, 1], [name, "plain"])
    axes.plot([0, 1], label=name)
    axes.legend()
    return figure


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_drawn_as_they_are(name: str) -> None:
    assert png(lambda: figure_of(name)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("long", "end"),
    [(f"encoder.{'deep.' * 40}", ".weight"), ("bert.encoder.layer.", ".attention.output.dense.weight")],
)
def test_long_names_leave_room_for_the_picture(long: str, end: str) -> None:
    figure = figure_of("short")
    drawn = figure.axes[0]
    names = [f"{long}{i}{end}" for i in (0, 10)]
    drawn.set_yticks([0, 1], names)
    drawn.set_title(", ".join(names))
    drawn.plot([1, 0], label=names[1])
    drawn.legend()
    figure.set_size_inches(8, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png(lambda: figure)
    assert drawn.get_position().width > 0.5
    labels = [label.get_text() for label in drawn.get_yticklabels()]
    assert [label.removesuffix(end)[-2:] for label in labels] == [".0", "10"]
    assert max(map(len, labels)) <= 48


def test_dollars_are_no_formula() -> None:
    drawn: list[Figure] = []

    def make() -> Figure:
        drawn.append(figure_of("$a$"))
        return drawn[0]

    png(make)
    (axes,) = drawn[0].axes
    assert not axes.title.get_parse_math()
    assert not axes.get_yticklabels()[0].get_parse_math()


def test_pictures_do_not_follow_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = png(lambda: figure_of("x"))
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    assert png(lambda: figure_of("x")) == plain
    assert matplotlib.rcParams["text.usetex"]


def test_pictures_may_be_drawn_in_several_threads() -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(png(lambda: figure_of("x$y$")))) for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(found)) == 1
    assert len(found) == 4


@pytest.mark.parametrize("backend", ["module://no_such_module.backend", "nonsense"])
def test_the_backend_that_a_notebook_exports_does_not_matter(backend: str) -> None:
    code = "import os, fedtlu_fast.report.pages.parts; print(os.environ['MPLBACKEND'])"
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (backend, "")


def fail(*_: Any) -> Any:
    raise ValueError("no\nsuch\x1b thing")


def test_what_cannot_be_made_costs_that_part_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert list(pictures({"good": lambda: figure_of("x"), "bad": fail})) == ["good"]
    made = sheets({"bad": fail, "empty": lambda: ([], []), "good": lambda: (["a"], [["1"]])})
    assert [table.title for table in made] == ["good"]
    assert charts({"bad": fail, "none": lambda: None}) == []
    empty, full = Section("a", "A", []), Section("b", "B", [Notes(["x"])])
    assert sections({"bad": fail, "empty": lambda: empty, "full": lambda: full}) == [full]
    assert [record.getMessage() for record in caplog.records] == [
        "plots/bad.png could not be made, all else was: ValueError: no such\\x1b thing",
        "the table “bad” could not be made, all else was: ValueError: no such\\x1b thing",
        "the chart “bad” could not be made, all else was: ValueError: no such\\x1b thing",
        "the section “bad” could not be made, all else was: ValueError: no such\\x1b thing",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_full_disk_is_no_part_of_a_report() -> None:
    def full() -> None:
        raise StorageError("full")

    with pytest.raises(StorageError):
        attempt("x", full)


@pytest.mark.parametrize(
    "broken",
    [
        "curves_figure",
        "score_history",
        "stability_cells",
        "scores_map",
        "quality_charts",
        "summary_cells",
        "faults_section",
        "run_sentence",
        "write_page",
    ],
)
def test_a_run_whose_report_breaks_somewhere_keeps_the_rest(
    finished: RunResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    monkeypatch.setattr(f"fedtlu_fast.report.pages.run.{broken}", fail)
    settings = RunSettings.of(tiny(Path("unused")).to_yaml())
    run = ArmResult("fedtlu", 0, finished.summary, finished.metrics, finished.selection)
    write_run_report(run, finished.layout, settings, tmp_path)
    assert len(caplog.records) == 1
    assert "could not be made" in caplog.text
    assert (tmp_path / "plots").exists()
    assert (tmp_path / "report.html").exists() == (broken != "write_page")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    from support.federations import write_text

    from fedtlu_fast import simulate

    return simulate(tiny(write_text(tmp_path_factory.mktemp("data") / "text.txt")))


def test_arms_without_a_single_round_are_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = {
        "selector": "zero_shot",
        "seed": 0,
        "rounds": 0,
        "warmup_rounds": 0,
        "groups": {"h.*": ["h.0", "h.1"]},
    }
    summary |= {"test_perplexity": 9.0, "local_perplexity": None, "trained_local_perplexity": None}
    summary |= {"updated_share": 0.0, "bytes_published": 0, "bytes_up": 0, "seconds": 0.0}
    rows = write_comparison_report(
        [ArmResult("zero_shot", 0, summary, [], [])], RunSettings.of(tiny(Path("x")).to_yaml()), tmp_path
    )
    assert [row["test_perplexity"] for row in rows] == [9.0]
    assert {"comparison.json", "table.md", "table.csv", "report.html"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert len(caplog.records) <= 1


def test_figures_are_made_with_numbers_of_any_size() -> None:
    def make() -> Figure:
        figure = Figure()
        figure.add_subplot().plot([np.nan, np.inf, 1e300, -1e300])
        return figure

    assert png(make)
