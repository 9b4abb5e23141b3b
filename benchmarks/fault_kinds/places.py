"""Puts links, FIFOs, folders and devices in the place of a directory's files and folders."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from fault_kinds.harness import Bench, Kind, Outcome, judge, with_pictures

FILES = (
    ".lock",
    ".config.yaml.tmp",
    ".summary.json.tmp",
    ".SHA256SUMS.tmp",
    ".metrics.jsonl.tmp",
    "config.yaml",
    "metrics.jsonl",
    "selection.jsonl",
    "timings.jsonl",
    "summary.json",
    "SHA256SUMS",
    "report.html",
    ".report.html.tmp",
    "plots",
    "plots/curves.png",
    "plots/.curves.png.tmp",
    "checkpoints",
    "checkpoints/.writing-000006",
    "checkpoints/round-000006",
    "checkpoints/round-000004",
    "checkpoints/round-000004/state.json",
    "checkpoints/round-000004/model.safetensors",
    "comparison.yaml",
)
ARMS = (*FILES, "../comparison.yaml", "../config.yaml", "../comparison.json", "../table.csv", "../.lock")
THINGS = ("link", "link to a folder", "broken link", "FIFO", "folder", "device", "file")


def thing_in_run(bench: Bench, draw: random.Random) -> Outcome:
    """Does so in a killed run, then resumes it."""
    out = Path(shutil.copytree(bench.broken(), bench.place()))
    return _tried(bench, draw, out, out / draw.choice(FILES), bench.whole())


def thing_in_comparison(bench: Bench, draw: random.Random) -> Outcome:
    """Does so in a comparison whose last arm lacks its summary, then resumes it."""
    out = Path(shutil.copytree(bench.compared(), bench.place()))
    (out / "random-seed0" / "summary.json").unlink()
    return _tried(bench, draw, out, out / "random-seed0" / draw.choice(ARMS), bench.compared())


def _tried(bench: Bench, draw: random.Random, out: Path, place: Path, peace: Path) -> Outcome:
    outside = bench.place()
    (outside / "folder").mkdir(parents=True)
    (outside / "victim").write_text("precious")
    thing = draw.choice(THINGS)
    _put(place, thing, outside)
    command = "compare" if peace == bench.compared() else "run"
    ended = bench.call(command, "--resume", out, "--quiet", prepare=with_pictures)
    found = judge(ended, out, peace)
    note = f"{place.relative_to(out) if out in place.parents else place}: {thing}: {found.note}"
    untouched = {file.name for file in outside.rglob("*")} == {"victim", "folder"}
    if not untouched or (outside / "victim").read_text() != "precious":
        return Outcome("wrong", note=f"WRITTEN OUTSIDE: {note}")
    return Outcome(found.word, note=note)


def _put(place: Path, thing: str, outside: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    if place.is_dir() and not place.is_symlink():
        # The link may lead to the folder's old contents: then the command works by accident.
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if thing == "FIFO":
        os.mkfifo(place)
    elif thing == "folder":
        place.mkdir()
    elif thing == "file":
        place.write_bytes(b"?")
    else:
        targets = {"link": "victim", "link to a folder": "folder", "broken link": "nothing"}
        place.symlink_to("/dev/zero" if thing == "device" else outside / targets[thing])


KINDS = [
    Kind("link, FIFO, folder or device in a run, then --resume", 160, thing_in_run),
    Kind("link, FIFO, folder or device in a comparison, then --resume", 120, thing_in_comparison),
]
