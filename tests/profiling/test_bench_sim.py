"""Tests `fedtlu bench-sim`: simulators do equal work, rows are complete, and failures are reported."""

import json
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from fedtlu_fast.cli.app import app
from fedtlu_fast.errors import InputError
from fedtlu_fast.profiling import footprint, simulators
from fedtlu_fast.profiling.simulators import Simulator


@pytest.fixture
def rivals(tmp_path):
    """Makes a folder with one rival that is set up (with this Python) and one that is not."""

    def make(code):
        folder = tmp_path / "rivals" / "other"
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
        (folder / "main.py").write_text(textwrap.dedent(code))
        (tmp_path / "rivals" / "absent").mkdir()
        (tmp_path / "rivals" / "absent" / "main.py").write_text("")
        return tmp_path / "rivals"

    return make


def found(*seconds, **over):
    result = {
        "workload": "mlp",
        "version": "1",
        "clients": 4,
        "cohort": 2,
        "round_seconds": [9.0, *seconds],
        "first_round_seconds": 9.5,
        "import_seconds": 1.0,
        "peak_bytes": 5_000_000,
        "loss_before": 2.0,
        "loss_after": 1.0,
    }
    return result | over


@pytest.mark.slow
def test_ours_and_the_plain_loop_do_the_same_work():
    arguments = [
        "bench-sim",
        "--systems",
        "fedtlu:vectorized,plain",
        "--runs",
        "1",
        "--rounds",
        "3",
        "--json",
    ]
    done = CliRunner().invoke(app, [*arguments, "--clients", "40", "--cohort", "40"])
    assert done.exit_code == 0, done.output
    rows = {row["system"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {"fedtlu vectorized", "plain loop"}
    ours, plain = rows["fedtlu vectorized"], rows["plain loop"]
    assert ours["loss_before"] == plain["loss_before"]
    # Every client takes part in every round; only the order of its batches differs.
    assert ours["loss_after"] == pytest.approx(plain["loss_after"], rel=2e-3)
    assert ours["loss_after"] < ours["loss_before"]
    for row in rows.values():
        assert (row["clients"], row["cohort"], row["runs"]) == (40, 40, 1)
        assert row["peak_mb"] > 50
        assert 0 < row["seconds_per_round"] < row["first_round_seconds"]


def test_rows_are_medians_without_the_first_round():
    ours, other = Simulator("fedtlu", "auto", ()), Simulator("plain", "loop", ())
    rows = simulators.rows(
        [(other, found(4.0, 6.0)), (ours, found(1.0, 3.0)), (other, found(5.0, 5.0)), (ours, found(2.0))]
    )
    assert [(row.system, row.seconds_per_round, row.runs) for row in rows] == [
        ("fedtlu auto", 2.0, 2),
        ("plain loop", 5.0, 2),
    ]
    assert [row.times_ours for row in rows] == [1.0, 2.5]
    assert rows[0].peak_mb == 5.0


def test_a_rival_that_fails_is_told_and_left_out(rivals):
    folder = rivals(
        """
        import sys
        if "--modes" in sys.argv:
            print('["fast"]')
        else:
            sys.exit("no fuel")
        """
    )
    known = simulators.simulators(folder)
    (other,) = [own for own in known if own.system == "other"]
    assert {own.system for own in known} == {"fedtlu", "plain", "other"}
    assert list(simulators.measure([other], "mlp", 2, 3)) == [(other, "exit code 1: no fuel")]


def test_a_folder_without_rivals_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"rivals: .*Run their setup.sh first"):
        simulators.simulators(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "fedavg"], "--systems: got 'fedavg'; expected some of fedtlu:auto"),
        (["--systems", "plain:fast"], "--systems: got 'plain:fast'"),
        (["--workloads", "vision"], "--workloads: got 'vision'; expected one of mlp, gpt, cnn, lstm, lora"),
        (["--csv", "/no/such/folder/x.csv"], "--csv: got '/no/such/folder/x.csv'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    done = CliRunner().invoke(app, ["bench-sim", *arguments])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)


CHILD = "import time; held = bytearray(80_000_000); time.sleep(1.5)"


HELD = """
import pathlib, time
held = bytearray(80_000_000)
pathlib.Path("child").touch()
while not pathlib.Path("seen").exists():
    time.sleep(0.01)
"""


def test_memory_of_children_counts_and_shared_pages_count_once(tmp_path, monkeypatch):
    code = f"""
import os, subprocess, sys, pathlib, time
child = subprocess.Popen([sys.executable, "-c", {HELD!r}])
shared = bytearray(100_000_000)
for page in range(0, len(shared), 4096):  # in place: bytes to copy from would count too while they are there
    shared[page] = 1
if os.fork() == 0:
    pathlib.Path("fork").touch()
    while not pathlib.Path("seen").exists():
        time.sleep(0.01)
    os._exit(0)
os.wait()
child.wait()
print("done")
"""
    monkeypatch.chdir(tmp_path)
    family, readings = footprint._family, []

    def looked_at(root):
        found = family(root)
        readings.append((tmp_path / "child").exists() and (tmp_path / "fork").exists())
        if sum(readings) == 3:
            (tmp_path / "seen").touch()
        return found

    monkeypatch.setattr(footprint, "_family", looked_at)
    ended = footprint.run_measured([sys.executable, "-c", code], {}, 60)
    assert (ended.code, ended.out) == (0, "done\n")
    assert 180e6 < ended.peak_bytes < 260e6


def test_a_command_that_does_not_end_is_killed():
    with pytest.raises(TimeoutError, match=r"no end after 0\.5 s"):
        footprint.run_measured([sys.executable, "-c", CHILD], {}, 0.5)
