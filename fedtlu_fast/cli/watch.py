"""Implements ``fedtlu watch``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtlu_fast.cli import options, streams
from fedtlu_fast.cli.console import note, results
from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.find import LATEST, find_run, kind_of, name_of
from fedtlu_fast.shown import short_names, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedtlu_fast.runs.followed import FollowedRun
    from fedtlu_fast.runs.standing import State

ENDS = {
    "finished": "finished",
    "stopped": "stopped before its last round, by a signal or an error; --resume goes on with it",
    "killed": "killed: it ended without a word, and nobody holds its lock; --resume goes on with it",
    "unreadable": "its files cannot be read",
    "gone": "its directory is gone: it ended before it had written anything",
}
"""What is said of a run that has ended."""


def watch_command(
    run: options.AnyRun = LATEST,
    interval: Annotated[
        float, typer.Option(min=0.05, help="Seconds between two looks at the files.", metavar="SECONDS")
    ] = 0.5,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for a directory that does not exist yet.")
    ] = False,
) -> None:
    """Watch a run or a comparison while another process runs it; ends when the run ends.

    On a terminal it shows progress, speed, curves, the blocks that were chosen lately, and faults. Elsewhere
    it prints a line for every round. Ctrl-C ends the watching and leaves the run alone.

    \b
      fedtlu watch                 the run that was begun last
      fedtlu watch baseline        the run with --name baseline
      fedtlu watch runs/2026...    by its directory

    The exit code is 0 if the run has finished, and 1 if it was stopped or killed.
    """
    path = Path(run) if wait and os.sep in run else find_run(run, "RUN")
    if not wait and not os.path.isdir(path):
        expected = "the directory of a run, a comparison or an experiment"
        raise InputError("RUN", str(path), expected, "With --wait, a directory may be made later.")
    watched = _Watched(path)
    try:
        end = _on_terminal(watched, interval) if results.is_terminal else _in_lines(watched, interval)
    except KeyboardInterrupt as interrupt:
        if watched.state == "running":
            note(f"The run goes on; to watch it again: fedtlu watch {visible(run)}")
        number = getattr(interrupt, "number", 2)
        raise typer.Exit(128 + int(number)) from None
    if end:
        reasons = [
            f" ({problem})"
            for problem in (watched.problem, *(run.problem for run in watched.runs))
            if problem
        ]
        text = f"{name_of(path)}: {ENDS[end]}{''.join(reasons[:1])}"
        results.print(visible(text), markup=False, highlight=False, soft_wrap=True)
    for one in watched.runs:
        if end and one.damaged:
            note(f"{one.name}: lines of metrics.jsonl that hold no row: {one.damaged}")
    if end not in ("finished", ""):
        raise typer.Exit(1)


class _Watched:
    """What a directory holds: one run, or all runs of a comparison or an experiment.

    Attributes:
        path: the directory.
        state: how all of it stood at the last look; ``gone`` if the directory was there and is no more.
        runs: the runs.
        problem: why it cannot be found out which runs there are; empty if it can, or if it may be known soon.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.state, self.problem = path, "not begun", ""
        self.runs: list[FollowedRun] = []
        self.alone = True
        self._seen = False

    def look(self) -> list[tuple[FollowedRun, dict[str, Any]]]:
        """Reads what is new; returns the new rows, each with its run."""
        self._find()
        rows = [(run, row) for run in self.runs for row in run.look()]
        self.state = self._whole_state()
        return rows

    def view(self, width: int) -> RenderableType:
        from rich.text import Text

        from fedtlu_fast.cli.watch_view import arms_view, run_view

        if not self.runs:
            return Text(f"{visible(str(self.path))}: waiting for a run to begin")
        if self.alone:
            return run_view(self.runs[0], width)
        done = sum(run.state == "finished" for run in self.runs)
        title = f"{visible(name_of(self.path))}  {self.state}  {done} of {len(self.runs)} runs finished"
        return arms_view(title, self.runs, width)

    def _find(self) -> None:
        """Finds out once which runs there are; until then there are none."""
        if self.runs:
            return
        from fedtlu_fast.runs.followed import FollowedRun
        from fedtlu_fast.runs.glance import DAMAGE, arms_in, what_is_wrong
        from fedtlu_fast.runs.standing import held_state

        held, kind = held_state(self.path), kind_of(self.path)
        if kind == "run":
            self.runs = [FollowedRun(self.path, name_of(self.path))]
        elif kind is not None:
            self.alone = False
            try:
                arms = arms_in(self.path)
            except DAMAGE as error:
                # A comparison that is being written holds the lock, and its settings come last.
                self.problem = "" if held == "running" else what_is_wrong(error)
                return
            self.problem = ""
            self.runs = [FollowedRun(arm.path, arm.name, arm.until) for arm in arms]

    def _whole_state(self) -> State | str:
        from fedtlu_fast.runs.standing import state_of_arms

        if not os.path.isdir(self.path):
            return "gone" if self._seen else "not begun"
        self._seen = True
        if not self.runs:
            return "unreadable" if self.problem else "not begun"
        if self.alone:
            return "unreadable" if self.runs[0].problem else self.runs[0].state
        return state_of_arms(self.path, [run.path for run in self.runs], [run.state for run in self.runs])


def _on_terminal(watched: _Watched, interval: float) -> str:
    """Draws anew at every look until the run has ended; returns how it ended."""
    from rich.live import Live

    watched.look()
    with Live(
        watched.view(results.width), console=results, auto_refresh=False, vertical_overflow="crop"
    ) as live:

        def show(_: Any) -> None:
            live.update(watched.view(results.width), refresh=True)

        return _followed(watched, interval, show)


def _in_lines(watched: _Watched, interval: float) -> str:
    """Prints a line for every round until the run has ended; returns how it ended."""
    from fedtlu_fast.cli.duration import duration
    from fedtlu_fast.cli.round_line import status

    def show(rows: Sequence[tuple[FollowedRun, dict[str, Any]]]) -> None:
        for run, row in rows:
            choosable = run.choosable()
            names = dict(zip(choosable, short_names(choosable), strict=True))
            head = f"round {row['round']}/{run.rounds}" if run.rounds else f"round {row['round']}"
            seconds = f"  {duration(row['seconds'])}" if row.get("seconds") is not None else ""
            text = f"{head}  {status(row, names)}{seconds}"
            text = text if watched.alone else f"{run.name}  {text}"
            results.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    if kind_of(watched.path) is None:
        note(f"{watched.path}: waiting for a run to begin")
    return _followed(watched, interval, show)


def _followed(
    watched: _Watched, interval: float, show: Callable[[list[tuple[FollowedRun, dict[str, Any]]]], None]
) -> str:
    """Looks and shows until the run has ended; returns how, or "" if nobody reads the output any more."""
    while True:
        rows = watched.look()
        show(rows)
        if streams.reader_is_gone():
            return ""
        if watched.state in ENDS:
            # Rows that were written between the look at the log and the look at the lock.
            show(watched.look())
            return watched.state
        time.sleep(interval)
