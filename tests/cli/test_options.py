import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedtlu_fast import InputError
from fedtlu_fast.cli.console import note
from fedtlu_fast.cli.directories import fresh_directory


@pytest.fixture(autouse=True)
def one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")


def test_runs_that_begin_in_the_same_second_get_a_directory_each() -> None:
    taken: list[Path] = []
    begin = threading.Barrier(12)

    def take() -> None:
        begin.wait()
        taken.append(held.enter_context(fresh_directory("a")))

    with ExitStack() as held:
        threads = [threading.Thread(target=take) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(taken)) == len(list(Path("runs").iterdir())) == 12
    assert Path("runs/20260101-000000-a") in taken
    assert Path("runs/20260101-000000-a-12") in taken


def test_it_goes_away_again_when_nothing_was_written_into_it() -> None:
    with pytest.raises(InputError, match="x"), fresh_directory("a"):
        raise InputError("x", 1, "2")
    assert not Path("runs").exists()
    Path("runs").mkdir()
    with fresh_directory("a") as path:
        pass
    assert Path("runs").exists()
    assert not path.exists()
    with fresh_directory("a") as path:
        (path / "file").touch()
    assert (path / "file").exists()


def test_where_none_can_be_made_is_one_error() -> None:
    Path("runs").touch()
    with pytest.raises(InputError, match=r"--out: got 'runs/20260101-000000-a'.*Not a directory.*another"):
        fresh_directory("a").__enter__()


def test_a_path_with_words_between_colons_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    note("Files in runs/:dog:/x")
    assert capsys.readouterr().err == "Files in runs/:dog:/x\n"
