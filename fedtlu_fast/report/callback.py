"""The report as a callback of a run."""

from __future__ import annotations

from fedtlu_fast.report.pages.run import write_run_report
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext
from fedtlu_fast.torch_state import own_state


class WriteReport(Callback):
    """Writes pictures and report.html when the run has ended."""

    def on_end(self, run: RunContext) -> None:
        """Writes them into the run's directory.

        Raises:
            StorageError: they cannot be written.
        """
        if run.out is None or run.result is None:
            return
        with own_state():
            write_run_report(run.result, RunSettings.read(run.out), run.out)
