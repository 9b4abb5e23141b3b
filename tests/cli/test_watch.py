import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.run_folders import (
    append,
    begun_comparison,
    begun_run,
    finished_run,
    killed,
    row,
    settings_text,
)

from fedtlu_fast.cli import watch
from fedtlu_fast.cli.sparkline import sparkline
from fedtlu_fast.cli.watch_view import arms_view, run_view
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.followed import FollowedRun

Command = Callable[..., Any]
ROUND = "round {}/4  loss {:.3f}  perplexity {:.1f}  {}  250 ms"


def lines_of_rounds(*rounds: int) -> list[str]:
    chosen = {1: "warm-up: all", 2: "h.0", 3: "h.1", 4: "h.0"}
    return [ROUND.format(index, 5 / index, 100 / index, chosen[index]) for index in rounds]


def drawn(what: Any, width: int = 100) -> list[str]:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(what)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_finished_run_is_a_line_for_every_round(fedtlu: Command, tmp_path: Path) -> None:
    done = fedtlu("watch", finished_run(tmp_path / "a"))
    assert done.code == 0
    assert done.stdout.splitlines() == [*lines_of_rounds(1, 2, 3, 4), "a: finished"]
    assert done.stderr == ""


def test_a_run_that_ended_early_exits_1_and_says_how_it_ended(fedtlu: Command, tmp_path: Path) -> None:
    for path, words in (
        (begun_run(tmp_path / "a", done=2), "a: stopped before its last round"),
        (killed(begun_run(tmp_path / "b", done=2)), "b: killed: it ended without a word"),
    ):
        done = fedtlu("watch", path)
        assert done.code == 1
        assert done.stdout.splitlines()[:-1] == lines_of_rounds(1, 2)
        assert done.stdout.splitlines()[-1].startswith(words)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run that another thread goes on with."""
    directory = RunDirectory.create(tmp_path / "run", settings_text())
    yield directory
    directory.close()


def test_it_follows_half_written_lines_until_the_run_ends(fedtlu: Command, running: RunDirectory) -> None:
    def work() -> None:
        time.sleep(0.2)
        append(running.path, row(1))
        with (running.path / "metrics.jsonl").open("a") as file:
            file.write('{"round": 2, "train_l')
            file.flush()
            time.sleep(0.3)
            file.write('oss": null, "selected": [], "damaged": ')
        time.sleep(0.2)
        with (running.path / "metrics.jsonl").open("a") as file:
            file.write("\n")
        append(running.path, row(3))
        running.close()

    thread = threading.Thread(target=work)
    thread.start()
    done = fedtlu("watch", running.path, "--interval", 0.05)
    thread.join()
    assert done.code == 1
    assert done.stdout.splitlines()[:-1] == lines_of_rounds(1, 3)


def test_it_waits_for_a_run_that_has_not_begun(fedtlu: Command, tmp_path: Path) -> None:
    def work() -> None:
        time.sleep(0.2)
        begun.mkdir()
        time.sleep(0.2)
        finished_run(begun)

    begun = tmp_path / "later"
    refused = fedtlu("watch", begun)
    assert refused.code == 2
    assert "With --wait, a directory may be made later" in refused.stderr
    thread = threading.Thread(target=work)
    thread.start()
    done = fedtlu("watch", begun, "--wait", "--interval", 0.05)
    thread.join()
    assert done.code == 0
    assert "later: finished" in done.stdout


def test_a_directory_that_goes_away_ends_it(fedtlu: Command, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    thread = threading.Timer(0.3, (tmp_path / "a").rmdir)
    thread.start()
    done = fedtlu("watch", tmp_path / "a", "--interval", 0.05)
    assert done.code == 1
    assert "a: its directory is gone" in done.stdout


def test_the_latest_run_is_the_default(fedtlu: Command) -> None:
    assert "expected an earlier run" in fedtlu("watch").stderr
    finished_run(Path("runs/20260101-000000-a"), rounds=2)
    finished_run(Path("runs/20260102-000000-b"), rounds=3)
    assert fedtlu("watch").stdout.splitlines()[-1] == "b: finished"
    assert fedtlu("watch", "a").stdout.splitlines()[-1] == "a: finished"


def test_a_comparison_is_a_line_for_every_round_of_every_run(fedtlu: Command, tmp_path: Path) -> None:
    path = begun_comparison(tmp_path / "c", ["fedtlu", "full"], rounds=2)
    begun_run(path / "warmup-seed0", done=1, rounds=2)
    finished_run(path / "fedtlu-seed0", rounds=2)
    finished_run(path / "full-seed0", rounds=2)
    done = fedtlu("watch", path)
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert [line.partition("  loss")[0] for line in lines[:-1]] == [
        "warmup-seed0  round 1/1",
        "fedtlu-seed0  round 1/2",
        "fedtlu-seed0  round 2/2",
        "full-seed0  round 1/2",
        "full-seed0  round 2/2",
    ]
    assert lines[-1] == "c: finished"


def test_files_that_cannot_be_read_end_it(fedtlu: Command, tmp_path: Path) -> None:
    path = begun_run(tmp_path / "a", done=1)
    (path / "config.yaml").write_text("a: [")
    done = fedtlu("watch", path)
    assert done.code == 1
    assert done.stdout.startswith("a: its files cannot be read (")


@pytest.mark.parametrize(
    "over",
    [
        {"selected": 5},
        {"selected": [[1]]},
        {"refused": 3},
        {"failed": [1]},
        {"seconds": "q"},
        {"train_loss": "x"},
        {"test_mine": {}},
        {"warmup": None, "dropped": None},
    ],
)
def test_a_row_of_a_stranger_is_counted_and_not_shown(
    fedtlu: Command, tmp_path: Path, over: dict[str, Any]
) -> None:
    path = begun_run(tmp_path / "a", done=1)
    append(path, row(2, **over))
    done = fedtlu("watch", path)
    assert done.code == 1
    assert done.stdout.splitlines()[:-1] == lines_of_rounds(1)
    assert done.stderr == "a: lines of metrics.jsonl that hold no row: 1\n"
    run = FollowedRun(path, "a")
    run.look()
    assert "hold no row: 1" in "".join(drawn(run_view(run, 100)))


@pytest.mark.parametrize("over", [{"rounds": "q"}, {"selection": 5}, {"clients": None}, {"seed": True}])
def test_settings_of_a_stranger_end_it(fedtlu: Command, tmp_path: Path, over: dict[str, Any]) -> None:
    done = fedtlu("watch", begun_run(tmp_path / "a", done=1, **over))
    assert done.code == 1
    assert done.stdout.startswith("a: its files cannot be read (")


@pytest.mark.parametrize("name", ["comparison.yaml", "experiment.yaml"])
def test_a_damaged_comparison_ends_it(fedtlu: Command, tmp_path: Path, name: str) -> None:
    path = begun_run(tmp_path / "a")
    (path / name).write_text("selectors: 3\nseeds: q\nconditions: {}\n")
    done = fedtlu("watch", path)
    assert done.code == 1
    assert done.stdout.startswith("a: its files cannot be read (")


def test_ctrl_c_ends_the_watching_and_not_the_run(
    fedtlu: Command, running: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedtlu_fast.cli.watch.time.sleep", press)
    done = fedtlu("watch", running.path)
    assert done.code == 130
    assert done.stderr == f"The run goes on; to watch it again: fedtlu watch {running.path}\n"
    running.append("metrics.jsonl", row(1))


def test_it_ends_with_its_reader(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", settings_text(rounds=1000))
    append(tmp_path / "run", *(row(index) for index in range(1, 500)))
    command = [sys.executable, "-m", "fedtlu_fast", "watch", str(tmp_path / "run"), "--interval", "0.1"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    assert watching.stderr is not None
    assert watching.stdout.readline().startswith("round 1/1000")
    watching.stdout.close()
    append(tmp_path / "run", row(500))
    assert watching.wait(20) == 141
    assert watching.stderr.read() == ""
    directory.close()


def test_on_a_terminal_it_draws_anew_until_the_run_ends(
    fedtlu: Command, running: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=90, color_system=None)
    monkeypatch.setattr("fedtlu_fast.cli.watch.results", console)
    append(running.path, row(1), row(2))
    thread = threading.Timer(0.5, lambda: (append(running.path, row(3)), running.close()))
    thread.start()
    done = fedtlu("watch", running.path, "--interval", 0.05)
    thread.join()
    assert done.code == 1
    drawn_text = screen.getvalue()
    assert drawn_text.index("round 2/4") < drawn_text.index("round 3/4")
    assert "running" in drawn_text
    assert "run: stopped before its last round, by a signal or an error" in drawn_text


def test_a_run_is_drawn_with_curves_choices_and_faults(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "a", settings_text())
    run = FollowedRun(tmp_path / "a", "a")
    run.look()
    assert any("before its first round" in line for line in drawn(run_view(run, 100)))
    append(tmp_path / "a", row(1), row(2), row(3, dropped={"7": "too slow"}))
    run.look()
    lines = drawn(run_view(run, 100))
    assert lines[0] == "a  language_modelling  fedtlu  seed 0  3 of 8 clients a round"
    assert lines[1].startswith("round 3/4 ")
    assert "running  250 ms a round, 12 clients/s  250 ms left" in lines[1]
    assert lines[2].split() == ["train", "loss", "█▃▁", "5", "→", "1.667"]
    assert lines[3].split() == ["global", "perplexity", "█▃▁", "100", "→", "33.33"]
    assert lines[4:] == [
        "blocks chosen in rounds 2 to 3",
        "h.0  ■·  1 of 2",
        "h.1  ·■  1 of 2",
        "dropped clients: 1; client 7 last: too slow",
    ]
    old = time.time() - 500
    for name in ("metrics.jsonl", "config.yaml", ".lock"):
        os.utime(tmp_path / "a" / name, (old, old))
    assert any(line.startswith("silent for 8 min 20 s, although") for line in drawn(run_view(run, 100)))
    assert max(map(len, drawn(run_view(run, 40), 40))) <= 40
    directory.close()


def test_a_comparison_is_drawn_with_a_line_for_every_run(tmp_path: Path) -> None:
    finished_run(tmp_path / "a", rounds=3)
    runs = [FollowedRun(tmp_path / "a", "a"), FollowedRun(tmp_path / "b", "b")]
    for run in runs:
        run.look()
    lines = drawn(arms_view("c  running  1 of 2 runs finished", runs, 100))
    assert lines[0] == "c  running  1 of 2 runs finished"
    assert lines[1].split() == ["a", "finished", "3/3", "█▃▁", "perplexity", "33.33"]
    assert lines[2].split() == ["b", "waiting", "0"]


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    odd = "[red]a[/b]"
    begun_run(tmp_path / "a")
    append(
        tmp_path / "a", *(row(index, selected=[f"h.{index % 2}.{odd}"], test_mine=1.0) for index in (2, 3))
    )
    append(tmp_path / "a", row(4, **{f"test_{odd}": 1.0}))
    run = FollowedRun(tmp_path / "a", odd)
    run.look()
    for text in (drawn(run_view(run, 100)), drawn(arms_view(odd, [run], 100))):
        assert odd in "\n".join(text)
    assert f"global {odd}" in "\n".join(drawn(run_view(run, 100)))
    assert drawn(watch._Watched(Path(odd)).view(100)) == [f"{odd}: waiting for a run to begin"]


def test_a_sparkline_spans_its_values() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 3, 5, 7], 2) == "▁█"
    assert sparkline([5, 5, 5], 8) == "▁▁▁"
    assert sparkline([5, 20], 8, (0, 10)) == "▅█"
    assert sparkline([], 8) == ""
