import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from support.federations import left, rows, snapshot, timeless, tiny, tree, write_text
from support.sampling import sample, sampled, seed

from fedtlu_fast import Callback, InputError, RunConfig, SaveBest, StorageError, simulate
from fedtlu_fast.build.run import open_run
from fedtlu_fast.errors import InterruptedRunError
from fedtlu_fast.runs import directory as directory_module
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.reading import damage, trusted_rows
from fedtlu_fast.simulation import run as run_module
from fedtlu_fast.simulation import state as state_module
from fedtlu_fast.simulation.run_context import RunContext


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it and tidy up."""


@pytest.fixture(scope="module")
def config(text: Path) -> RunConfig:
    return tiny(text)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run leaves when nothing happens to it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    simulate(config, out)
    return left(out)


def begun(config: RunConfig, out: Path, rounds: int) -> Path:
    """A run that was killed right after a round, without the checkpoint that a normal stop would write."""

    def kill(row: dict[str, Any]) -> None:
        if row["round"] == rounds:
            raise Killed

    with pytest.raises(Killed):
        simulate(config, out, callbacks=[kill])
    return out


def newest(out: Path) -> Path:
    return max((out / "checkpoints").glob("round-*"))


def strike_at(monkeypatch: pytest.MonkeyPatch, moment: int, blow: type[BaseException]) -> Callable[[], int]:
    """Raises `blow` at the n-th step of any kind that changes the disk; returns a count of the steps."""
    steps = 0

    def guarded(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == moment:
                raise blow
            return inner(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", guarded(os.fsync))
    for name in ("rename", "replace", "mkdir", "write_text"):
        monkeypatch.setattr(Path, name, guarded(getattr(Path, name)))
    monkeypatch.setattr(state_module, "save_file", guarded(state_module.save_file))
    monkeypatch.setattr(RunDirectory, "append", guarded(RunDirectory.append))
    monkeypatch.setattr(shutil, "rmtree", guarded(shutil.rmtree))
    return lambda: steps


def steps_of(config: RunConfig, out: Path, resume: bool = False) -> int:
    with pytest.MonkeyPatch.context() as patch:
        count = strike_at(patch, -1, Killed)
        simulate(config, out, resume=resume)
        return count()


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5])
def test_run_killed_after_any_round_goes_on_to_the_same_bits(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, rounds: int
) -> None:
    out = begun(config, tmp_path / "out", rounds)
    simulate(config, out, resume=True)
    assert left(out) == whole


@pytest.mark.parametrize("count", sampled(5))
@pytest.mark.parametrize("blow", [Killed, KeyboardInterrupt])
def test_run_stopped_at_any_step_of_any_write_goes_on_to_the_same_bits(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, blow: type[BaseException], count: int
) -> None:
    moments = steps_of(config, tmp_path / "count")
    assert moments > 40
    for moment in sample(range(1, moments + 1), count):
        out = tmp_path / f"at-{moment}"
        with pytest.MonkeyPatch.context() as patch:
            strike_at(patch, moment, blow)
            with pytest.raises((blow, InterruptedRunError)):
                simulate(config, out)
        # Before its settings are written it cannot be resumed, but the same command works again.
        simulate(config, out, resume=(out / "config.yaml").exists())
        assert left(out) == whole, f"stopped at step {moment}"
        assert not list((out / "checkpoints").glob(".writing*"))


class Rises(Callback):
    """Logs a figure that is better in every round."""

    def on_evaluate(self, run: RunContext) -> None:
        run.log(rises=float(run.round))


@pytest.mark.parametrize("count", sampled(5))
def test_the_best_model_survives_a_kill_at_any_step_of_any_write(
    text: Path, tmp_path: Path, count: int
) -> None:
    config = tiny(text, rounds=4, checkpoint={"every": 1, "retain": 1})
    callbacks = [Rises(), SaveBest("rises", better="higher")]
    simulate(config, tmp_path / "whole", callbacks=callbacks)
    with pytest.MonkeyPatch.context() as patch:
        steps = strike_at(patch, -1, Killed)
        simulate(config, tmp_path / "count", callbacks=callbacks)
        moments = steps()
    for moment in sample(range(1, moments + 1), count):
        out = tmp_path / f"at-{moment}"
        with pytest.MonkeyPatch.context() as patch:
            strike_at(patch, moment, Killed)
            with pytest.raises(Killed):
                simulate(config, out, callbacks=callbacks)
        found = simulate(config, out, resume=(out / "config.yaml").exists(), callbacks=callbacks)
        assert left(out) == left(tmp_path / "whole"), f"killed at step {moment}"
        assert found.best is not None
        assert torch.equal(found.best.params, found.params)
        assert (out / "checkpoints" / "best-000004" / "model.safetensors").exists()


@pytest.mark.parametrize("count", sampled(5))
def test_resume_may_itself_be_killed_at_any_step(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, count: int
) -> None:
    start = begun(config, tmp_path / "start", 3)
    moments = steps_of(config, shutil.copytree(start, tmp_path / "count"), resume=True)
    assert moments > 20
    for moment in sample(range(1, moments + 1), count):
        out = shutil.copytree(start, tmp_path / f"at-{moment}")
        with pytest.MonkeyPatch.context() as patch:
            strike_at(patch, moment, Killed)
            with pytest.raises(Killed):
                simulate(config, out, resume=True)
        simulate(config, out, resume=True)
        assert left(out) == whole, f"killed at step {moment}"


ZYGOTE = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch, transformers.models.gpt2.modeling_gpt2
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.api import simulate

torch.set_num_threads(1)
config, out = parse_config(json.loads(sys.argv[1])), Path(sys.argv[2])
draws, kills = random.Random(int(sys.argv[3])), 0
while not (out / "summary.json").exists():
    child = os.fork()
    if child == 0:
        simulate(config, out, resume=(out / "config.yaml").exists())
        os._exit(0)
    # Later and later, so that the run gets somewhere between the kills.
    time.sleep(draws.uniform(0.05, 0.15 + 0.1 * kills))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
print(kills)
"""


@pytest.mark.parametrize("rounds", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_process_killed_again_and_again_ends_with_the_same_bits(
    text: Path, tmp_path: Path, rounds: int
) -> None:
    settings = tree(text, rounds=rounds, checkpoint={"every": 3, "retain": 2})
    simulate(settings, tmp_path / "whole")
    arguments = [json.dumps(settings), str(tmp_path / "out"), str(seed())]
    done = subprocess.run(
        [sys.executable, "-c", ZYGOTE, *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= rounds // 20, "the run was hardly ever killed"
    assert left(tmp_path / "out") == left(tmp_path / "whole")


def fedtlu(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("fedtlu")), *arguments]


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which does not outlive the test."""
    command = fedtlu(*arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_rounds(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while (
        len((out / "metrics.jsonl").read_bytes().splitlines() if (out / "metrics.jsonl").exists() else ())
        < count
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no rounds"
        time.sleep(0.005)


@pytest.mark.slow
def test_command_killed_by_sigkill_and_resumed_gives_the_same_bits(text: Path, tmp_path: Path) -> None:
    settings = tree(text, rounds=120, checkpoint={"every": 7, "retain": 2})
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    simulate(settings, tmp_path / "whole")
    out = tmp_path / "out"
    with running("run", "--config", str(file), "--out", str(out)) as process:
        wait_for_rounds(out, 11, process)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    done = subprocess.run(
        fedtlu("run", "--resume", str(out), "--json"), capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout) == json.loads((out / "summary.json").read_text())
    assert left(out) == left(tmp_path / "whole")


@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_asked_to_stop_it_ends_the_round_and_says_how_to_resume(
    text: Path, tmp_path: Path, asked: signal.Signals, executor: str
) -> None:
    settings = tree(text, rounds=100_000, checkpoint={"every": 50_000}, execution={"executor": executor})
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(settings))
    out = tmp_path / "a run"
    with running("run", "--config", str(file), "--out", str(out)) as process:
        wait_for_rounds(out, 5, process)
        process.send_signal(asked)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + asked
    assert stdout == ""
    assert f"{asked.name}: ending after this round" in stderr
    assert "Traceback" not in stderr
    done = len(rows(out / "metrics.jsonl"))
    assert f"after round {done} of 100000" in stderr
    assert f"fedtlu run --resume '{out}'" in stderr
    resumed, fresh = open_run(tiny(text, **settings), out, resume=True), open_run(tiny(text, **settings))
    assert resumed.state.round == done
    for run in (resumed, fresh):
        run.advance(done + 3)
        run.close()
    assert torch.equal(resumed.state.params, fresh.state.params)
    assert timeless(resumed.metrics) == timeless(fresh.metrics)


def test_interrupt_saves_the_round_that_is_done(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def press(row: dict[str, Any]) -> None:
        if row["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(
        InterruptedRunError,
        match=r"after round 3 of 5; you can resume it with: simulate\(config, .*, resume=True\)",
    ):
        simulate(config, out, callbacks=[press])
    assert newest(out).name == "round-000003"
    simulate(config, out, resume=True)
    assert left(out) == whole


def test_interrupt_in_the_middle_of_a_round_costs_that_round_only(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, append = tmp_path / "out", RunDirectory.append

    def press(self: RunDirectory, log: str, row: dict[str, Any]) -> None:
        # selection.jsonl has the line of round 3 by now, metrics.jsonl has not
        if log == "metrics.jsonl" and row["round"] == 3:
            raise KeyboardInterrupt
        append(self, log, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append", press)
        with pytest.raises(InterruptedRunError, match="after round 2"):
            simulate(config, out)
    simulate(config, out, resume=True)
    assert left(out) == whole


def test_interrupt_without_a_directory_says_that_nothing_was_written(config: RunConfig) -> None:
    def press(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="nothing was written"):
        simulate(config, callbacks=[press])


def test_interrupt_in_the_last_tests_can_be_resumed(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "run_summary", press)
        with pytest.raises(InterruptedRunError, match="after round 5 of 5"):
            simulate(config, tmp_path / "out")
    simulate(config, tmp_path / "out", resume=True)
    assert left(tmp_path / "out") == whole


def test_finished_run_resumed_gives_the_same_summary_and_trains_nothing(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    first = simulate(config, tmp_path / "out")
    seen: list[dict[str, Any]] = []
    again = simulate(config, tmp_path / "out", resume=True, callbacks=[seen.append])
    assert seen == []
    assert again.summary == first.summary, "even the seconds are those of the run"
    assert again.metrics == first.metrics
    assert torch.equal(again.params, first.params)
    assert left(tmp_path / "out") == whole


@pytest.mark.parametrize("log", ["metrics.jsonl", "selection.jsonl", "timings.jsonl"])
@pytest.mark.parametrize("cut", [1, 9])
def test_last_line_cut_short_is_dropped(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, log: str, cut: int
) -> None:
    out = begun(config, tmp_path / "out", 3)
    file = out / log
    file.write_bytes(file.read_bytes()[:-cut])
    simulate(config, out, resume=True)
    assert left(out) == whole


def test_a_changed_digit_in_early_timings_costs_that_line_and_nothing_else(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = begun(config, tmp_path / "out", 3)
    file = out / "timings.jsonl"
    first, *others = file.read_bytes().splitlines(keepends=True)
    digit = first[first.index(b".") - 1 :][:1]
    file.write_bytes(b"".join([first.replace(digit, bytes([digit[0] ^ 1])), *others]))
    simulate(config, out, resume=True)
    assert left(out) == whole
    assert caplog.text.count("lost of these rounds: 1;") == caplog.text.count("\n") == 1
    assert file.read_bytes().splitlines(keepends=True)[1] == others[0]
    found = RunDirectory(out).timings(5)
    assert [len(row) > 1 for row in found] == [False, True, True, True, True]
    assert caplog.text.count("\n") == 1, "what is lost is marked, and is not said again"
    assert damage(RunDirectory(out)) is None
    file.unlink()
    assert len(trusted_rows(RunDirectory(out))["metrics.jsonl"]) == 5


@pytest.mark.parametrize("tail", [b"\0" * 400, b"\xff\xfe{", b"null\n", b'{"round": "x"}\n', b"[" * 100_000])
def test_garbage_after_the_last_line_is_dropped(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, tail: bytes
) -> None:
    out = begun(config, tmp_path / "out", 3)
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    simulate(config, out, resume=True)
    assert left(out) == whole


def test_log_that_lost_early_lines_is_refused_and_nothing_changes(config: RunConfig, tmp_path: Path) -> None:
    out = begun(config, tmp_path / "out", 5)
    lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (out / "metrics.jsonl").write_bytes(b"".join(lines[:1] + lines[2:]))
    before = snapshot(out)
    with pytest.raises(
        InputError, match=r"damaged: round-000004 \(metrics\.jsonl was changed in its first 4 lines\)"
    ):
        simulate(config, out, resume=True)
    assert snapshot(out) == before


def _flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def _renamed_round(folder: Path) -> None:
    facts = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**facts, "round": facts["round"] + 1}))


def _other_shapes(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor[:1].clone() for name, tensor in tensors.items()}, folder / "model.safetensors")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights cut short": lambda folder: os.truncate(folder / "model.safetensors", 900),
    "weights empty": lambda folder: os.truncate(folder / "model.safetensors", 0),
    "weights missing": lambda folder: (folder / "model.safetensors").unlink(),
    "weights of other shapes": _other_shapes,
    "a flipped bit at the end": lambda folder: _flip(folder / "model.safetensors", -1),
    "a flipped bit in the header": lambda folder: _flip(folder / "model.safetensors", 12),
    "header bomb": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 8 + b"{" * 64),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "another round": _renamed_round,
    "settings garbled": lambda folder: _flip(folder / "state.json", -80),
}
for content in (b"", b"null", b"[1]", b"{}", b'{"round": 1e999}', b"\xff\xfe", b"[" * 100_000, b"1" * 6000):
    DAMAGE[f"state is {content[:12]!r}"] = lambda folder, content=content: (
        folder / "state.json"
    ).write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    out = begun(config, tmp_path / "out", 5)
    assert newest(out).name == "round-000004"
    damage(newest(out))
    run = open_run(config, out, resume=True)
    assert run.state.round == 2
    run.advance(5)
    run.finish()
    assert left(out) == whole
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["round-000004", "round-000005"]


def test_damaged_checkpoint_ahead_does_not_push_a_whole_one_out(config: RunConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"retain": 1})})
    out = begun(config, tmp_path / "out", 3)
    shutil.copytree(newest(out), out / "checkpoints" / "round-000004")  # says round 2: damaged

    def press(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="after round 3"):
        simulate(config, out, resume=True, callbacks=[press])
    assert open_run(config, out, resume=True).state.round == 3


def test_all_checkpoints_damaged_is_one_clear_error_and_nothing_changes(
    config: RunConfig, tmp_path: Path
) -> None:
    out = begun(config, tmp_path / "out", 5)
    for folder in (out / "checkpoints").iterdir():
        (folder / "state.json").unlink()
    before = snapshot(out)
    with pytest.raises(InputError, match=r"damaged: round-000004 \(state\.json.*\), round-000002 \(state"):
        simulate(config, out, resume=True)
    assert snapshot(out) == before


def test_leftovers_of_killed_writes_are_no_checkpoints_and_go_away(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = begun(config, tmp_path / "out", 3)
    for name in (".writing-000003", "round-000099.bak", "round-x"):
        shutil.copytree(newest(out), out / "checkpoints" / name)
    simulate(config, out, resume=True)
    assert left(out) == whole
    assert not (out / "checkpoints" / ".writing-000003").exists()
    assert (out / "checkpoints" / "round-000099.bak").exists(), "not ours to remove"


@pytest.mark.parametrize(
    "changed",
    [{"training": {"lr": 0.25}}, {"model": {"layers": 4}}, {"model": {"width": 16}}, {"seed": 1}],
    ids=str,
)
def test_changed_settings_are_refused_and_nothing_changes(
    config: RunConfig, text: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    out = begun(config, tmp_path / "out", 3)
    before = snapshot(out)
    with pytest.raises(InputError, match=r"settings \(config\.yaml\).*changed since.*Put them back"):
        simulate(tiny(text, **changed), out, resume=True)
    assert snapshot(out) == before


def test_changed_data_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    config = tiny(text)
    out = begun(config, tmp_path / "out", 3)
    write_text(text, seed=8)
    before = snapshot(out)
    with pytest.raises(InputError, match=r"this run's data; they have changed since"):
        simulate(config, out, resume=True)
    assert snapshot(out) == before


def test_directory_that_another_process_writes_to_is_refused(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = begun(config, tmp_path / "out", 3)
    lock = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", lock, str(out / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    before = snapshot(out)
    with pytest.raises(InputError, match=r"another run.*is writing"):
        simulate(config, out, resume=True)
    assert snapshot(out) == before
    holder.kill()
    holder.communicate()
    simulate(config, out, resume=True)
    assert left(out) == whole


@pytest.mark.parametrize("log", ["metrics.jsonl", "selection.jsonl", "timings.jsonl"])
def test_disk_full_at_a_log_is_one_error_and_resumable(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, log: str
) -> None:
    out = tmp_path / "out"

    def fill(row: dict[str, Any]) -> None:
        if row["round"] == 3:
            patch.setattr(directory_module, "append_to_file", full)

    def full(path: Path, data: bytes) -> None:
        if path.name == log:
            append(path, data[: len(data) // 2])
            _no_space()
        append(path, data)

    append = directory_module.append_to_file
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(StorageError, match=rf"{log} could not be written: No space.*make room.*resume=True"),
    ):
        simulate(config, out, callbacks=[fill])
    simulate(config, out, resume=True)
    assert left(out) == whole


def _no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_space_in_rust(*_: Any, **__: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (state_module, "save_file", _no_space_in_rust),
        (state_module, "save_file", _no_space),
        (state_module, "sync_file", _no_space),
        (directory_module.os, "fsync", _no_space),
        (RunDirectory, "sync", _no_space),
    ],
)
def test_disk_full_at_a_checkpoint_leaves_the_one_before(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, where: Any, name: str, fault: Any
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:

        def fill(row: dict[str, Any]) -> None:
            if row["round"] == 3:
                patch.setattr(where, name, fault)

        with pytest.raises(OSError, match="No space left"):
            simulate(config, out, callbacks=[fill])
    assert newest(out).name == "round-000002"
    assert not list((out / "checkpoints").glob(".*"))
    simulate(config, out, resume=True)
    assert left(out) == whole


def test_disk_full_at_the_summary_is_resumable(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with closing(open_run(config, out)) as run:
        run.advance(5)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _no_space)
            with pytest.raises(StorageError, match=r"SHA256SUMS could not be written"):
                run.finish()
    assert not list(out.glob("*summary*")), "neither half a summary nor its temporary file"
    simulate(config, out, resume=True)
    assert left(out) == whole


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 12 kB: the checkpoint's weights do not fit, everything before it does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_288, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_file_system_that_refuses_the_weights_is_one_storage_error(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StorageError, match="round-000002 could not be written"):
        simulate(config, out)
    assert not list((out / "checkpoints").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    simulate(config, out, resume=True)
    assert left(out) == whole


@pytest.mark.parametrize("file", ["config.yaml", "notes.txt", ".hidden"])
def test_directory_that_holds_something_is_refused_and_kept(
    config: RunConfig, tmp_path: Path, file: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / file).write_text("mine")
    with pytest.raises(InputError, match=r"holds (another run|other files)"):
        simulate(config, out)
    assert snapshot(tmp_path) == {f"out/{file}": b"mine"}


def test_resume_without_a_run_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="out: got"):
        simulate(config, tmp_path / "nowhere", resume=True)
    with pytest.raises(InputError, match="resume"):
        simulate(config, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_also_written_by_the_clock(text: Path, tmp_path: Path) -> None:
    never = {"every": 100, "retain": 9}
    for name, minutes in (("seldom", None), ("often", 1e-9)):
        simulate(tiny(text, checkpoint={**never, "minutes": minutes}), tmp_path / name)
    seldom, often = (
        [path.name for path in sorted((tmp_path / name / "checkpoints").iterdir())]
        for name in ("seldom", "often")
    )
    assert seldom == ["round-000005"]
    assert often == [f"round-{index:06d}" for index in range(1, 6)]


def test_how_often_it_is_saved_may_change_when_a_run_goes_on(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with closing(open_run(tiny(text), out)) as run:
        run.advance(3)
    simulate(tiny(text, checkpoint={"every": 1, "retain": 1}), out, resume=True)
    whole = simulate(tiny(text))
    assert json.loads((out / "summary.json").read_text())["params_sha256"] == whole.summary["params_sha256"]
