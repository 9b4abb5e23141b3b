"""Defines the progress bar of ``fedtlu run``, a callback that shows each round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedtlu_fast.cli.console import notes
from fedtlu_fast.cli.round_line import status
from fedtlu_fast.shown import short_names, visible
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext


class ProgressBar(Callback):
    """Shows the number of finished rounds, their speed, and the results of the last one."""

    def __init__(self, live: bool) -> None:
        """Makes the bar, which is drawn inside `shown`.

        Args:
            live: whether there is a terminal to draw it on.
        """
        self._bar = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[status]}", markup=False),
            console=notes,
            disable=not live,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draws the bar while the context is entered."""
        with self._bar:
            yield

    def on_start(self, run: RunContext) -> None:
        """Starts the bar at the rounds that were finished before."""
        layout = run.layout
        names = [layout.blocks[block].name for group in layout.groups for block in group.blocks]
        self._choosable = dict(zip(names, short_names(names), strict=True))
        self._task = self._bar.add_task("", total=run.rounds, completed=run.round, status="", rate="")

    def on_round_end(self, run: RunContext) -> None:
        """Updates the bar with the round."""
        row = run.this_row
        rate = f"{row['trained'] / row['seconds']:,.3g} clients/s"
        text = visible(status(row, self._choosable))
        self._bar.update(self._task, completed=row["round"], status=text, rate=rate)
