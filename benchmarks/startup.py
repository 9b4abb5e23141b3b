"""Measures how long `fedtlu run` takes to the end of its first round.

    python benchmarks/startup.py [--times 5] [--jobs quickstart digits classification]

Each figure comes from a process of its own, whose files are in the page cache. The jobs take turns, and a
turn has three processes of each job: the first only imports the modules that the run needs before the end of
its first round, the second runs without remembered measurements, and the third finds those that the second
left. A round has ended when its line of metrics is written; the process is ended then. Times are medians in
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

JOBS = {
    "quickstart": ["--preset", "quickstart"],
    "digits": ["--preset", "digits"],
    "classification": ["--task", "classification", "--data", "synthetic", "--set", "model.hidden=[64,64,64]"],
}
MOST_SECONDS = 120
LOGGED = """
import os, sys, time
log = open(sys.argv.pop(1), "a", buffering=1)
class Log:
    def find_spec(name, path=None, target=None):
        if os.getpid() == owner:
            log.write(f"{time.time()} {name}\\n")
owner = os.getpid()
sys.meta_path.insert(0, Log)
from fedtlu_fast.cli.main import main
main()
"""
IMPORTED = """
import sys
from contextlib import suppress
from importlib import import_module
for name in open(sys.argv[1]).read().split():
    with suppress(ImportError):
        import_module(name)
"""
PLAIN = "from fedtlu_fast.cli.main import main; main()"


def to_the_first_round(code: list[str], job: str, cache: Path) -> tuple[float, float]:
    """Runs a job up to the end of its first round.

    Returns:
        Seconds from the start of the process, and the time at which the round ended.
    """
    with tempfile.TemporaryDirectory() as folder, Path(folder, "errors").open("w+") as errors:
        out = Path(folder, "run")
        command = [sys.executable, "-P", "-c", *code, "run", *JOBS[job], "--quiet", "--out", str(out)]
        start = time.time()
        process = subprocess.Popen(
            command,
            env={**os.environ, "FEDTLU_CACHE": str(cache)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        rows = out / "metrics.jsonl"
        try:
            while not (rows.exists() and rows.read_bytes().endswith(b"\n")):
                if process.poll() is not None or time.time() - start > MOST_SECONDS:
                    errors.seek(0)
                    raise RuntimeError(f"no round of {job}: {errors.read()}")
                time.sleep(0.002)
            end = time.time()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return end - start, end


def modules_of(job: str, folder: Path) -> Path:
    """Writes the names of the modules that a job imports before the end of its first round."""
    log = folder / f"{job}.log"
    _, end = to_the_first_round([LOGGED, str(log)], job, folder / f"{job}-log")
    lines = [line.split() for line in log.read_text().splitlines()]
    names = folder / f"{job}.names"
    names.write_text("\n".join(name for when, name in lines if float(when) < end))
    return names


def importing(names: Path) -> float:
    """Returns the seconds of a process that only imports these modules."""
    start = time.time()
    subprocess.run([sys.executable, "-P", "-c", IMPORTED, names], check=True, capture_output=True)
    return time.time() - start


def measure(jobs: list[str], times: int) -> dict[str, dict[str, float]]:
    """Returns the medians of each job."""
    taken: dict[str, dict[str, list[float]]] = {job: defaultdict(list) for job in jobs}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = {job: modules_of(job, folder) for job in jobs}
        for turn in range(times):
            for job, found in taken.items():
                imports = importing(names[job])
                first, again = (
                    to_the_first_round([PLAIN], job, folder / f"{job}-{turn}")[0] for _ in range(2)
                )
                for name, seconds in (
                    ("imports", imports),
                    ("first time", first),
                    ("remembered", again),
                    ("first time, after imports", first - imports),
                    ("remembered, after imports", again - imports),
                ):
                    found[name].append(seconds)
    return {job: {name: median(each) for name, each in found.items()} for job, found in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5, help="processes of each kind and job")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--json", action="store_true", help="print the medians as JSON")
    options = parser.parse_args()
    found = measure(options.jobs, options.times)
    if options.json:
        print(json.dumps(found))
        return
    table = Table(title="Seconds to the end of the first round")
    for head in ("", *next(iter(found.values()))):
        table.add_column(head, justify="right")
    for job, seconds in found.items():
        table.add_row(job, *(f"{value:.2f}" for value in seconds.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
