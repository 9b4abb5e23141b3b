"""trackio as a tracker."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from fedtlu_fast.extras import check_extra
from fedtlu_fast.integrations.trackers.tracker import FIELD, OpenTracker, TrackedRun, Tracker
from fedtlu_fast.parts import part


@part
class Trackio(Tracker):
    """Writes numbers to trackio's local data base, or to a Space on the Hugging Face Hub.

    trackio's own environment variables hold (``TRACKIO_DIR``, ...). The arms of a comparison are a group.
    trackio resumes runs by their names, so that every new run gets a name with a random end.

    Attributes:
        project: name of the project.
        space: name of the Space (``user/name``) that gets the numbers; None: they stay on this machine.
    """

    project: str = "fedtlu"
    space: str | None = None

    def check(self) -> None:
        """See `Tracker`."""
        check_extra("trackio", FIELD, "trackio")

    def start(self, run: TrackedRun) -> OpenTracker:
        """See `Tracker`."""
        # Imported here because it takes seconds and is an optional dependency.
        import trackio

        known = run.memory.get("name")
        with redirect_stdout(sys.stderr):  # standard output is for results
            opened = trackio.init(
                project=self.project,
                name=known or f"{run.name}-{secrets.token_hex(3)}",
                group=run.group,
                space_id=self.space,
                config=dict(run.settings),
                resume="never" if known is None else "must",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        return _Run(opened)


class _Run(OpenTracker):
    def __init__(self, run: Any) -> None:
        self._run, self._step = run, 0

    @property
    def memory(self) -> Mapping[str, str]:
        return {"name": self._run.name}

    def log(self, row: Mapping[str, float], step: int) -> None:
        self._run.log(dict(row), step=step)
        self._step = step

    def finish(self, summary: Mapping[str, float]) -> None:
        self._run.log({f"summary/{name}": value for name, value in summary.items()}, step=self._step)
        self.close()

    def close(self) -> None:
        from trackio import context_vars

        with redirect_stdout(sys.stderr):
            self._run.finish()
        if context_vars.current_run.get() is self._run:
            context_vars.current_run.set(None)  # else it would be finished again, with a message
