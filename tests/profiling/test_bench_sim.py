"""Tests `fedtlu bench-sim`: simulators do equal work, rows are complete, and failures are reported."""

import json
import os
import sys
import textwrap

import pytest
import torch
from typer.testing import CliRunner

from fedtlu_fast.cli.app import app
from fedtlu_fast.errors import InputError, InterruptedRunError, StorageError
from fedtlu_fast.profiling import footprint, simulator_rows, simulators
from fedtlu_fast.profiling.federations.workloads import NAMES
from fedtlu_fast.profiling.federations.workloads.choose import workload
from fedtlu_fast.profiling.journal import Journal


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
@pytest.mark.parametrize(("workload", "mode"), [("mlp", "vectorized"), *((name, "auto") for name in NAMES)])
def test_ours_and_the_plain_loop_do_the_same_work(workload, mode):
    # Of few clients with large steps the order of the samples decides: their mean needs more of them.
    clients = {"mlp": "40", "cnn": "12", "lora": "6"}.get(workload, "3")
    arguments = ["bench-sim", "--workloads", workload, "--systems", f"fedtlu:{mode},plain", "--json"]
    size = ["--runs", "1", "--rounds", "3", "--clients", clients, "--cohort", clients]
    done = CliRunner().invoke(app, [*arguments, *size])
    assert done.exit_code == 0, done.output
    rows = {row["system"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {f"fedtlu {mode}", "plain loop"}
    ours, plain = rows[f"fedtlu {mode}"], rows["plain loop"]
    assert ours["loss_before"] == plain["loss_before"]
    # Every client takes part in every round; only the order of its samples differs.
    assert ours["loss_after"] == pytest.approx(plain["loss_after"], rel=2e-3)
    assert ours["loss_after"] < ours["loss_before"]
    fallen = plain["loss_before"] - plain["loss_after"]
    assert fallen > 0.005
    assert ours["loss_after"] == pytest.approx(plain["loss_after"], abs=0.1 * fallen)
    for row in rows.values():
        assert (row["clients"], row["cohort"], row["runs"]) == (int(clients), int(clients), 1)
        assert row["peak_mb"] > 50
        assert row["seconds_per_round"] > 0
        assert row["first_round_seconds"] > 0
        assert 0 < row["share_of_peak"] < 1


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm"])
def test_data_that_are_held_are_those_of_each_client_alone(name):
    work = workload(name, 5, 2, 3)
    alone = [work.draw(work._generator(2 + client)) for client in range(5)]
    work.hold()
    for client in range(5):
        for held, own in zip(work.client(client), alone[client], strict=True):
            assert torch.equal(held, own)
            assert held.is_contiguous()


def test_rows_are_medians_without_the_first_round_beside_plain_and_the_best_rival():
    runs = [
        ("plain", "loop", found(4.0, 6.0)),
        ("fedtlu", "auto", found(1.0, 3.0, peak_bytes=7_000_000)),
        ("slow", "a", found(40.0, first_round_seconds=19.0)),
        ("fast", "b", found(3.0, first_round_seconds=38.0)),
        ("processor", "peak", {"peak_flops": 10.0, "round_flops": 8.0}),
    ]
    results = {("mlp", system, mode, 1): result for system, mode, result in runs}
    results["mlp", "plain", "loop", 2] = found(5.0, 5.0)
    results["mlp", "fedtlu", "auto", 2] = found(2.0, peak_bytes=9_000_000)
    results["gpt", "plain", "loop", 1] = found(5.0, workload="gpt")
    rows = simulator_rows.rows(results)
    assert [(row.workload, row.system, row.seconds_per_round, row.runs) for row in rows] == [
        ("mlp", "fedtlu auto", 2.0, 2),
        ("mlp", "fast b", 3.0, 1),
        ("mlp", "plain loop", 5.0, 2),
        ("mlp", "slow a", 40.0, 1),
        ("gpt", "plain loop", 5.0, 1),
    ]
    ours = rows[0]
    assert (ours.times_ours, ours.times_faster_than_plain, ours.times_faster_than_rivals) == (1.0, 2.5, 1.5)
    assert (ours.first_round_of_rivals, ours.peak_mb, ours.mb_over_plain) == (0.5, 8.0, 3.0)
    assert ours.share_of_peak == 0.4  # 8 FLOP in 2 s of 10 FLOP/s
    alone = rows[-1]
    assert alone.times_faster_than_plain == 1.0
    assert (alone.times_ours, alone.times_faster_than_rivals, alone.share_of_peak) == (None, None, None)


INTERRUPTING = """
    import json, os, pathlib, signal, sys, time
    here = pathlib.Path(__file__).parent
    if "--modes" in sys.argv:
        print('["one", "two"]')
        sys.exit()
    with (here / "started").open("a") as file:
        file.write(sys.argv[sys.argv.index("--mode") + 1] + " ")
    if (here / "started").read_text() == "one two one ":
        (here / "pid").write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGINT)  # what Ctrl-C does
        time.sleep(600)
    print(json.dumps(RESULT))
"""


def test_an_interrupted_measurement_continues_where_it_was(rivals, tmp_path, monkeypatch):
    peak = ("sh", "-c", """echo '{"peak_flops": 1e9, "round_flops": 1e9}'""")
    monkeypatch.setattr(simulators, "CEILING", simulators.Simulator("processor", "peak", peak))
    folder = rivals(INTERRUPTING.replace("RESULT", repr(found(3.0))))
    csv, journal, started = (tmp_path / name for name in ("s.csv", "s.csv.jsonl", "rivals/other/started"))
    options = [
        "--systems",
        "other",
        "--rivals",
        str(folder),
        "--csv",
        str(csv),
        "--rounds",
        "2",
        "--runs",
        "2",
    ]

    def bench(*more):
        return CliRunner().invoke(app, ["bench-sim", *options, *more])

    stopped = bench()
    with pytest.raises(ProcessLookupError):  # the run that was interrupted was killed
        os.kill(int((folder / "other" / "pid").read_text()), 0)
    assert isinstance(stopped.exception, InterruptedRunError)
    assert str(stopped.exception) == "4 runs ended; --resume continues"
    assert "mlp, run 1 of 2, other two: 3 s a round, the first 9.50 s" in stopped.stderr
    assert csv.read_text().count("mlp,other") == 2
    journal.write_bytes(journal.read_bytes() + b'{"workload": "ml')  # as a kill within a write leaves it

    for more, message in (
        ((), "got 'results of 4 runs'; expected no file. Continue with --resume"),
        (("--resume", "--cohort", "5"), "got 'cohort (usual there, 5 here)'; expected results of the same"),
    ):
        refused = bench(*more)
        assert isinstance(refused.exception, InputError)
        assert message in str(refused.exception)

    done = bench("--resume", "--json")
    rows = json.loads(done.stdout)
    assert started.read_text() == "one two one one two "
    assert [(row["system"], row["runs"]) for row in rows] == [("other one", 2), ("other two", 2)]
    assert len(journal.read_text().splitlines()) == 1 + 6  # what is measured, and two peaks
    bench("--resume")
    assert started.read_text() == "one two one one two "


def test_a_file_that_is_no_journal_is_kept(tmp_path):
    for content in (b"mine", b'{"kind": "mine"}\n'):
        (tmp_path / "mine").write_bytes(content)
        with pytest.raises(InputError, match="another file"):
            Journal(tmp_path / "mine", {"a": "1"}, resume=True)
        assert (tmp_path / "mine").read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"workload": "mlp", "system": "plain", "mode": "loop", "run": 1}',
        b'{"workload": ["mlp"], "system": "plain", "mode": "loop", "run": 1, "result": {}}',
        b'{"workload": "mlp", "system": "plain", "mode": "loop", "run": 1, "result": 3}',
        b"[" * 100_000,
    ],
    ids=["nothing", "no result", "no name", "a number", "deep"],
)
def test_a_journal_with_a_damaged_line_is_refused_and_kept(tmp_path, line):
    path = tmp_path / "journal"
    Journal(path, {"a": "1"}).add(("mlp", "plain", "loop", 1), {"seconds": 1.0})
    path.write_bytes(path.read_bytes() + line + b"\n")
    damaged = path.read_bytes()
    with pytest.raises(InputError, match="a damaged line"):
        Journal(path, {"a": "1"}, resume=True)
    assert path.read_bytes() == damaged


def test_a_journal_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(StorageError, match="missing"):
        Journal(tmp_path / "missing" / "journal", {"a": "1"})


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
    journal = Journal(None, {})
    journal.results = {("mlp", "processor", "peak", run): {} for run in (1, 2, 3)}
    found = list(simulators.measure([other], "mlp", 2, 3, journal, {}))
    assert found == [(other, 1, "exit code 1: no fuel")]


def test_a_folder_without_rivals_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"rivals: .*Run their setup.sh first"):
        simulators.simulators(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "fedavg"], "--systems: got 'fedavg'; expected some of fedtlu:auto"),
        (["--systems", "plain:fast"], "--systems: got 'plain:fast'"),
        (["--workloads", "vision"], "--workloads: got 'vision'; expected one of mlp, gpt, cnn, lstm, lora"),
        (["--workloads", " ,"], "--workloads: got ' ,'; expected one name or more, separated by commas"),
        (["--systems", ","], "--systems: got ','; expected one name or more"),
        (["--resume"], "--resume: got True; expected --csv FILE beside it. Name the file"),
        (
            ["--clients", "3", "--cohort", "4"],
            "--cohort: got 4; expected 3 or less. mlp draws 4 of 3 clients",
        ),
        (["--workloads", "gpt,cnn", "--clients", "50"], "--clients: got 50; expected 100 or more. cnn draws"),
        (["--workloads", "gpt", "--cohort", "101"], "--cohort: got 101; expected 100 or less"),
        (["--csv", "/no/such/folder/x.csv"], "--csv: got '/no/such/folder/x.csv'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    done = CliRunner().invoke(app, ["bench-sim", *arguments])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)


@pytest.mark.parametrize(
    "arguments", [["--resume"], ["--clients", "3", "--cohort", "4"], ["--workloads", ","]]
)
def test_bad_arguments_are_refused_before_any_simulator_is_asked(arguments, monkeypatch):
    monkeypatch.setattr(simulators, "simulators", lambda rivals: pytest.fail("a simulator was started"))
    done = CliRunner().invoke(app, ["bench-sim", *arguments])
    assert isinstance(done.exception, InputError)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(simulators, "measure", lambda *_: pytest.fail("something was measured"))
    file = tmp_path / "x.csv"
    file.symlink_to("/dev/full")
    done = CliRunner().invoke(app, ["bench-sim", "--systems", "plain", "--csv", str(file)])
    assert isinstance(done.exception, InputError)
    assert "--csv" in str(done.exception)
    assert "No space left" in str(done.exception)


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
