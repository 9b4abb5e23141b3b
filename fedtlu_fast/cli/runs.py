"""Implements ``fedtlu runs``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note
from fedtlu_fast.cli.files import check_place, header_of, write_csv
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.find import FOLDERS, run_directories

if TYPE_CHECKING:
    from fedtlu_fast.runs.glance import Glance

SHOWN = 50


@dataclass(frozen=True)
class RunRow:
    """One run as ``--json`` and ``--csv`` have it.

    Attributes:
        path: its directory.
        began: when it was begun, in local time, as ``2026-11-30 05:23:08``.
        name: its name.
        kind: run, comparison or experiment; empty if nothing was written yet.
        state: running, finished, stopped, killed, not begun or unreadable.
        task: the task.
        selector: the selector, or those of a comparison, separated by commas.
        seeds: the seeds, separated by commas.
        done: finished rounds; of a comparison or experiment, finished runs.
        asked: all rounds or runs.
        figure: the name of the number in `result`, such as perplexity.
        result: the last global test; of a comparison, the mean of its best selector. None before the first.
        best: the best selector of a comparison.
        problem: why the directory cannot be read; empty if it can.
    """

    path: str
    began: str
    name: str
    kind: str
    state: str
    task: str
    selector: str
    seeds: str
    done: int
    asked: int
    figure: str
    result: float | None
    best: str
    problem: str


def runs_command(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="The folder that holds the runs (default: runs/ and experiments/).",
            parser=at_home,
            show_default=False,
        ),
    ] = None,
    last: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Number of runs to list, those that were begun last; 0: all."),
    ] = SHOWN,
    csv_file: options.Csv = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """List runs, comparisons and experiments, those that were begun last first.

    Rounds are finished rounds of all rounds; of a comparison or an experiment they are finished runs of all
    its runs. The result is the last global test; of a comparison, the mean of its best selector.

    \b
    A run is
      running      a process holds its lock
      finished     it has a summary
      stopped      it ended before its last round, by a signal or an error
      killed       it was ended from outside, without a word
      not begun    it has not written its settings yet
    `fedtlu run --resume NAME` goes on with a run that was stopped or killed.
    """
    from fedtlu_fast.runs.glance import glance

    check_place("--csv", csv_file, header_of(RunRow))
    if folder is not None and not folder.is_dir():
        raise InputError("DIR", str(folder), "a folder of runs, such as runs")
    found = run_directories(FOLDERS if folder is None else [str(folder)])
    shown = found[:last] if last else found
    looked = [glance(path) for path in shown]
    rows = [_row(one) for one in looked]
    if csv_file is not None:
        write_csv(csv_file, RunRow, rows)
    if as_json:
        from dataclasses import asdict

        from fedtlu_fast.runs.as_json import dump_json

        typer.echo(dump_json([asdict(row) for row in rows], indent=1))
        return
    if not rows:
        where = str(folder) if folder is not None else " and ".join(f"{name}/" for name in FOLDERS)
        note(f"There are no runs in {where}. `fedtlu run --preset smoke` makes one.")
        return
    table = _table(looked, one_folder=len({one.path.parent for one in looked}) == 1)
    show(table, "use --json", ("task", "kind"))
    for one in looked:
        if one.problem:
            note(f"{one.path}: {one.problem}")
    if len(shown) < len(found):
        note(f"{len(found) - len(shown)} older ones are not listed; --last 0 lists all.")


def _row(one: Glance) -> RunRow:
    return RunRow(
        path=str(one.path),
        began=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.began)),
        name=one.name,
        kind=one.kind or "",
        state=one.state,
        task=one.task,
        selector=one.selector,
        seeds=",".join(map(str, one.seeds)),
        done=one.done,
        asked=one.asked,
        figure=one.figure.name,
        result=one.figure.value,
        best=one.best,
        problem=one.problem,
    )


def _table(looked: Sequence[Glance], one_folder: bool) -> Table:
    table = Table(title="Runs, the latest first", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("when", "name", "kind", "task", "selector", "rounds", "result", "state"):
        short = head in ("name", "selector")
        table.add_column(
            head, overflow="fold", no_wrap=not short, justify="right" if head == "rounds" else "left"
        )
    for one in looked:
        result = f"{one.figure}, {one.best}" if one.best else str(one.figure)
        table.add_row(
            _when(one.began),
            one.name if one_folder else str(one.path.parent / one.name),
            one.kind or "",
            one.task,
            one.selector.replace(",", ", "),
            f"{one.done}/{one.asked}" if one.asked else "",
            result,
            one.state,
        )
    return table


def _when(began: float) -> str:
    """Returns a time without the year if it is this year's."""
    then = time.localtime(began)
    return time.strftime("%m-%d %H:%M" if then.tm_year == time.localtime().tm_year else "%Y-%m-%d", then)
