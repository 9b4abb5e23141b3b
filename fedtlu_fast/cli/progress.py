"""Defines the progress bar of ``fedtlu run``, a callback that shows each round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedtlu_fast.cli.console import notes
from fedtlu_fast.shown import short_names, visible
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext

MOST_SHOWN = 4
"""The largest number of chosen blocks that the progress line names."""


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


def status(row: dict[str, Any], choosable: Mapping[str, str]) -> str:
    """Returns the results of a round in one line; blocks that are always updated are not named.

    Args:
        row: the round's row of metrics.jsonl.
        choosable: short names of the blocks in groups, from which a selector chooses.
    """
    tested = f"perplexity {row['test_perplexity']:.1f}" if row["test_perplexity"] is not None else ""
    names = [choosable[name] for name in row["selected"] if name in choosable]
    more = [f"+{len(names) - MOST_SHOWN}"] if len(names) > MOST_SHOWN else []
    chosen = "warm-up: all" if row["warmup"] and row["selected"] else " ".join([*names[:MOST_SHOWN], *more])
    refused = f"refused {len(row['refused'])}" if row["refused"] else ""
    dropped = f"dropped {len(row['dropped'])}" if row["dropped"] else ""
    parts = (
        f"loss {row['train_loss']:.3f}" if row["train_loss"] is not None else "",
        tested,
        f"accuracy {100 * row['test_accuracy']:.1f}%" if row.get("test_accuracy") is not None else "",
        *_own_figures(row),
        chosen,
        refused,
        dropped,
        f"not finite, left out: {len(row['nonfinite_blocks'])} blocks" if row["nonfinite_blocks"] else "",
        "too few clients for the rule: nothing changed" if row["kept_clients"] == [] else "",
    )
    return "  ".join(part for part in parts if part)


def _own_figures(row: dict[str, Any]) -> list[str]:
    """Returns the user's own metrics in the global test."""
    ours = ("test_loss", "test_perplexity", "test_accuracy")
    own = {key: value for key, value in row.items() if key.startswith("test_") and key not in ours}
    return [f"{key.removeprefix('test_')} {value:.4g}" for key, value in own.items() if value is not None]
