import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.run_folders import begun_comparison, begun_experiment, begun_run, finished_run, killed

Command = Callable[..., Any]


@pytest.fixture
def runs(fedtlu: Command) -> Command:
    """Runs the command in a directory with runs of every kind and state."""
    finished_run(Path("runs/20260101-000000-fedtlu-seed0"))
    killed(begun_run(Path("runs/20260102-000000-baseline"), done=2, run_name="baseline"))
    path = begun_comparison(Path("runs/20260103-000000-compare"), ["fedtlu", "full"])
    finished_run(path / "fedtlu-seed0")
    Path("runs/20260104-000000-begun").mkdir()
    begun_experiment(Path("experiments/ptb-gpt2-small"))
    return fedtlu


def test_runs_are_listed_the_latest_first(runs: Command) -> None:
    done = runs("runs")
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()[4:] if line.strip()]
    assert [line.partition(" ")[0] for line in lines] == [
        time.strftime("%m-%d"),
        "01-04",
        "01-03",
        "01-02",
        "01-01",
    ]
    assert [line.split(" ", 2)[2] for line in lines] == [
        "experiments/ptb-gpt2-small experiment language_modelling fedtlu, full 0/4 stopped",
        "runs/begun not begun",
        "runs/compare comparison language_modelling fedtlu, full 1/2 perplexity 25, fedtlu stopped",
        "runs/baseline run language_modelling fedtlu 2/4 perplexity 50 killed",
        "runs/fedtlu-seed0 run language_modelling fedtlu 4/4 perplexity 25 finished",
    ]


def test_a_folder_of_your_own_and_only_the_last(runs: Command) -> None:
    done = runs("runs", "runs", "--last", 1)
    assert "begun" in done.stdout
    assert "compare" not in done.stdout
    assert done.stderr == "3 older ones are not listed; --last 0 lists all.\n"
    assert runs("runs", "nowhere").code == 2
    Path("empty").mkdir()
    assert "There are no runs in empty" in runs("runs", "empty").stderr


def test_json_and_csv_have_all_columns(runs: Command) -> None:
    done = runs("runs", "runs", "--json", "--csv", "runs.csv")
    rows = json.loads(done.stdout)
    assert rows[2] == {
        "path": "runs/20260102-000000-baseline",
        "began": "2026-01-02 00:00:00",
        "name": "baseline",
        "kind": "run",
        "state": "killed",
        "task": "language_modelling",
        "selector": "fedtlu",
        "seeds": "0",
        "done": 2,
        "asked": 4,
        "figure": "perplexity",
        "result": 50.0,
        "best": "",
        "problem": "",
    }
    with open("runs.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [row["path"] for row in rows]


def test_a_damaged_run_is_listed_with_the_reason(runs: Command) -> None:
    Path("runs/20260102-000000-baseline/config.yaml").write_text("a: [")
    done = runs("runs", "runs")
    assert done.code == 0
    assert "unreadable" in done.stdout
    assert done.stderr.startswith("runs/20260102-000000-baseline: ")


def test_finished_runs_are_set_side_by_side(fedtlu: Command) -> None:
    finished_run(Path("runs/20260101-000000-a"), rounds=2)
    finished_run(Path("runs/20260102-000000-b"), training={"lr": 0.1}, run_name="b")
    begun_run(Path("runs/20260103-000000-c"))
    first, second = "20260101-000000-a", "20260102-000000-b"
    done = fedtlu("compare", "--runs", "a", "b")
    assert done.code == 0
    said = "For a page with charts: fedtlu report runs/20260101-000000-a runs/20260102-000000-b\n"
    assert done.stderr == said
    lines = [line.replace("│", " ").split() for line in done.stdout.splitlines()]
    for line in (
        ["rounds", "2", "4"],
        ["training.lr", "0.5", "0.1"],
        ["perplexity", "(lower", "is", "better),", "over", "the", "rounds"],
        [first, "█▃", "100", "→", "50"],
        [second, "█▃▂▁", "100", "→", "25"],
    ):
        assert line in lines, done.stdout
    assert not any("run_name" in line for line in lines)
    found = json.loads(fedtlu("compare", "--runs", "a", "b", "--json").stdout)
    assert found["differences"] == {
        "rounds": {first: 2, second: 4},
        "training.lr": {first: 0.5, second: 0.1},
    }
    assert [(row["name"], row["test_perplexity"]) for row in found["table"]] == [
        (first, 50.0),
        (second, 25.0),
    ]
    assert [one["summaries"][0]["rounds"] for one in found["runs"]] == [2, 4]
    assert fedtlu("compare", "--runs", "b", "a", "--out", "page", "-q").stderr == ""
    assert second in Path("page/report.html").read_text()
    for arguments, words in (
        (["--runs", "a"], "two or more runs, or a comparison"),
        (["--runs", "a", "runs/20260101-000000-a"], "runs, each once"),
        (["--runs", "a", "c"], "a finished run, with its summary.json"),
        (["--runs", "a", "b", "--rounds", 3], "--rounds: got 3; expected no value beside --runs"),
        (["--runs", "a", "b", "--selectors", "full"], "--selectors: got 'full'"),
        (
            ["a", "b"],
            "RUN: got 'a'; expected no argument without --runs. Write --runs a b for "
            "runs that have finished, or --out for the directory of new ones.",
        ),
        (["--runs", "a", "d"], "--runs: got 'd'"),
    ):
        refused = fedtlu("compare", *arguments)
        assert refused.code == 2
        assert words in refused.stderr


def test_a_comparison_stands_beside_a_run(fedtlu: Command) -> None:
    path = begun_comparison(Path("runs/20260103-000000-compare"), ["fedtlu", "full"])
    for arm in ("fedtlu-seed0", "full-seed0"):
        finished_run(path / arm)
    finished_run(Path("runs/20260104-000000-own"), rounds=2)
    found = json.loads(fedtlu("compare", "--runs", "compare", "own", "--json").stdout)
    assert [one["name"] for one in found["runs"]] == [
        "20260103-000000-compare/fedtlu",
        "20260103-000000-compare/full",
        "20260104-000000-own",
    ]


def test_a_name_goes_into_directory_and_settings_and_finds_the_run(fedtlu: Command) -> None:
    fast = ["--preset", "smoke", "--rounds", 2, "--set", "evaluation.trained_clients=0", "-q"]
    assert fedtlu("run", "--name", "tiny", *fast).code == 0
    (path,) = Path("runs").iterdir()
    assert path.name.endswith("-tiny")
    assert "run_name: tiny\n" in (path / "config.yaml").read_text()
    assert json.loads((path / "summary.json").read_text())["run_name"] == "tiny"
    assert fedtlu("run", "--resume", "tiny", "--rounds", 3, "-q").code == 0
    assert fedtlu("history", "tiny").code == 0
    again = fedtlu("run", "--resume", "latest")
    assert f"Run: {path} " in again.stderr
    assert "There is nothing left to do" in again.stderr
    for name in ("a b", "latest", "../x", ""):
        refused = fedtlu("run", "--name", name, *fast)
        assert refused.code == 2
        assert refused.stderr.startswith(f"error: run_name: got {name!r}; expected 1 to 60 letters")
    refused = fedtlu("run", "--resume", "tiny", "--name", "other")
    assert refused.stderr.startswith("error: --name: got 'other'; expected no value beside --resume")
    refused = fedtlu("compare", "--resume", "latest")
    assert "expected an earlier comparison" in refused.stderr
