"""MLflow holds what the run's own files hold."""

import json
import re
from pathlib import Path

import pytest
from support.federations import tiny
from support.tracking import killed_and_resumed, numbers

from fedtlu_fast import InputError, simulate
from fedtlu_fast.integrations.trackers import MLflow, Track
from fedtlu_fast.integrations.trackers.kept import FILE

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_one_record_holds_every_round_over_a_kill(text: Path, tmp_path: Path, base: str) -> None:
    out = tmp_path / "out"
    result = killed_and_resumed(tiny(text), out, MLflow("mine", base))
    client = mlflow.MlflowClient(base)
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("out", "FINISHED")
    assert run.data.params["training.lr"] == "0.5"
    assert run.data.params["selection.selector"] == "fedtlu"
    for name, values in numbers(result).items():
        own = client.get_metric_history(run.info.run_id, re.sub(r"[^\w\-. :/]", "_", name))
        assert {metric.step: metric.value for metric in own} == pytest.approx(dict(values)), name
    kept = json.loads((out / FILE).read_text())
    assert [own["memory"] for key, own in kept.items() if key != "sha256"] == [{"id": run.info.run_id}]


def test_a_record_that_is_gone_is_an_error(text: Path, tmp_path: Path, base: str) -> None:
    out, tracker = tmp_path / "out", MLflow(uri=base)
    simulate(tiny(text, rounds=1, warmup_rounds=0), out, callbacks=[Track(tracker)])
    (tmp_path / "mlflow.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(InputError, match=r"expected an MLflow run to go on with; .*Remove trackers\.json"):
        simulate(tiny(text, rounds=2, warmup_rounds=0), out, resume=True, callbacks=[Track(MLflow(uri=base))])
