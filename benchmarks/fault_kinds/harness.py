"""Holds what all kinds of faults share: commands that start quickly, and the judgement of how they end.

The package is loaded once. A command is a fork of this process in its own session, so that a case takes half
a second instead of ten; arms of a comparison are forked too. PyTorch has one thread, and has computed nothing
when a command begins.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLIENTS, COHORT, SAMPLES, FEATURES, CLASSES, ROUNDS = 24, 6, 20, 8, 4, 6
SELECTORS = "fedtlu,random"
PATIENCE = 60.0
"""Seconds after which a command that has not ended counts as hanging."""
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    # Variants whose checkpoints hold losses and an optimizer's state, or clients' measurements and the last
    # change.
    "losses": {
        "participation": {"sampler": "loss"},
        "aggregation": {"server_optimizer": "adam"},
        "server_lr": 0.03,
    },
    "clients": {"client_selection": {"selector": "fedluar", "budget": 2}},
}


@dataclass(frozen=True)
class Outcome:
    """Holds the result of one case.

    Attributes:
        word: ``same`` (the same bits, summary and logs as without faults), ``message`` (one message and, if
            the command can go on, the same bits after it), ``wrong``, or ``skipped``.
        injected: number of faults in this case.
        note: the error, or the reason why it was skipped.
    """

    word: str
    injected: int = 1
    note: str = ""


@dataclass(frozen=True)
class Kind:
    """Describes a family of faults; `one` runs a case with its own draws."""

    name: str
    cases: int
    one: Callable[[Bench, random.Random], Outcome]


@dataclass(frozen=True)
class Ended:
    """Tells how a command ended; the code is None if it hung and was killed."""

    code: int | None
    out: str
    err: str

    @property
    def message(self) -> str | None:
        """Returns the message of a command that refused or stopped; None unless there is exactly one."""
        found = re.findall(r"^(?:error|stopped): .+$", self.err, re.MULTILINE)
        return found[0] if len(found) == 1 and "Traceback" not in self.err else None

    @property
    def shown(self) -> str:
        """Returns the exit code and the end of standard error, for notes."""
        return f"exit {self.code}: {self.err[-600:]}"


class Command:
    """Controls a running command of `fedtlu`, in a fork of this process."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], prepare: Callable[[], object]) -> None:
        self._files = [folder / "out", folder / "err"]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._become(arguments, prepare)
        self.code: int | None = None
        self.ended = False

    def _become(self, arguments: tuple[str, ...], prepare: Callable[[], object]) -> None:
        code = 99
        try:
            os.setsid()
            for descriptor, file in enumerate(self._files, 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            from fedtlu_fast.cli.main import main

            prepare()
            sys.argv = ["fedtlu", *arguments]
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def poll(self) -> bool:
        """Tells whether the command has ended."""
        if not self.ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.ended, self.code = True, os.waitstatus_to_exitcode(status)
        return self.ended

    def wait(self, seconds: float) -> bool:
        """Waits until the command ends, at most `seconds`; returns whether it has ended."""
        until = time.monotonic() + seconds
        while not self.poll() and time.monotonic() < until:
            time.sleep(0.003)
        return self.ended

    def signal(self, number: int) -> None:
        """Sends a signal to the command only, not to its workers."""
        if not self.poll():
            os.kill(self.pid, number)

    def end(self, patience: float = PATIENCE) -> Ended:
        """Waits until the command ends, or kills it and all processes that it started."""
        hung = not self.wait(patience)
        with suppress(ProcessLookupError):
            if hung:
                os.killpg(self.pid, signal.SIGKILL)
        self.wait(10)
        out, err = (file.read_text(errors="replace") if file.exists() else "" for file in self._files)
        return Ended(None if hung else self.code, out, err)


class Bench:
    """Holds a folder for runs, the data, and the results of runs without faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        self._kept: dict[str, Path] = {}
        self._took: dict[str, float] = {}
        write_data(folder / "data")

    def place(self) -> Path:
        """Returns a new path that does not exist yet."""
        return self.folder / f"case{next(self._numbers)}"

    def settings(self, variant: str = "plain", **over: Any) -> str:
        """Writes a file of settings."""
        tree: dict[str, Any] = {
            "task": "classification",
            "clients": CLIENTS,
            "cohort": COHORT,
            "rounds": ROUNDS,
            "warmup_rounds": 1,
            "data": {"source": f"arrays:{self.folder / 'data'}", "classes": CLASSES},
            "model": {"hidden": [FEATURES, FEATURES, FEATURES]},
            "training": {"lr": 0.1, "batch_size": 4, "local_epochs": 1.0},
            "selection": {"keep": 1},
            "evaluation": {"every": 2, "local_every": 3, "trained_clients": 0},
            "checkpoint": {"every": 2},
            "execution": {"executor": "serial", "clients_per_batch": 1, "engine": "torch"},
        }
        for key, value in {**VARIANTS[variant], **over}.items():
            tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
        if "client_selection" in tree:
            tree["selection"] = {"selector": "full"}
        file = self.place()
        file.write_text(yaml.safe_dump(tree))
        return str(file)

    def start(self, *arguments: object, prepare: Callable[[], object] = lambda: None) -> Command:
        """Starts a command."""
        folder = self.place()
        folder.mkdir()
        return Command(folder, tuple(map(str, arguments)), prepare)

    def call(self, *arguments: object, prepare: Callable[[], object] = lambda: None) -> Ended:
        """Runs a command to its end."""
        return self.start(*arguments, prepare=prepare).end()

    def resume(self, out: Path, *more: object, prepare: Callable[[], object] = lambda: None) -> Ended:
        """Resumes a run or a comparison; waits if its earlier command is still ending."""
        command = "compare" if (out / "comparison.yaml").exists() else "run"
        for _ in range(40):
            ended = self.call(command, "--resume", out, *more, "--quiet", prepare=prepare)
            if "is writing to this directory" not in ended.err:
                break
            time.sleep(0.1)
        return ended

    def kept(self, name: str, make: Callable[[Path], object]) -> Path:
        """Returns a directory that several cases copy or compare with; it is made once."""
        if name not in self._kept:
            self._kept[name] = self.folder / name
            began = time.monotonic()
            make(self._kept[name])
            self._took[name] = time.monotonic() - began
        return self._kept[name]

    def whole(self, variant: str = "plain", **over: Any) -> Path:
        """Returns the directory of a run without faults."""
        name = f"whole-{variant}" + "".join(f"-{key}" for key in over)
        run = ("run", "--config", self.settings(variant, **over), "--quiet", "--out")
        return self.kept(name, lambda out: check(self.call(*run, out)))

    def broken(self, variant: str = "plain") -> Path:
        """Returns the directory of a run that was killed in its last round."""
        run = ("run", "--config", self.settings(variant), "--quiet", "--out")
        return self.kept(f"broken-{variant}", lambda out: self.call(*run, out, prepare=dies_in_last_round))

    def compared(self) -> Path:
        """Returns the directory of a comparison without faults."""
        return self.kept("compared", lambda out: check(self.call(*self.comparison(), "--out", out)))

    def comparison(self) -> tuple[str, ...]:
        """Returns the command of a comparison without its directory."""
        return ("compare", "--config", self.settings(), "--selectors", SELECTORS, "--seeds", "1", "--quiet")

    def seconds(self, name: str) -> float:
        """Returns how long it took to make a kept directory."""
        return self._took[name]


def check(ended: Ended) -> None:
    """Ends the campaign if a command without faults fails."""
    if ended.code:
        raise SystemExit(f"a command without faults failed: {ended.shown}")


def left(out: Path) -> dict[str, Any]:
    """Returns the results of a run, or of the arms of a comparison, that faults must not change."""
    found: dict[str, Any] = {}
    for file in sorted(
        (*out.rglob("summary.json"), *out.rglob("metrics.jsonl"), *out.rglob("selection.jsonl"))
    ):
        if "warmup-" in file.parent.name:
            continue
        lines = [json.loads(file.read_text())] if file.suffix == ".json" else map(json.loads, file.open())
        found[str(file.relative_to(out))] = [
            {key: value for key, value in line.items() if key != "seconds"} for line in lines
        ]
    return found


def judge(ended: Ended, out: Path, peace: Path) -> Outcome:
    """Judges a command that may succeed or refuse."""
    if ended.code == 0:
        try:
            same = "Traceback" not in ended.err and left(out) == left(peace)
        except ValueError:  # a log that cannot be read
            same = False
        return Outcome("same") if same else Outcome("wrong", note=f"OTHER RESULT: {ended.shown}")
    if ended.code in (1, 2) and ended.message:
        return Outcome("message", note=ended.message)
    return Outcome("wrong", note=ended.shown)


def judge_after(ended: Ended, bench: Bench, begin: tuple[object, ...], out: Path, peace: Path) -> Outcome:
    """Judges a command after a fault: if it stopped with one message, it must go on to the same result.

    Args:
        ended: the command.
        bench: the bench it ran on.
        begin: the command to start again if there is nothing to resume.
        out: its directory.
        peace: the directory to compare with.
    """
    found = judge(ended, out, peace)
    if found.word != "message":
        return found
    again = bench.resume(out) if (out / "config.yaml").exists() else bench.call(*begin, "--out", out)
    after = judge(again, out, peace)
    return found if after.word == "same" else Outcome("wrong", note=f"{found.note}; then {again.shown}")


def dies_in_last_round() -> None:
    """Prepares a command so that SIGKILL ends it in round 6, between two lines of its logs."""
    from fedtlu_fast.runs.directory import RunDirectory

    append = RunDirectory.append

    def dying(self: RunDirectory, log: str, row: dict[str, Any]) -> None:
        if row["round"] == ROUNDS and log == "metrics.jsonl":
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, log, row)

    RunDirectory.append = dying  # type: ignore[method-assign]


def children(pid: int) -> list[int]:
    """Returns the child processes of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def write_data(folder: Path) -> None:
    """Writes the arrays of a federation that a model can learn."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    truth = np.random.default_rng(1).standard_normal((FEATURES, CLASSES))
    for prefix, count in (("", CLIENTS * SAMPLES), ("test_", 60)):
        features = draw.standard_normal((count, FEATURES), dtype=np.float32)
        np.save(folder / f"{prefix}features.npy", features)
        np.save(folder / f"{prefix}labels.npy", (features @ truth).argmax(1))
    np.save(folder / "train_rows.npy", np.arange(CLIENTS * SAMPLES))
    np.save(folder / "train_starts.npy", np.arange(CLIENTS + 1) * SAMPLES)


def load_package() -> None:
    """Loads all modules that a command needs, and makes comparisons fork their arms; see `with_pictures`."""
    import torch

    import fedtlu_fast.cli.main
    import fedtlu_fast.data.sources.arrays
    import fedtlu_fast.executors.processes
    import fedtlu_fast.experiments.arm_pool as arm_pool
    import fedtlu_fast.experiments.arm_runs as arm_runs
    import fedtlu_fast.experiments.compare
    import fedtlu_fast.report.pages.comparison as comparison
    import fedtlu_fast.report.pages.run as single

    torch.set_num_threads(1)
    # Modules that are loaded late would be loaded again for every case, and fail under a limit of open files.
    for arguments in (["--help"], ["--config", "/nowhere"]):
        sys.argv = ["fedtlu", "run", *arguments]
        said = io.StringIO()
        with suppress(SystemExit), redirect_stdout(said), redirect_stderr(said):
            fedtlu_fast.cli.main.main()

    @contextmanager
    def forked(count: int, limit: float | None) -> Iterator[Any]:
        context = get_context("fork")
        ended = context.Event()
        begin = arm_pool.begin_worker
        executor = arm_pool.ProcessPoolExecutor(count, context, initializer=begin, initargs=(ended,))
        try:
            yield arm_pool.ArmPool(executor, limit)
        finally:
            ended.set()
            executor.shutdown(cancel_futures=True)

    arm_runs.arm_pool = forked
    # Pictures and pages would take most of the time.
    attempt = single.attempt
    single.attempt = lambda part, make: None
    comparison.attempt = lambda part, make: attempt(part, make) if part == "the table of arms" else None


def with_pictures() -> None:
    """Prepares a command so that it makes its whole report."""
    import fedtlu_fast.report.pages.comparison as comparison
    import fedtlu_fast.report.pages.parts as parts
    import fedtlu_fast.report.pages.run as single

    single.attempt = comparison.attempt = parts.attempt
