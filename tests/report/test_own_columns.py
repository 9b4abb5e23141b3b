"""Columns that a report is asked for: how they are found, and what becomes of those that give no number."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.federations import tiny

import fedtlu_fast as ft
from fedtlu_fast import Column, InputError, WriteReport
from fedtlu_fast.report.aggregate.clients import client_cells, client_rows
from fedtlu_fast.report.aggregate.comparison import comparison_cells, comparison_rows
from fedtlu_fast.report.aggregate.experiment import experiment_cells, experiment_rows
from fedtlu_fast.report.columns import COLUMNS
from fedtlu_fast.report.figures.own_columns import OWN, own_figures
from fedtlu_fast.report.own_columns import OwnColumns, asked_columns
from fedtlu_fast.report.pages.parts import png
from fedtlu_fast.runs.results import ArmResult, ConditionResult


def arm(selector: str, seed: int, logged: tuple[float | None, ...] = (), **summary: Any) -> ArmResult:
    base = {"rounds": 2, "warmup_rounds": 0, "test_perplexity": 10.0, "task": "x"}
    metrics = [{"round": at, "warmup": False, "lr": value} for at, value in enumerate(logged, 1)]
    return ArmResult(selector, seed, base | summary, metrics, [])


ARMS = [
    arm("random", 0, (0.5, 0.25), bytes_up=100),
    arm("random", 1, (0.5, 0.75), bytes_up=300),
    arm("fedtlu", 0, (0.5, None), bytes_up=50),
    arm("fedtlu", 1, bytes_up=0),
]
PER_BYTE = Column("per_byte", "ppl per byte", ".3f", figure=lambda run: 1 / run.summary["bytes_up"])


def cell(table: tuple[Any, Any], arm: str, head: str) -> str:
    heads, cells = table
    found = {line[0]: line[list(heads).index(head)] for line in cells}[arm]
    assert isinstance(found, str)
    return found


def test_names_dotted_names_functions_and_objects_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figs_of_mine.py").write_text(
        "from fedtlu_fast import Column\n"
        "def twice(run): return 2\n"
        "column = Column('twice_too', figure=twice)\n"
        "class Fixed(Column):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = asked_columns(["bytes_up", "server_lr", "figs_of_mine:twice", "figs_of_mine:column", PER_BYTE])
    assert [one.key for one in found] == ["bytes_up", "server_lr", "twice", "twice_too", "per_byte"]
    assert found[0] is COLUMNS["bytes_up"]
    assert (found[1].title, found[2].title) == ("server lr", "twice")
    assert found[2].figure is sys.modules["figs_of_mine"].twice


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("bytes_up", r"got 'bytes_up'; expected a list of columns"),
        ([3], r"expected a fedtlu_fast\.Column, or a function of a run"),
        (["a b"], r"got 'a b'; expected .*the key of a number in the logs"),
        (["no_such_module:x"], r"got 'no_such_module:x'; expected .*can be imported"),
        (["json:dumps.x"], "json:dumps.x"),
        ([PER_BYTE, Column("per_byte")], "got 'per_byte'; expected a key of its own"),
    ],
)
def test_what_is_no_column_is_refused_before_anything_runs(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked_columns(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"key": ""}, r"key: got ''; expected a name"),
        ({"key": "x", "form": "nonsense"}, r"form: got 'nonsense'; expected a format of a number"),
        ({"key": "x", "better": "more"}, "better: got 'more'"),
        ({"key": "x", "figures": 1}, "figures: got 1. Did you mean figure?"),
    ],
)
def test_a_column_checks_its_parameters(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Column(**given)


def test_numbers_come_from_a_function_the_summary_or_the_last_logged_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = OwnColumns.of(ARMS[:3], asked_columns(["lr", "bytes_up", PER_BYTE]))
    assert [own.value(run, "lr") for run in ARMS[:3]] == [0.25, 0.75, 0.5]
    assert [own.value(run, "bytes_up") for run in ARMS[:3]] == [100, 300, 50]
    assert own.value(ARMS[0], "per_byte") == 0.01
    assert own.value(ARMS[0], "test_perplexity") == 10.0, "a column of ours is as it was"
    assert not caplog.records


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        (lambda run: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda run: run.summary["none"], "KeyError: 'none'"),
        (lambda run: None, "None is no number"),
        (lambda run: "7", "'7' is no number"),
        (lambda run: True, "True is no number"),
        (lambda run: math.nan, "nan is no finite number"),
        (None, "neither summary.json nor metrics.jsonl has “byte_up” (did you mean bytes_up?)"),
    ],
)
def test_a_column_without_a_number_shows_a_dash_and_says_why_once(
    figure: Callable[[Any], Any] | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = OwnColumns.of(ARMS, [Column("byte_up", "mine", figure=figure)])
    assert cell(comparison_cells(comparison_rows(ARMS, own), own), "fedtlu", "mine") == "-"
    assert cell(client_cells(client_rows(ARMS, own), own), "fedtlu", "mine") == "-"
    rows = experiment_rows("x", [ConditionResult("fedavg", "clean", ARMS)], own)
    assert [line[5] for line in experiment_cells(rows, own) if line[3] == "byte_up"] == ["-", "-"]
    assert not own_figures(ARMS, own), "no empty picture"
    (record,) = caplog.records
    assert record.getMessage() == f"the column “mine” shows a dash for 4 of 4 runs; random, seed 0: {why}"


def test_a_dash_in_one_run_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    own = OwnColumns.of(ARMS, [PER_BYTE])
    table = comparison_cells(comparison_rows(ARMS, own), own)
    assert cell(table, "fedtlu", "ppl per byte") == "0.020", "of the seed that has one"
    assert cell(table, "random", "ppl per byte") == f"{np.mean([1 / 100, 1 / 300]):.3f} ± 0.005"
    assert "1 of 4 runs; fedtlu, seed 1: ZeroDivisionError" in caplog.text


def test_a_column_of_ours_may_be_shown_otherwise() -> None:
    own = OwnColumns.of(ARMS, [Column("bytes_up", "sent", ".0f", unit="bytes")])
    heads, _ = comparison_cells(comparison_rows(ARMS, own), own)
    assert heads.count("sent, bytes") == 1
    assert "MB up" not in heads


def test_pictures_show_curves_of_what_was_logged_and_dots_of_the_rest() -> None:
    own = OwnColumns.of(ARMS, asked_columns(["lr", PER_BYTE]))
    drawn: list[Any] = []

    def make() -> Any:
        drawn.append(own_figures(ARMS, own)[OWN]())
        return drawn[0]

    assert png(make).startswith(b"\x89PNG")
    curves, dots = drawn[0].axes
    assert curves.get_title(loc="left") == "lr: round by round"
    assert [line.get_ydata().tolist() for line in curves.lines] == [[0.5, 0.5], [0.5]]
    assert dots.get_title(loc="left") == "ppl per byte"
    assert [label.get_text() for label in dots.get_yticklabels()] == ["random", "fedtlu"]


def test_a_run_reports_the_columns_of_its_own_callback(text: Path, tmp_path: Path) -> None:
    class Logs(ft.Callback):
        def on_evaluate(self, run: Any) -> None:
            run.log(half=run.round / 2)

    out = tmp_path / "out"
    ft.simulate(tiny(text, rounds=2), out, callbacks=[Logs(), WriteReport(["half"])])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('<th scope="row">half</th><td class="number">1</td>') == 1
    assert (out / "plots" / "columns.png").exists()
    assert json.loads((out / "summary.json").read_text()).get("half") is None
