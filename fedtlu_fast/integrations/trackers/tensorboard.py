"""TensorBoard as a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.extras import check_extra
from fedtlu_fast.integrations.trackers.numbers import plain
from fedtlu_fast.integrations.trackers.tracker import FIELD, OpenTracker, TrackedRun, Tracker
from fedtlu_fast.parts import part
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.files import make_folder, storage_error


@part
class TensorBoard(Tracker):
    """Writes event files for TensorBoard: scalars, and the settings as hyperparameters.

    A resumed run writes a further event file, with the mark that makes TensorBoard forget later steps of the
    files before.

    Attributes:
        folder: a folder for event files, in which every run gets a folder of its name; None: the folder
            ``tensorboard`` in the run's directory (``tensorboard --logdir runs`` shows all runs).
    """

    folder: str | None = None

    def check(self) -> None:
        """See `Tracker`."""
        check_extra("tensorboard", FIELD, "tensorboard")

    def start(self, run: TrackedRun) -> OpenTracker:
        """See `Tracker`."""
        # Imported here because it takes seconds and is an optional dependency.
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        writer = SummaryWriter(str(self._place(run)), purge_step=run.logged + 1)
        values = {name: plain(value) for name, value in run.settings.items()}
        # As SummaryWriter.add_hparams does, but into this run's own folder, and before the first round.
        experiment, begin, end = hparams(values, dict.fromkeys(run.figures, 0.0))
        for summary in (experiment, begin):
            writer.file_writer.add_summary(summary)
        writer.flush()
        return _Events(writer, end)

    def _place(self, run: TrackedRun) -> Path:
        if self.folder is not None:
            return at_home(self.folder).joinpath(*filter(None, (run.group, run.name)))
        if run.directory is None:
            raise InputError("folder", None, "a folder, because this run has no directory to write into")
        place = run.directory / "tensorboard"
        try:
            make_folder(place)
        except OSError as error:
            raise storage_error(place, error) from error
        return place


class _Events(OpenTracker):
    def __init__(self, writer: Any, end: Any) -> None:
        self._writer, self._end, self._step = writer, end, 0

    def log(self, row: Mapping[str, float], step: int) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._step = step
        self._writer.flush()

    def finish(self, summary: Mapping[str, float]) -> None:
        for name, value in summary.items():
            self._writer.add_scalar(f"summary/{name}", value, self._step)
        self._writer.file_writer.add_summary(self._end)
        self.close()

    def close(self) -> None:
        self._writer.close()
