"""MLflow as a tracker."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.extras import check_extra
from fedtlu_fast.integrations.trackers.numbers import plain
from fedtlu_fast.integrations.trackers.tracker import FIELD, OpenTracker, TrackedRun, Tracker
from fedtlu_fast.parts import part

MOST_VALUES, LONGEST_VALUE = 100, 6000
"""What MLflow takes: parameters in a call, and characters of a parameter's value."""
MOST_METRICS = 500
"""In a call; MLflow takes up to 1000."""


@part
class MLflow(Tracker):
    """Sends numbers to MLflow; the settings are the run's parameters.

    MLflow's own environment variables hold (``MLFLOW_TRACKING_URI``, ...). The arms of a comparison share the
    tag ``group``. A resumed run goes on with the same MLflow run, whose parameters stay those of its
    beginning.

    Attributes:
        experiment: name of the experiment; it is made when there is none.
        uri: the tracking server or data base; None: MLflow's default.
    """

    experiment: str = "fedtlu"
    uri: str | None = None

    def check(self) -> None:
        """See `Tracker`."""
        check_extra("mlflow", FIELD, "mlflow")

    def start(self, run: TrackedRun) -> OpenTracker:
        """See `Tracker`."""
        # Imported here because it takes seconds and is an optional dependency.
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(tracking_uri=self.uri)
        known = run.memory.get("id")
        if known is not None:
            try:
                client.update_run(known, status="RUNNING")
            except MlflowException as error:
                expected = f"an MLflow run to go on with; {cause(error)}"
                fix = "Remove trackers.json from the run's directory: the trackers then begin new records."
                raise InputError("mlflow", known, expected, fix) from error
            return _Run(client, known)
        tags = {} if run.group is None else {"group": run.group}
        begun = client.create_run(self._experiment(client, MlflowException), run_name=run.name, tags=tags)
        opened = _Run(client, begun.info.run_id)
        opened.describe(run.settings)
        return opened

    def _experiment(self, client: Any, refused: type[Exception]) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(client.create_experiment(self.experiment))
            except refused:
                found = client.get_experiment_by_name(self.experiment)
                if found is None:  # it was not another arm of the comparison that made it
                    raise
        return str(found.experiment_id)


class _Run(OpenTracker):
    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._id, self._step = client, run_id, 0

    @property
    def memory(self) -> Mapping[str, str]:
        return {"id": self._id}

    def describe(self, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = [Param(_name(name), str(plain(value))[:LONGEST_VALUE]) for name, value in settings.items()]
        for first in range(0, len(values), MOST_VALUES):
            self._client.log_batch(self._id, params=values[first : first + MOST_VALUES])

    def log(self, row: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now, self._step = int(1000 * time.time()), step
        metrics = [Metric(_name(name), value, now, step) for name, value in row.items()]
        for first in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[first : first + MOST_METRICS])

    def finish(self, summary: Mapping[str, float]) -> None:
        self.log({f"summary/{name}": value for name, value in summary.items()}, self._step)
        self._client.set_terminated(self._id, "FINISHED")

    def close(self) -> None:
        self._client.set_terminated(self._id, "KILLED")


def _name(name: str) -> str:
    """Replaces characters that MLflow takes in no name."""
    return re.sub(r"[^\w\-. :/]", "_", name)
