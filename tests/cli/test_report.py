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


def test_only_pages_of_ours_are_replaced(fedtlu: Command, runs: list[Path], tmp_path: Path) -> None:
    mine = tmp_path / "index.html"
    mine.write_text("<h1>mine</h1>")
    done = fedtlu("report", *runs, "--out", mine)
    assert (done.code, "Name another file, or remove this one." in done.stderr) == (2, True)
    assert mine.read_text() == "<h1>mine</h1>"
    blocked = fedtlu("report", *runs, "--out", mine / "page.html")
    assert (blocked.code, "expected a directory" in blocked.stderr) == (2, True)
    blocked = fedtlu("report", *runs, "--out", "/proc/none/page.html")
    assert (blocked.code, "then do the same again" in blocked.stderr) == (1, True)
    for _ in range(2):
        assert fedtlu("report", *runs, "--out", tmp_path / "both.html", "-q").code == 0


def test_what_each_client_holds_is_shown_if_asked(fedtlu: Command, runs: list[Path], tmp_path: Path) -> None:
    done = fedtlu("report", runs[0], "--data", "--out", tmp_path)
    assert done.code == 0
    page = read_page((tmp_path / "report.html").read_text())
    assert page.sections[2:4] == ["Who held what", "Who took part"]
    sizes, shares = (one for one in page.readings if "client 0" in one["stops"])  # type: ignore[operator]
    assert [one["name"] for one in sizes["series"]] == ["for training", "own test"]  # type: ignore[attr-defined]
    assert all("samples" in word for word in shares["words"])  # type: ignore[attr-defined]
    assert "fedtlu data" not in "".join(page.texts["code"]), "what is shown needs no command"
    done = fedtlu("report", *runs, "--data", "-q")
    assert (done.code, "one run or comparison beside --data" in done.stderr) == (2, True)


def test_other_data_than_the_run_s_are_not_shown(fedtlu: Command, tmp_path: Path, text: Path) -> None:
    own = tmp_path / "text.txt"
    own.write_bytes(text.read_bytes())
    simulate(tiny(own, rounds=1, warmup_rounds=0, evaluation={"trained_clients": 0}), tmp_path / "run")
    own.write_text(own.read_text() + "\n\nba do ki lu me" * 20)
    done = fedtlu("report", tmp_path / "run", "--data")
    assert done.code == 2
    assert "expected data with the fingerprint" in done.stderr


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
