"""``fedtlu report``: one run again, or several side by side."""

from pathlib import Path

import pytest
from support.federations import tiny
from support.html_pages import read_page

from fedtlu_fast import simulate

from .conftest import Command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, text: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, rate in (("one", 1.0), ("two", 0.5)):
        simulate(tiny(text, rounds=2, server_lr=rate, evaluation={"trained_clients": 0}), folder / name)
    return [folder / "one", folder / "two"]


def test_one_run_is_made_again_in_its_place(fedtlu: Command, runs: list[Path]) -> None:
    (runs[0] / "report.html").unlink()
    done = fedtlu("report", runs[0], "--columns", "train_loss")
    assert (done.code, done.stderr) == (0, f"Page: {runs[0] / 'report.html'}\n")
    assert "train loss" in read_page((runs[0] / "report.html").read_text()).texts["th"]


def test_several_runs_get_a_page_of_their_own(fedtlu: Command, runs: list[Path], tmp_path: Path) -> None:
    assert fedtlu("report", *runs, "--out", tmp_path / "both.html", "-q").code == 0
    assert read_page((tmp_path / "both.html").read_text()).texts["h1"] == ["2 runs side by side"]
    assert fedtlu("report", *runs, "-q").code == 0
    (made,) = Path("runs").iterdir()
    assert made.name.endswith("-report")
    assert [path.name for path in made.iterdir()] == ["report.html"]


def test_a_directory_that_holds_no_run_leaves_nothing(
    fedtlu: Command, runs: list[Path], tmp_path: Path
) -> None:
    done = fedtlu("report", runs[0], tmp_path / "none")
    assert done.code == 2
    assert "RUN_DIR: got" in done.stderr
    assert "config.yaml" in done.stderr
    assert not Path("runs").exists()
    done = fedtlu("report", *runs, "--out", runs[1])
    assert (done.code, "--out" in done.stderr) == (2, True)
