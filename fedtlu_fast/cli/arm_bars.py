"""Shows the progress of several concurrent runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedtlu_fast.cli.console import notes
from fedtlu_fast.shown import visible

if TYPE_CHECKING:
    from fedtlu_fast.experiments.arms import Arm


class ArmBars:
    """Shows one progress bar per arm while its context is entered."""

    def __init__(self, live: bool) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<16}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=notes,
            disable=not live,
        )
        self.tasks: dict[Path, TaskID] = {}

    def __enter__(self) -> ArmBars:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def show(self, arm: Arm, done: int) -> None:
        """Updates the bar of an arm of which `done` rounds are finished."""
        if arm.path not in self.tasks:
            self.tasks[arm.path] = self.progress.add_task(visible(arm.name), total=arm.until)
        self.progress.update(self.tasks[arm.path], completed=done)
