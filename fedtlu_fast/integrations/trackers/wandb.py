"""Weights & Biases as a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedtlu_fast.extras import check_extra
from fedtlu_fast.integrations.trackers.tracker import FIELD, OpenTracker, TrackedRun, Tracker
from fedtlu_fast.parts import part


@part
class WeightsAndBiases(Tracker):
    """Sends numbers to Weights & Biases; the settings are the run's config.

    wandb's own environment variables hold (``WANDB_MODE=offline``, ``WANDB_DIR``, ...). The arms of a
    comparison are a group. A resumed run has the same id. While it is offline, wandb writes one folder for
    each process, and ``wandb sync`` joins them.

    Attributes:
        project: name of the project.
        entity: the user or team that owns the project; None: wandb's default.
    """

    project: str = "fedtlu"
    entity: str | None = None

    def check(self) -> None:
        """See `Tracker`."""
        check_extra("wandb", FIELD, "wandb")

    def start(self, run: TrackedRun) -> OpenTracker:
        """See `Tracker`."""
        # Imported here because it takes seconds and is an optional dependency.
        import wandb

        known = run.memory.get("id")
        opened = wandb.init(
            project=self.project,
            entity=self.entity,
            name=run.name,
            group=run.group,
            config=dict(run.settings),
            id=known,
            resume=None if known is None else "allow",
            reinit="create_new",  # several runs of one process stay apart
        )
        return _Run(opened)


class _Run(OpenTracker):
    def __init__(self, run: Any) -> None:
        self._run = run

    @property
    def memory(self) -> Mapping[str, str]:
        return {"id": self._run.id}

    def log(self, row: Mapping[str, float], step: int) -> None:
        # wandb refuses steps before the one that it stands at. A resumed run repeats such steps with the same
        # values.
        if step >= self._run.step:
            self._run.log(dict(row), step=step, commit=True)

    def finish(self, summary: Mapping[str, float]) -> None:
        self._run.summary.update({f"summary/{name}": value for name, value in summary.items()})
        self._run.finish()

    def close(self) -> None:
        self._run.finish(exit_code=1)
