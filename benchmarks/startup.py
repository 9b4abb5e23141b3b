"""Measures how long `fedtlu run` takes to the end of its first round, and what comes before it.

    python benchmarks/startup.py [--times 5] [--jobs quickstart digits classification] [--csv FILE]

Each figure comes from a process of its own, whose files are in the page cache. The jobs take turns; a
turn has two processes of each job: the first runs without remembered measurements, the second finds those
that the first left. A round has ended when its line of metrics is written; the process is ended then.
Python itself says what its imports took (`-X importtime`), those inside of functions too; what remains of
the time is "after imports". Beside the jobs stand `import fedtlu_fast`, in a running Python, and the
whole process of `fedtlu --help`. Times are medians in seconds.

With --csv, the rows are written at the end; rows of other jobs in that file are kept, so that jobs can be
measured one by one.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

JOBS = {
    "quickstart": ["--preset", "quickstart"],
    "digits": ["--preset", "digits"],
    "classification": ["--task", "classification", "--data", "synthetic", "--set", "model.hidden=[64,64,64]"],
}
HELP, IMPORT = "fedtlu --help", "import fedtlu_fast"
FIRST, AGAIN = "first time", "remembered"
MOST_SECONDS = 120
FEDTLU = "from fedtlu_fast.cli.main import main; main()"
IMPORTING = "import time; start = time.perf_counter(); import fedtlu_fast; print(time.perf_counter() - start)"
IMPORTED = re.compile(r"^import time: +\d+ \| +(\d+) \| \S", re.MULTILINE)
"""An import that no other import asked for, and its microseconds with all that it imports itself."""


@dataclass(frozen=True)
class Row:
    """Medians of one kind of process; a command has no imports of its own here.

    Attributes:
        job: what was run.
        when: whether measurements were remembered.
        times: number of processes.
        seconds: from the start of the process to the end of the first round, or of the command.
        import_seconds: of these, in imports.
        after_imports_seconds: the others.
    """

    job: str
    when: str
    times: int
    seconds: float
    import_seconds: float | None = None
    after_imports_seconds: float | None = None


def to_the_first_round(job: str, cache: Path) -> tuple[float, float]:
    """Runs a job up to the end of its first round; returns all seconds, and those of imports."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "errors").open("w+") as errors:
        out = Path(folder, "run")
        python = [sys.executable, "-P", "-X", "importtime", "-c", FEDTLU]
        start = time.perf_counter()
        process = subprocess.Popen(
            [*python, "run", *JOBS[job], "--quiet", "--out", str(out)],
            env={**os.environ, "FEDTLU_CACHE": str(cache)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        rows = out / "metrics.jsonl"
        try:
            while not (rows.exists() and rows.read_bytes().endswith(b"\n")):
                if process.poll() is not None or time.perf_counter() - start > MOST_SECONDS:
                    raise RuntimeError(f"no round of {job}: {_said(errors.name)}")
                time.sleep(0.002)
            seconds = time.perf_counter() - start
            imported = sum(map(int, IMPORTED.findall(Path(errors.name).read_text()))) / 1e6
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return seconds, imported


def _said(errors: str) -> str:
    lines = Path(errors).read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("import time:"))


def command_seconds(name: str) -> float:
    """Returns the seconds of one of the two commands."""
    code = [IMPORTING] if name == IMPORT else [FEDTLU, "--help"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-P", "-c", *code], check=True, capture_output=True, text=True)
    return float(done.stdout) if name == IMPORT else time.perf_counter() - start


def measure(jobs: list[str], times: int, say: Console) -> list[Row]:
    """Returns the rows of the commands and of the jobs."""
    commands: dict[str, list[float]] = defaultdict(list)
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(times):
            for name in (IMPORT, HELP):
                commands[name].append(command_seconds(name))
            for job in jobs:
                for when in (FIRST, AGAIN):
                    seconds, imported = to_the_first_round(job, Path(scratch, f"{job}-{turn}"))
                    found[job, when].append((seconds, imported))
                    say.print(f"turn {turn + 1}: {job}, {when}: {seconds:.2f} s, imports {imported:.2f} s")
    rows = [Row(name, "", times, median(taken)) for name, taken in commands.items()]
    for (job, when), runs in found.items():
        after = median(seconds - imported for seconds, imported in runs)
        columns = [median(column) for column in zip(*runs, strict=True)]
        rows.append(Row(job, when, times, *columns, after))
    return rows


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows; rows of other jobs that the file has stay before them."""
    names = [field.name for field in fields(Row)]
    made = [{key: _rounded(value) for key, value in asdict(row).items()} for row in rows]
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            jobs = {row["job"] for row in made}
            made = [row for row in csv.DictReader(file) if row["job"] not in jobs] + made
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)


def _rounded(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5, help="processes of each kind and job")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--csv", type=Path, help="also write the medians to this file")
    options = parser.parse_args()
    rows = measure(options.jobs, options.times, Console(stderr=True, highlight=False))
    if options.csv:
        write(options.csv, rows)
    table = Table(title="Medians in seconds")
    for head in ("", "", "to the first round's end", "imports", "after imports"):
        table.add_column(head, justify="right")
    for row in rows:
        seconds = (row.seconds, row.import_seconds, row.after_imports_seconds)
        table.add_row(row.job, row.when, *("" if value is None else f"{value:.2f}" for value in seconds))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
