"""Callbacks see every moment of a run, act on it, and a killed run goes on to the same bits with them."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.federations import left, rows, tiny

from fedtlu_fast import Callback, EarlyStopping, InputError, RunConfig, SaveBest, simulate
from fedtlu_fast.build.run import open_run
from fedtlu_fast.build.stored import read_stored
from fedtlu_fast.data.population import ArrayPopulation, Samples
from fedtlu_fast.simulation.run_context import RunContext


class Killed(BaseException):
    """Stands for the end of the process."""


class Recorder(Callback):
    """Writes down every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.clients: list[Any] = []

    def on_start(self, run: RunContext) -> None:
        self.calls.append(("start", run.round))

    def on_round_start(self, run: RunContext) -> None:
        assert run.row is None
        assert len(run.rows) == run.round - 1
        self.calls.append(("round_start", run.round))

    def on_client_end(self, run: RunContext) -> None:
        assert run.client is not None
        self.clients.append((run.round, run.client))

    def on_evaluate(self, run: RunContext) -> None:
        assert run.this_row["test_loss"] > 0
        self.calls.append(("evaluate", run.round))

    def on_round_end(self, run: RunContext) -> None:
        assert run.client is None
        assert run.choice is not None
        assert run.this_row["round"] == run.choice["round"] == run.round
        self.calls.append(("round_end", run.round))

    def on_checkpoint(self, run: RunContext) -> None:
        self.calls.append(("checkpoint", run.round))

    def on_end(self, run: RunContext) -> None:
        assert run.result is not None
        assert run.result.summary["rounds"] == run.round
        self.calls.append(("end", run.round))

    def on_close(self, run: RunContext) -> None:
        self.calls.append(("close", run.round))


class Halve(Callback):
    """Halves the server's learning rate and changes keep: what it does follows from the round alone."""

    def on_round_end(self, run: RunContext) -> None:
        run.set_server_lr(run.server_lr / 2)
        if run.round == 3:
            run.set_keep(2)
        run.log(lr_of_next=run.server_lr)


class Kill(Callback):
    """Ends the process before a round."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_round_start(self, run: RunContext) -> None:
        if run.round == self.at:
            raise Killed


def stopping(at: int) -> Callback:
    """Stops the run in a round."""

    class Stop(Callback):
        def on_round_end(self, run: RunContext) -> None:
            if run.round == at:
                run.stop("enough")

    return Stop()


@pytest.fixture(scope="module")
def config(text: Path) -> RunConfig:
    return tiny(text)


def test_hooks_are_called_in_order(text: Path, tmp_path: Path) -> None:
    seen = Recorder()
    simulate(tiny(text, rounds=3, evaluation={"every": 2}), tmp_path / "out", callbacks=[seen])
    assert seen.calls == [
        ("start", 0),
        ("round_start", 1),
        ("round_end", 1),
        ("round_start", 2),
        ("evaluate", 2),
        ("round_end", 2),
        ("checkpoint", 2),
        ("round_start", 3),
        ("round_end", 3),
        ("checkpoint", 3),
        ("end", 3),
        ("close", 3),
    ], "the test of the last round, which was not due, is no evaluation"
    cohorts = [(row["round"], row["cohort"]) for row in rows(tmp_path / "out" / "selection.jsonl")]
    assert [(index, one.client) for index, one in seen.clients] == [(i, c) for i, own in cohorts for c in own]
    assert all(one.accepted and one.samples > 0 and one.loss > 0 for _, one in seen.clients)


def test_clients_that_failed_are_told_with_the_reason(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Recorder()
    config = tiny(text, rounds=1, execution={"client_errors": "drop"})
    train = ArrayPopulation.train
    with closing(open_run(config, callbacks=[seen])) as run:
        first = run.server.participation.draw(1, {}).cohort[0]

        def broken(self: ArrayPopulation, client: int) -> Samples:
            if client == first:
                raise ValueError("no such file")
            return train(self, client)

        monkeypatch.setattr(ArrayPopulation, "train", broken)
        run.advance(1)
    failed = [one for _, one in seen.clients if one.failed]
    assert [(one.client, one.samples, one.loss, one.accepted) for one in failed] == [(first, 0, None, False)]
    assert "no such file" in str(failed[0].failed)
    assert len(seen.clients) == config.cohort


def test_a_resumed_run_says_where_it_stands(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[Kill(4)])
    seen = Recorder()
    simulate(config, tmp_path / "out", resume=True, callbacks=[seen])
    assert seen.calls[:2] == [("start", 2), ("round_start", 3)]


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_callback_that_changes_the_run_is_exact_under_kill_and_resume(
    config: RunConfig, tmp_path: Path, at: int
) -> None:
    plain = simulate(config)
    whole = simulate(config, tmp_path / "whole", callbacks=[Halve()])
    assert whole.summary["params_sha256"] != plain.summary["params_sha256"]
    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[Halve(), Kill(at)])
    simulate(config, tmp_path / "out", resume=True, callbacks=[Halve()])
    assert left(tmp_path / "out") == left(tmp_path / "whole")
    assert [row["lr_of_next"] for row in whole.metrics] == [0.5, 0.25, 0.125, 0.0625, 0.03125]
    grouped = {name for blocks in whole.summary["groups"].values() for name in blocks}
    kept = [len(grouped & set(row["selected"])) for row in whole.metrics]
    assert kept == [3, 3, 1, 2, 2], "two of warm-up, then keep=1, and 2 from round 4 on"


def test_a_changed_server_lr_is_what_the_setting_would_have_been(text: Path) -> None:
    class AtOnce(Callback):
        def on_start(self, run: RunContext) -> None:
            run.set_server_lr(0.3)
            run.set_keep(2)

    acted = simulate(tiny(text), callbacks=[AtOnce()])
    settled = simulate(tiny(text, server_lr=0.3, selection={"keep": 2}))
    assert acted.summary["params_sha256"] == settled.summary["params_sha256"]


def test_a_run_resumed_without_its_callback_says_so_and_keeps_its_changes(
    config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[Halve(), Kill(5)])
    with closing(open_run(config, tmp_path / "out", resume=True)) as run:
        assert run.state.control.server_lr == 1 / 16
        assert run.state.control.keep == 2
        assert "Halve" in caplog.text
        assert "not given again" in caplog.text
    caplog.clear()
    with closing(open_run(config, tmp_path / "out", resume=True, callbacks=[Halve()])):
        assert not caplog.records


def test_a_stopped_run_says_so_and_stays_stopped(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = simulate(config, out, callbacks=[stopping(3)])
    assert first.summary["stopped"] == "enough"
    assert first.summary["rounds"] == len(first.metrics) == 3
    assert "stopped early: enough" in repr(first)
    before = [left(out)[log] for log in ("metrics", "selection")]
    for settings in (config, config.model_copy(update={"rounds": 9})):
        with closing(open_run(settings, out, resume=True)) as run:
            assert run.was_finished
        again = simulate(settings, out, resume=True)
        assert again.summary["stopped"] == "enough"
        assert again.summary["params_sha256"] == first.summary["params_sha256"]
        assert [left(out)[log] for log in ("metrics", "selection")] == before


def test_the_stop_is_part_of_the_checkpoint(config: RunConfig, tmp_path: Path) -> None:
    class Die(Callback):
        def on_checkpoint(self, run: RunContext) -> None:
            if run.stopped:
                raise Killed

    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[stopping(3), Die()])
    assert not (tmp_path / "out" / "summary.json").exists()
    found = simulate(config, tmp_path / "out", resume=True)
    assert (found.summary["stopped"], found.summary["rounds"]) == ("enough", 3)


def test_save_writes_a_checkpoint_of_the_round(config: RunConfig, tmp_path: Path) -> None:
    class Save(Callback):
        def on_round_end(self, run: RunContext) -> None:
            if run.round == 3:
                run.save()

    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[Save(), Kill(4)])
    with closing(open_run(config, tmp_path / "out", resume=True)) as run:
        assert run.state.round == 3


def test_functions_see_what_was_written(config: RunConfig, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []

    def observe(row: dict[str, Any]) -> None:
        seen.append(row)
        assert rows(out / "metrics.jsonl")[-1] == row

    result = simulate(config, out, callbacks=[observe, Halve()])
    assert seen == result.metrics
    assert all("lr_of_next" in row for row in seen)


@pytest.mark.parametrize(
    "hook",
    ["on_start", "on_round_start", "on_client_end", "on_evaluate", "on_round_end", "on_checkpoint", "on_end"],
)
def test_hooks_run_in_the_callers_state(text: Path, tmp_path: Path, hook: str) -> None:
    seen = []
    watching = type("Watching", (Callback,), {hook: lambda self, run: seen.append(torch.is_grad_enabled())})
    with torch.no_grad():
        simulate(tiny(text, rounds=1), tmp_path / "out", callbacks=[watching()])
        assert not torch.is_grad_enabled()
    assert seen
    assert not any(seen)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda run: run.set_server_lr(0.0), "server_lr: got 0.0; expected a finite number above 0"),
        (lambda run: run.set_server_lr(float("inf")), "server_lr"),
        (lambda run: run.set_keep(7), "selection.keep: got 7; expected at most 3"),
        (lambda run: run.set_keep(True), "selection.keep"),
        (lambda run: run.log(test_loss=1.0), "log: got 'test_loss'; expected a name that the row"),
        (lambda run: run.log(mine=torch.ones(())), "a number. Use float"),
        (lambda run: run.log(mine=True), "a number"),
    ],
)
def test_actions_refuse_what_cannot_be(
    config: RunConfig, act: Callable[[RunContext], None], message: str
) -> None:
    acting = type("Acting", (Callback,), {"on_round_end": lambda self, run: act(run)})
    with pytest.raises(InputError, match=message):
        simulate(config, callbacks=[acting()])


def test_a_row_can_be_logged_to_only_when_it_is_there(config: RunConfig) -> None:
    early = type("Early", (Callback,), {"on_round_start": lambda self, run: run.log(mine=1.0)})
    with pytest.raises(InputError, match="a hook that is called when the round has trained"):
        simulate(config, callbacks=[early()])


def test_keep_cannot_be_changed_where_nothing_is_chosen(text: Path) -> None:
    acting = type("Acting", (Callback,), {"on_round_start": lambda self, run: run.set_keep(1)})
    with pytest.raises(InputError, match="a run whose selector chooses blocks"):
        simulate(tiny(text, selection={"selector": "full"}), callbacks=[acting()])


@pytest.mark.parametrize("given", [3, Callback, "print"])
def test_what_is_no_callback_is_refused(config: RunConfig, given: Any) -> None:
    with pytest.raises(InputError, match="objects of subclasses of Callback"):
        simulate(config, callbacks=[given])


# Early stopping and the best model ------------------------------------------------------------------


def patient(text: Path, **over: Any) -> RunConfig:
    """A run whose steps are far too large, so that its loss does not fall."""
    return tiny(text, rounds=12, warmup_rounds=1, server_lr=30.0, **over)


def losses(result: Any) -> list[float]:
    return [row["test_loss"] for row in result.metrics]


def test_patience_ends_the_run_after_so_many_tests_without_a_lower_loss(text: Path, tmp_path: Path) -> None:
    free = losses(simulate(patient(text)))
    best, waited, end = float("inf"), 0, 0
    for index, loss in enumerate(free[1:], start=2):
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == 3:
            end = index
            break
    assert 4 < end < 12, "else this test shows nothing"
    found = simulate(patient(text, evaluation={"patience": 3}), tmp_path / "out")
    assert losses(found) == free[:end]
    assert found.summary["stopped"].startswith("test_loss has not improved in 3 tests; the best, ")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["stopped"] == found.summary["stopped"]


@pytest.mark.parametrize("at", [3, 4, 5])
def test_patience_is_exact_under_kill_and_resume(text: Path, tmp_path: Path, at: int) -> None:
    config = patient(text, evaluation={"patience": 3}, checkpoint={"every": 2, "best": True})
    whole = simulate(config, tmp_path / "whole")
    assert whole.summary["stopped"]
    assert len(whole.metrics) >= at
    with pytest.raises(Killed):
        simulate(config, tmp_path / "out", callbacks=[Kill(at)])
    again = simulate(config, tmp_path / "out", resume=True)
    assert left(tmp_path / "out") == left(tmp_path / "whole")
    assert again.best is not None
    assert whole.best is not None
    assert torch.equal(again.best.params, whole.best.params)


def test_early_stopping_watches_what_it_is_told(text: Path) -> None:
    class Log(Callback):
        def on_evaluate(self, run: RunContext) -> None:
            run.log(falls=-float(run.round), rises=float(run.round))

    def rounds(stop: EarlyStopping) -> int:
        return len(simulate(tiny(text), callbacks=[Log(), stop]).metrics)

    assert rounds(EarlyStopping("rises", patience=1, better="higher")) == 5
    assert rounds(EarlyStopping("falls", patience=1, better="lower")) == 5
    assert rounds(EarlyStopping("falls", patience=1, better="higher")) == 4, "3 is the first that counts"
    assert rounds(EarlyStopping("rises", patience=1, min_delta=1.5, better="higher")) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(patience=0), "patience: got 0"),
        (lambda: EarlyStopping(min_delta=-1.0), "min_delta: got -1.0"),
        (lambda: EarlyStopping("test_los"), "metric: got 'test_los'. Did you mean test_loss?"),
        (lambda: SaveBest("rises"), "say better='lower' or better='higher'"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    config: RunConfig, make: Callable[[], Callback], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        simulate(config, callbacks=[make()])


def test_two_best_models_are_refused(text: Path) -> None:
    with pytest.raises(InputError, match="at most one"):
        simulate(tiny(text, checkpoint={"best": True}), callbacks=[SaveBest("test_perplexity")])


def test_the_best_model_is_kept(text: Path, tmp_path: Path) -> None:
    config = patient(text, checkpoint={"best": True, "retain": 1})
    found = simulate(config, tmp_path / "out")
    values = losses(found)
    index = values.index(min(values)) + 1
    assert index < 11, "else this test shows nothing"
    assert found.best is not None
    assert (found.best.round, found.best.value, found.best.metric) == (index, min(values), "test_loss")
    assert found.summary["best"] == {"round": index, "metric": "test_loss", "value": min(values)}
    shorter = simulate(config.model_copy(update={"rounds": index}))
    assert torch.equal(found.best.params, shorter.params), "the model after that round"
    assert not torch.equal(found.best.params, found.params)
    folder = tmp_path / "out" / "checkpoints"
    assert [path.name for path in folder.glob("best-*")] == [f"best-{index:06d}"]
    tensors = load_file(folder / f"best-{index:06d}" / "model.safetensors")
    for name, view in found.layout.views(found.best.params).items():
        assert torch.equal(tensors[name], view)
    assert f"best: test_loss {min(values):.4g}, after round {index}" in repr(found)
    again = simulate(config, tmp_path / "out", resume=True)
    assert again.best is not None
    assert torch.equal(again.best.params, found.best.params)


def test_without_the_setting_no_best_model_is_kept(config: RunConfig, tmp_path: Path) -> None:
    found = simulate(config, tmp_path / "out")
    assert found.best is None
    assert found.summary["best"] is None
    assert not list((tmp_path / "out" / "checkpoints").glob("best-*"))


def test_a_checkpoint_whose_best_model_is_damaged_is_passed_over(
    text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Rise(Callback):
        def on_evaluate(self, run: RunContext) -> None:
            run.log(mine=float(run.round))

    callbacks = [Rise(), SaveBest("mine", better="higher")]
    config, out = tiny(text, checkpoint={"every": 1, "retain": 3}), tmp_path / "out"
    whole = simulate(config, out, callbacks=callbacks)
    folder = out / "checkpoints"
    assert sorted(path.name for path in folder.glob("best-*")) == [f"best-00000{i}" for i in (3, 4, 5)]
    file = folder / "best-000005" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    again = simulate(config, out, resume=True, callbacks=callbacks)
    assert "damaged: round-000005 (best-000005/model.safetensors was changed)" in caplog.text
    assert again.best is not None
    assert whole.best is not None
    assert again.best.round == 5
    assert torch.equal(again.best.params, whole.best.params)


# Longer runs ----------------------------------------------------------------------------------------


def test_a_run_of_3_rounds_made_5_has_the_bits_of_5(text: Path, tmp_path: Path) -> None:
    whole = simulate(tiny(text, checkpoint={"best": True}), tmp_path / "whole")
    simulate(tiny(text, rounds=3, checkpoint={"best": True}), tmp_path / "out")
    longer = simulate(tiny(text, checkpoint={"best": True}), tmp_path / "out", resume=True)
    assert torch.equal(longer.params, whole.params)
    assert left(tmp_path / "out") == left(tmp_path / "whole")
    assert read_stored(tmp_path / "out").rounds == 5
    assert simulate(tiny(text), tmp_path / "out", resume=True).summary == longer.summary


def test_a_run_killed_while_it_is_made_longer_goes_on(text: Path, tmp_path: Path) -> None:
    simulate(tiny(text), tmp_path / "whole")
    simulate(tiny(text, rounds=3), tmp_path / "out")
    with pytest.raises(Killed):
        simulate(tiny(text), tmp_path / "out", resume=True, callbacks=[Kill(5)])
    assert not (tmp_path / "out" / "summary.json").exists(), "it is not finished any more"
    config = read_stored(tmp_path / "out")
    assert config.rounds == 5
    simulate(config, tmp_path / "out", resume=True)
    assert left(tmp_path / "out") == left(tmp_path / "whole")


def test_fewer_rounds_than_are_done_are_refused(text: Path, tmp_path: Path) -> None:
    simulate(tiny(text), tmp_path / "out")
    before = left(tmp_path / "out")
    with pytest.raises(InputError, match="rounds: got 3; expected 5 or more: so many are done"):
        simulate(tiny(text, rounds=3), tmp_path / "out", resume=True)
    assert left(tmp_path / "out") == before
    assert read_stored(tmp_path / "out").rounds == 5


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("simulation.run", ("report", "experiments", "cli", "matplotlib")),
        ("experiments.compare", ("report", "cli", "matplotlib")),
        (
            "runs.results",
            (
                "simulation.run",
                "simulation.state",
                "simulation.round",
                "experiments",
                "report",
                "cli",
                "matplotlib",
            ),
        ),
        ("report.pages.experiment", ("simulation.run", "simulation.round", "executors", "cli")),
        ("report.callback", ("simulation.run", "simulation.round", "executors", "cli", "matplotlib")),
    ],
)
@pytest.mark.sweep(quick=1)
def test_no_room_imports_one_above_it(room: str, never: tuple[str, ...]) -> None:
    code = f"import sys, fedtlu_fast.{room}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = [name.removeprefix("fedtlu_fast.") for name in done.stdout.split()]
    assert room in loaded
    above = [name for name in loaded if any(name == one or name.startswith(f"{one}.") for one in never)]
    assert above == []


def test_losses_are_warned_of_once(
    text: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING), closing(open_run(tiny(text))) as run:
        warner = run._callbacks.listen("on_round_end")[0]
        context = run._context
        row = {"round": 1, "nonfinite_blocks": ["h.0"], "refused": [], "selected": []}
        context.row = row
        for _ in range(2):
            warner.on_round_end(context)
    assert [record.getMessage()[:18] for record in caplog.records] == ["round 1: left out,"]
