"""The report as a callback of a run."""

from __future__ import annotations

from collections.abc import Sequence

from fedtlu_fast.report.own_columns import Asked, asked_columns
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext
from fedtlu_fast.torch_state import own_state


class WriteReport(Callback):
    """Writes pictures and report.html when the run has ended.

    A run with a directory has this callback; give one of your own to ask for more columns.
    """

    def __init__(self, columns: Sequence[Asked] = ()) -> None:
        """Finds the columns.

        Args:
            columns: see `asked_columns`.

        Raises:
            InputError: one of them cannot be found, or is no column.
        """
        self.columns = asked_columns(columns)

    def on_end(self, run: RunContext) -> None:
        """Writes them into the run's directory.

        Raises:
            StorageError: they cannot be written.
        """
        if run.out is None or run.result is None:
            return
        # Pages draw with matplotlib, whose import would delay the first round.
        from fedtlu_fast.report.pages.run import write_run_report

        settings, found = RunSettings.read(run.out), run.result
        timings = RunDirectory(run.out).timings(len(found.metrics))
        logs = found.metrics, found.selection, timings
        arm = ArmResult(settings.selector, settings.seed, found.summary, *logs)
        with own_state():
            write_run_report(arm, found.layout, settings, run.out, self.columns)
