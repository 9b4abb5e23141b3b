import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.federations import tiny

from fedtlu_fast import simulate
from fedtlu_fast.executors import patience
from fedtlu_fast.experiments.arm_pool import ArmPool, StoppedProcessError, signals_later
from fedtlu_fast.experiments.arms import Arm
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.stopping import STOPPING, is_stopped, signals_interrupt

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.parametrize("number", [signal.SIGINT, *STOPPING])
def test_signals_while_processes_are_started_come_afterwards(number: signal.Signals) -> None:
    started = []

    def start() -> None:
        with signals_later():
            os.kill(os.getpid(), number)
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            assert {signal.SIGINT, *STOPPING} <= blocked
            started.append("all")

    with signals_interrupt(), pytest.raises(KeyboardInterrupt) as raised:
        start()
    assert getattr(raised.value, "number", signal.SIGINT) == number
    assert started == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _pause() -> None:
    signal.pause()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is to whoever waits; tests set it."""
    now = [0.0]
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def _stop(process: ForkProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    while not is_stopped(process.pid):
        time.sleep(0.001)


@pytest.fixture
def child() -> Iterator[ForkProcess]:
    process = multiprocessing.get_context("fork").Process(target=_pause)
    yield process
    process.kill()
    process.join()


@linux
def test_a_stopped_process_is_warned_of_once(
    child: ForkProcess, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    pool = ArmPool(ThreadPoolExecutor(1), None)
    child.start()
    _stop(child)
    for step in (0.0, patience.WORTH_A_WORD, 1.0, patience.WORTH_A_WORD):
        clock[0] += step
        pool.watch(patience.WORTH_A_WORD)
    assert caplog.messages == [
        f"process {child.pid} is stopped (SIGSTOP), and its arm waits; it goes on by: kill -CONT {child.pid}"
    ]
    assert child.is_alive()


@linux
def test_a_process_stopped_for_longer_than_the_limit_ends_the_pool(
    child: ForkProcess, clock: list[float]
) -> None:
    others = multiprocessing.get_context("fork").Process(target=_pause)
    others.start()
    pool = ArmPool(ThreadPoolExecutor(1), 5.0)
    child.start()
    _stop(child)
    for _ in range(2):
        pool.watch(5.0)
    clock[0] += 5.1
    with pytest.raises(StoppedProcessError, match=rf"{child.pid} was stopped .*client_seconds=5"):
        pool.watch(5.0)
    child.join()
    assert others.is_alive(), "it was there before the pool"
    others.kill()
    others.join()


@linux
@pytest.mark.slow
def test_a_comparison_with_a_stopped_process_goes_on_in_another(
    text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execution = {"executor": "processes", "workers": 1, "client_seconds": 1.0, "retries": 1}
    config = tiny(text, rounds=40, execution=execution, selection={"selector": "last"})
    stopped: list[str] = []

    def progress(arm: Arm, done: int) -> None:
        if not stopped and 0 < done < 40:
            for process in active_children():
                assert process.pid is not None
                stopped.append(f"process {process.pid} was stopped")
                os.kill(process.pid, signal.SIGSTOP)

    (found,) = compare(config, ("last",), (0,), tmp_path / "out", progress=progress)
    assert any(words in caplog.text for words in stopped)
    peace = simulate(tiny(text, rounds=40, selection={"selector": "last"}))
    assert found.summary["params_sha256"] == peace.summary["params_sha256"]


@linux
@pytest.mark.slow
def test_a_hang_up_of_the_whole_group_prints_our_message_alone(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = tmp_path / "settings.yaml"
    config.write_text(tiny(text, rounds=10_000).to_yaml())
    code = "from fedtlu_fast.cli.main import main; main()"
    options = ["compare", "--config", str(config), "--selectors", "last", "--seeds", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *options, "--out", str(out), "--quiet"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = out / "last-seed0" / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 5):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGHUP)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 129
    assert stderr == f"stopped: you can resume it with: fedtlu compare --resume {out}\n"
    assert list((out / "last-seed0" / "checkpoints").glob("round-*")), "and the arms have saved"
