import os
from pathlib import Path

import pytest
from support.run_folders import begun_comparison, begun_experiment, begun_run

from fedtlu_fast import InputError
from fedtlu_fast.runs.find import find_run, kind_of, name_of, run_directories


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    begun_run(Path("runs/20260101-000000-fedtlu-seed0"))
    begun_run(Path("runs/20260102-000000-baseline"))
    begun_comparison(Path("runs/20260103-000000-compare"), ["fedtlu", "full"])
    Path("runs/20260104-000000-begun").mkdir()
    Path("runs/notes").mkdir()
    Path("runs/20260109-000000-report").mkdir()
    Path("runs/20260109-000000-report/report.html").touch()
    begun_experiment(Path("experiments/ptb-gpt2-small"))
    os.utime("experiments/ptb-gpt2-small/experiment.yaml", (1e9, 1e9))
    return tmp_path


def test_directories_are_listed_by_the_time_of_their_beginning(folder: Path) -> None:
    assert list(map(name_of, run_directories())) == [
        "begun",
        "compare",
        "baseline",
        "fedtlu-seed0",
        "ptb-gpt2-small",
    ]
    assert [kind_of(path) for path in run_directories()] == [None, "comparison", "run", "run", "experiment"]
    assert run_directories(["nowhere"]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("runs/20260102-000000-baseline", "runs/20260102-000000-baseline"),
        ("runs/nowhere", "runs/nowhere"),  # a path, for which each command has its own message
        ("20260102-000000-baseline", "runs/20260102-000000-baseline"),
        ("baseline", "runs/20260102-000000-baseline"),
        ("20260102", "runs/20260102-000000-baseline"),
        ("base", "runs/20260102-000000-baseline"),
        ("ptb", "experiments/ptb-gpt2-small"),
        ("latest", "runs/20260104-000000-begun"),
        (".", "."),
    ],
)
def test_a_run_is_found_by_path_name_and_beginning(folder: Path, text: str, found: str) -> None:
    assert find_run(text, "RUN") == Path(found)


def test_latest_is_of_the_kind_that_the_command_takes(folder: Path) -> None:
    assert find_run("latest", "RUN", ("run",)).name == "20260102-000000-baseline"
    assert find_run("latest", "RUN", ("comparison",)).name == "20260103-000000-compare"
    with pytest.raises(
        InputError, match=r"RUN: got 'latest'; expected an earlier run in no/, and there is none"
    ):
        find_run("latest", "RUN", ("run",), ["no"])


def test_a_path_that_exists_comes_before_a_name(folder: Path) -> None:
    begun_run(Path("baseline"))
    assert find_run("baseline", "RUN") == Path("baseline")


def test_an_ambiguous_beginning_lists_the_candidates(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_run("2026010", "RUN")
    message = str(caught.value)
    assert "4 match" in message
    for name in ("20260101-000000-fedtlu-seed0", "20260102-000000-baseline", "20260103-000000-compare"):
        assert name in message
    # The whole name of one is no beginning of another.
    begun_run(Path("runs/20260105-000000-baseline-2"))
    assert find_run("baseline", "RUN").name == "20260102-000000-baseline"


def test_an_unknown_name_suggests_a_known_one(folder: Path) -> None:
    with pytest.raises(InputError, match=r"--resume: got 'bsaeline'. Did you mean baseline\? Expected a dir"):
        find_run("bsaeline", "--resume")
    with pytest.raises(InputError, match="RUN: got ''"):
        find_run("", "RUN")
    with pytest.raises(InputError, match="There are no runs there yet"):
        find_run("baseline", "RUN", folders=["nowhere"])
