"""Damages bytes in any file of a directory."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

from fault_kinds.harness import Bench, Kind, Outcome, judge


def flip_bit(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def change_digit(data: bytes, draw: random.Random) -> bytes:
    places = [found.start() for found in re.finditer(rb"[0-9]", data)]
    if not places:
        return flip_bit(data, draw)
    place = draw.choice(places)
    other = draw.choice([digit for digit in b"0123456789" if digit != data[place]])
    return data[:place] + bytes([other]) + data[place + 1 :]


def delete_byte(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + data[place + 1 :]


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def repeat_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    return b"".join([*lines[: place + 1], *lines[place:]])


def drop_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    return b"".join(lines[:place] + lines[place + 1 :])


def zero_block(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + b"\0" * len(data[place : place + 512]) + data[place + 512 :]


# The first two are the hardest to notice; they are drawn more often.
CHANGES = [flip_bit] * 4 + [change_digit] * 3 + [delete_byte, truncate, repeat_line, drop_line, zero_block]


def damaged_run(bench: Bench, draw: random.Random) -> Outcome:
    """Changes a file of a killed run, then resumes it."""
    variant = draw.choice(["plain", "losses", "clients"])
    return _damaged(bench, draw, bench.broken(variant), bench.whole(variant))


def damaged_finished_run(bench: Bench, draw: random.Random) -> Outcome:
    """Changes a file of a finished run, then resumes it."""
    variant = draw.choice(["plain", "losses", "clients"])
    return _damaged(bench, draw, bench.whole(variant), bench.whole(variant))


def damaged_comparison(bench: Bench, draw: random.Random) -> Outcome:
    """Changes a file of a finished comparison, then resumes it, which makes its table again."""
    return _damaged(bench, draw, bench.compared(), bench.compared())


def damaged_history(bench: Bench, draw: random.Random) -> Outcome:
    """Changes a file of a run: `fedtlu history` prints the same, or refuses."""
    source = bench.whole()
    out = Path(shutil.copytree(source, bench.place()))
    note = _change(draw, out)
    said = bench.call("history", out, "--json")
    peace = bench.call("history", source, "--json")
    if said.code == 0 and (said.out == peace.out):
        return Outcome("same")
    right = said.code in (1, 2) and said.message
    return Outcome("message" if right else "wrong", note=f"{note}: {said.shown}")


def _damaged(bench: Bench, draw: random.Random, source: Path, peace: Path) -> Outcome:
    out = Path(shutil.copytree(source, bench.place()))
    note = _change(draw, out)
    kept = (out / "comparison.yaml").exists() != (source / "comparison.yaml").exists()
    found = judge(bench.resume(out), out, peace)
    shutil.rmtree(out)
    return Outcome(found.word, note=f"{note}: {found.note}{' (other command)' if kept else ''}")


def _change(draw: random.Random, out: Path) -> str:
    """Changes one file; returns its name and the kind of change."""
    files = sorted(file for file in out.rglob("*") if file.is_file() and file.stat().st_size)
    file, change = draw.choice(files), draw.choice(CHANGES)
    data = file.read_bytes()
    file.write_bytes(change(data, draw))
    return f"{file.relative_to(out)} {change.__name__}"


KINDS = [
    Kind("a file of a killed run damaged, then --resume", 500, damaged_run),
    Kind("a file of a finished run damaged, then --resume", 200, damaged_finished_run),
    Kind("a file of a comparison damaged, then --resume", 350, damaged_comparison),
    Kind("a file of a run damaged, then fedtlu history", 60, damaged_history),
]
