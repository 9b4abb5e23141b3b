"""Clients that fail in tests and in what follows the rounds: as in the rounds."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.federations import tiny

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.run import open_run
from fedtlu_fast.client_steps import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.data.population import ArrayPopulation, Samples
from fedtlu_fast.errors import ClientError, InterruptedRunError
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.experiments.experiment import Condition, run_experiment
from fedtlu_fast.participation.cohort import sample_cohort
from fedtlu_fast.runs.results import ArmResult

SETTINGS: dict[str, Any] = {
    "clients": 6,
    "cohort": 1,
    "rounds": 2,
    "evaluation": {"trained_clients": 6, "local_every": 9},
}
TRAINED = {client for index in (1, 2) for client in sample_cohort(0, index, 6, 1)}
FAILING = min(set(range(6)) - TRAINED)
"""A client of whom no round knows anything."""


class _WithoutWordsError(Exception):
    def __str__(self) -> str:
        raise ValueError("its text fails")


class _PanicError(BaseException):
    """As libraries raise that are written in Rust."""


def _fail(monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException | None = None) -> None:
    right: Callable[[ArrayPopulation, int], Samples] = getattr(ArrayPopulation, method)

    def broken(self: ArrayPopulation, client: int) -> Samples:
        if client == FAILING:
            raise error or OSError("its file is gone")
        return right(self, client)

    monkeypatch.setattr(ArrayPopulation, method, broken)


@pytest.mark.parametrize("method", ["train", "held_out"])
def test_a_client_that_fails_after_the_rounds_is_left_out_and_named(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    whole = simulate(tiny(text, **SETTINGS))
    _fail(monkeypatch, method)
    dropped = tiny(text, **SETTINGS, execution={"client_errors": "drop"})
    found = simulate(dropped)
    assert found.summary["failed_tests"] == {str(FAILING): "OSError: 'its file is gone'"}
    assert found.summary["params_sha256"] == whole.summary["params_sha256"]
    assert found.summary["trained_local_loss"] != whole.summary["trained_local_loss"]
    with pytest.raises(ClientError, match=rf"client {FAILING} failed .* round 2"):
        simulate(tiny(text, **SETTINGS), tmp_path / "out")
    again = simulate(dropped, tmp_path / "out", resume=True)
    assert again.summary["failed_tests"] == found.summary["failed_tests"]
    assert again.summary["trained_local_loss"] == found.summary["trained_local_loss"]


def test_tests_and_last_trainings_are_the_runs_own_and_have_no_limit(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `client_seconds` says of itself: what a worker asks for is not seen here."""
    asked: dict[str, list[int]] = {"train": [], "held_out": []}

    def noting(method: str) -> Callable[[ArrayPopulation, int], Samples]:
        right: Callable[[ArrayPopulation, int], Samples] = getattr(ArrayPopulation, method)

        def note(self: ArrayPopulation, client: int) -> Samples:
            asked[method].append(client)
            return right(self, client)

        return note

    execution = {"executor": "processes", "workers": 1, "client_seconds": 60.0}
    with closing(open_run(tiny(text, **SETTINGS, execution=execution))) as run:
        for method in asked:
            monkeypatch.setattr(ArrayPopulation, method, noting(method))
        run.advance(1)
        assert asked == {"train": [], "held_out": []}
        run.finish()
    assert set(asked["train"]) == set(asked["held_out"]) == set(range(6))


@pytest.mark.usefixtures("in_process")
def test_comparison_with_a_failing_client_goes_on_without_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(monkeypatch, "held_out")
    with pytest.raises(ClientError, match=f"client {FAILING} failed"):
        compare(tiny(text, **SETTINGS), ("last",), (0,), tmp_path / "out")
    settings = tiny(text, **SETTINGS, execution={"client_errors": "drop"})
    (found,) = compare(settings, ("last",), (0,), tmp_path / "out", resume=True)
    assert list(found.summary["failed_tests"]) == [str(FAILING)]


@pytest.mark.usefixtures("in_process")
def test_experiment_with_a_failing_client_goes_on_without_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(resume: bool = True, **settings: Any) -> ArmResult:
        grid = [Condition("fedavg", "clean", tiny(text, **SETTINGS, **settings))]
        (found,) = run_experiment(grid, ("last",), (0,), tmp_path / "out", resume=resume)
        return found.arms[0]

    _fail(monkeypatch, "held_out")
    with pytest.raises(ClientError, match=f"client {FAILING} failed"):
        run(resume=False)
    with pytest.raises(InputError, match="that it began with"):
        run(seed=3)
    execution = {"client_errors": "drop", "client_seconds": None, "retries": 5}
    assert list(run(execution=execution, checkpoint={"every": 1}).summary["failed_tests"]) == [str(FAILING)]


def test_an_error_whose_text_fails_is_named_by_its_kind(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail(monkeypatch, "held_out", _WithoutWordsError())
    found = simulate(tiny(text, **SETTINGS, execution={"client_errors": "drop"}))
    assert found.summary["failed_tests"] == {str(FAILING): "_WithoutWordsError: no message"}


@pytest.mark.parametrize("method", ["train", "held_out"])
def test_what_is_no_exception_is_a_clients_failure_too(
    text: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    _fail(monkeypatch, method, _PanicError("a library's panic"))
    found = simulate(tiny(text, **SETTINGS, execution={"client_errors": "drop"}))
    assert found.summary["failed_tests"] == {str(FAILING): '_PanicError: "a library\'s panic"'}


def test_a_ctrl_c_in_a_clients_data_is_no_clients_failure(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(monkeypatch, "train", KeyboardInterrupt())
    with pytest.raises(InterruptedRunError):
        simulate(tiny(text, **SETTINGS, execution={"client_errors": "drop"}))


@dataclass(frozen=True)
class _Interrupts(ClientStep):
    """A step that raises what Ctrl-C raises."""

    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        raise KeyboardInterrupt


@pytest.mark.parametrize("executor", [{"executor": "serial"}, {"executor": "processes", "workers": 2}])
def test_an_interrupt_in_a_client_step_ends_the_run_as_ctrl_c_does(
    text: Path, executor: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InterruptedRunError, match="after round 0 of 2"):
        simulate(tiny(text, **SETTINGS, client_steps=[_Interrupts()], execution=executor))
    assert "Traceback" not in capfd.readouterr().err


def test_a_panic_while_executors_are_measured_is_left_to_the_round(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = sample_cohort(0, 1, 6, 1)
    monkeypatch.setitem(globals(), "FAILING", first)
    _fail(monkeypatch, "train", _PanicError("a library's panic"))
    found = simulate(tiny(text, **SETTINGS, execution={"executor": "auto", "client_errors": "drop"}))
    assert found.metrics[0]["failed"] == {str(first): '_PanicError: "a library\'s panic"'}
