import os
from pathlib import Path

import pytest

from fedtlu_fast.runs.files import NotAFileError
from fedtlu_fast.runs.follow import LogFollower, first_row, last_rows


def numbers(rows: list[dict[str, object]]) -> list[object]:
    return [row["round"] for row in rows]


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFollower(path)
    assert log.look() == (False, [])
    path.write_text('{"round": 1}\n{"round": 2, "a": [')
    assert numbers(log.look()[1]) == [1]
    assert log.look() == (False, [])
    with path.open("a") as file:
        file.write('1]}\n{"round": 3}\n')
    assert log.look() == (False, [{"round": 2, "a": [1]}, {"round": 3}])


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"round": 1}\n\xff\xfe\n[1]\n{"a": 1}\n{"round": 2}\n')
    log = LogFollower(path)
    assert numbers(log.look()[1]) == [1, 2]
    assert log.damaged == 3


@pytest.mark.parametrize("longer", [False, True])
def test_a_log_that_was_written_anew_begins_again(tmp_path: Path, longer: bool) -> None:
    path = tmp_path / "log"
    path.write_text('{"round": 1}\n{"round": 2}\n')
    log = LogFollower(path)
    log.look()
    # A run that is resumed writes its earlier lines to another file and renames it.
    other = tmp_path / "other"
    other.write_text('{"round": 1}\n' + '{"round": 2}\n{"round": 3}\n' * longer)
    os.replace(other, path)
    anew, rows = log.look()
    assert anew
    assert numbers(rows) == ([1, 2, 3] if longer else [1])
    path.unlink()
    assert log.look() == (True, [])


def test_a_link_in_the_place_of_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"round": 1}\n')
    (tmp_path / "log").symlink_to(tmp_path / "secret")
    with pytest.raises(NotAFileError):
        LogFollower(tmp_path / "log").look()
    assert last_rows(tmp_path / "log") == (0, [])
    assert first_row(tmp_path / "log") is None


def test_the_ends_of_a_long_log_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f'{{"round": {index}, "text": "é{"x" * 50}"}}\n' for index in range(1, 101)))
    monkeypatch.setattr("fedtlu_fast.runs.follow.TAIL", 500)
    count, rows = last_rows(path)
    assert count == 100
    assert numbers(rows) == [95, 96, 97, 98, 99, 100]
    assert (first_row(path) or {})["round"] == 1
    path.write_text('{"round": 1}')
    assert (last_rows(path), first_row(path)) == ((0, []), None)
