import os
from pathlib import Path

import pytest

from fedtlu_fast.runs.timings import read_timings, timing_line

ROWS = [{"round": index, "train": index / 3} for index in (1, 2, 3)]
LINES = [timing_line(row) for row in ROWS]


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        (LINES, []),
        ([LINES[0][:14] + bytes([LINES[0][14] ^ 1]) + LINES[0][15:], *LINES[1:]], [1]),
        ([LINES[0], LINES[2]], [2]),
        ([LINES[0], LINES[1][:-1], LINES[2]], [2, 3]),
        ([LINES[0], LINES[1][:9], b"\n", LINES[1][9:], LINES[2]], [2]),
        ([b"\0\xff\n", b"[]\n", b'"round"\n', *LINES[::-1], LINES[0]], []),
        ([*LINES[:2], LINES[2][:-1]], [3]),
        ([], [1, 2, 3]),
    ],
    ids=["whole", "bit", "no line", "two in one", "one in two", "strange and twice", "cut", "empty"],
)
def test_damage_costs_the_lines_that_it_hit(
    content: list[bytes], lost: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "timings.jsonl"
    file.write_bytes(b"".join(content))
    found = read_timings(file, 3)
    assert found == [row if row["round"] not in lost else {"round": row["round"]} for row in ROWS]
    names = ", ".join(map(str, lost))
    assert caplog.messages == [
        f"{file}: lines are damaged or missing, so that readings are lost of these rounds: {names}; "
        "tables of seconds leave them out"
    ] * bool(lost)


def test_something_else_in_the_files_place_costs_the_readings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "timings.jsonl")
    assert read_timings(tmp_path / "timings.jsonl", 1) == [{"round": 1}]
    assert "it is a FIFO, not a file" in caplog.text
