import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FEDTLU = [sys.executable, "-c", "from fedtlu_fast.cli.main import main; main()"]


def call(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command in its own process, after some redirection of a shell."""
    line = f'exec "$@" {before}'
    return subprocess.run(
        ["bash", "-c", line, "bash", *FEDTLU, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_message() -> None:
    done = call("--help", before=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: standard output could not be written: No space left on device\n"


def test_a_closed_output_is_one_message_before_any_work() -> None:
    done = call("settings", before=">&-")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: standard output: got 'closed'; expected a terminal, a file or a pipe"
    )
    assert done.stderr.count("\n") == 1


def test_a_reader_that_went_away_is_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*FEDTLU, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("before", ["2>&-", "2>/dev/full", "<&-"])
def test_standard_error_and_input_decide_nothing(before: str) -> None:
    assert call("--help", before=before).stdout.startswith("Usage: ")
    assert call("settings", "--preset", "nope", before=before).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_command_that_a_signal_ends_exits_with_it(number: signal.Signals, tmp_path: Path) -> None:
    fifo = tmp_path / "settings.yaml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*FEDTLU, "data", "--config", str(fifo)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    # Opened for writing as soon as the command reads its settings; then it waits.
    with fifo.open("w"):
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (stdout, stderr) == ("", "")


@pytest.mark.parametrize(
    "moment",
    [
        "Press = type('Press', (), {'find_spec': lambda *_: press() if 'typer' in _ else None})\n"
        "sys.meta_path.insert(0, Press())",
        "atexit.register(press)",
    ],
    ids=["while modules load", "when all is done"],
)
def test_ctrl_c_outside_of_the_work_is_silence(moment: str) -> None:
    code = (
        "import atexit, os, signal, sys\n"
        "def press(): os.kill(os.getpid(), signal.SIGINT)\n"
        f"{moment}\n"
        "from fedtlu_fast.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    code = (
        "import os, signal; from fedtlu_fast.stopping import signals_interrupt\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with signals_interrupt(): os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n"
