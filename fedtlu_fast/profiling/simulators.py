"""Runs the same federation in several simulators, each in a separate process, and compares their costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.profiling.footprint import run_measured
from fedtlu_fast.profiling.journal import Journal
from fedtlu_fast.wording import either

OURS, PLAIN = "fedtlu", "plain"
LIMIT = 1800.0
"""A simulator is stopped after this many seconds."""
HERE = "fedtlu_fast.profiling.federations"


@dataclass(frozen=True)
class Simulator:
    """Describes one way to run the workload.

    Attributes:
        system: the simulator's name.
        mode: how it trains.
        command: the command to start; ``--workload`` and other options are added.
    """

    system: str
    mode: str
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """Returns the system and the mode."""
        return f"{self.system} {self.mode}"


CEILING = Simulator("processor", "peak", (sys.executable, "-m", f"{HERE}.ceiling"))
"""What the processor can do at best; it is measured beside the simulators, once a turn."""


def simulators(rivals: Path | None) -> list[Simulator]:
    """Returns fedtlu in every mode, the plain loop, and the rivals that are set up in a folder.

    Args:
        rivals: a folder with a folder for each rival, which holds ``main.py`` and its environment ``.venv``.

    Raises:
        InputError: there is no such folder, or no rival is set up in it.
    """
    found = [
        Simulator(system, mode, command)
        for system, script in ((OURS, "ours"), (PLAIN, "plain"))
        for command in [(sys.executable, "-m", f"{HERE}.{script}")]
        for mode in _modes(command)
    ]
    if rivals is None:
        return found
    ready = [path.parent for path in sorted(rivals.glob("*/main.py")) if _python(path.parent).exists()]
    if not ready:
        raise InputError(
            either("rivals", "--rivals"),
            str(rivals),
            "a folder of rivals that are set up",
            "Run their setup.sh first.",
        )
    for folder in ready:
        command = (str(_python(folder)), str(folder / "main.py"))
        found += [Simulator(folder.name, mode, command) for mode in _modes(command)]
    return found


def measure(
    chosen: Sequence[Simulator],
    workload: str,
    rounds: int,
    runs: int,
    journal: Journal,
    size: Mapping[str, int],
) -> Iterator[tuple[Simulator, int, dict[str, Any] | str]]:
    """Starts each simulator once per turn, unless the journal has the result.

    Yields:
        The simulator, the number of the turn, and its result, which is in the journal by then, or the reason
        why there is none.

    Args:
        chosen: the simulators.
        workload: one of `NAMES`.
        rounds: rounds per run, 2 or more; the first is not counted.
        runs: number of turns.
        journal: the results so far.
        size: clients and cohort, unless they are the workload's own.
    """
    options = [f"--{name}={value}" for name, value in size.items()]
    failed: set[Simulator] = set()
    for run in range(1, runs + 1):
        for simulator in (CEILING, *chosen):
            key = (workload, simulator.system, simulator.mode, run)
            if simulator in failed or key in journal.results:
                continue
            arguments = ["--workload", workload]
            if simulator is not CEILING:
                arguments += ["--rounds", str(rounds), "--mode", simulator.mode, *options]
            elif "cohort" in size:
                arguments.append(f"--cohort={size['cohort']}")
            found = _run(simulator, arguments)
            if isinstance(found, str):
                failed.add(simulator)
            else:
                journal.add(key, found)
            yield simulator, run, found


def _python(folder: Path) -> Path:
    return folder / ".venv" / "bin" / "python"


def _environment(command: Sequence[str]) -> dict[str, str]:
    found = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    # Modules are found where this one was, not in the current folder; a rival's script has its own folder.
    return found | {"PYTHONSAFEPATH": "1"} if "-m" in command else found


def _modes(command: Sequence[str]) -> list[str]:
    asked = subprocess.run(  # noqa: S603  (the command is the user's)
        [*command, "--modes"], capture_output=True, text=True, env=_environment(command), check=True
    )
    modes: list[str] = json.loads(asked.stdout)
    return modes


def _run(simulator: Simulator, arguments: Sequence[str]) -> dict[str, Any] | str:
    try:
        ended = run_measured(
            [*simulator.command, *arguments],
            _environment(simulator.command),
            LIMIT,
        )
    except TimeoutError as error:
        return str(error)
    if ended.code:
        lines = ended.err.strip().splitlines()
        return f"exit code {ended.code}: {lines[-1] if lines else 'no message'}"
    result: dict[str, Any] = json.loads(ended.out.strip().splitlines()[-1])
    return result | {"peak_bytes": ended.peak_bytes}
