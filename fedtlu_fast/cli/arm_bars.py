"""Shows the progress of several concurrent runs, and says which of them diverged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedtlu_fast.cli.console import note, notes
from fedtlu_fast.shown import visible

if TYPE_CHECKING:
    from fedtlu_fast.experiments.arms import Arm
    from fedtlu_fast.runs.results import ArmResult


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


def say_diverged(arms: Sequence[ArmResult]) -> None:
    """Prints which runs of a comparison diverged, because their figures are no results."""
    for arm in arms:
        if (last := arm.summary.get("diverged_round")) is not None:
            text = (
                f"{arm.selector}, seed {arm.seed}: diverged; the test loss after round {last} is not finite"
            )
            note(text)
