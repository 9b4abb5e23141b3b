"""Runs the same federation in several simulators, each in a separate process, and compares their costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.profiling.footprint import run_measured
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


@dataclass(frozen=True)
class SimulatorRow:
    """Holds the result of one simulator on one workload; medians over its runs.

    Attributes:
        workload: mlp or gpt.
        system: the simulator and its mode.
        version: the simulator's version.
        clients: number of clients in the federation.
        cohort: number of clients in a round.
        runs: how often it was started.
        seconds_per_round: median of all rounds except the first.
        first_round_seconds: from the end of the imports to the end of the first round.
        import_seconds: from the start of the script to the end of the imports.
        peak_mb: largest memory of all its processes, shared pages counted once; MB = 1e6 bytes.
        times_ours: seconds_per_round divided by that of fedtlu's default; None if that was not run.
        loss_before: the initial model's loss, which shows that all begin with the same model.
        loss_after: the loss after all rounds; it differs, because each simulator draws its own cohorts.
    """

    workload: str
    system: str
    version: str
    clients: int
    cohort: int
    runs: int
    seconds_per_round: float
    first_round_seconds: float
    import_seconds: float
    peak_mb: float
    times_ours: float | None
    loss_before: float
    loss_after: float


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
    options: Sequence[str] = (),
) -> Iterator[tuple[Simulator, dict[str, Any] | str]]:
    """Starts each simulator once per turn; yields its result, or the reason why there is none.

    Args:
        chosen: the simulators.
        workload: mlp or gpt.
        rounds: rounds per run, 2 or more; the first is not counted.
        runs: number of turns.
        options: more arguments for all of them, such as ``--clients 1000``.
    """
    failed: set[Simulator] = set()
    for _ in range(runs):
        for simulator in chosen:
            if simulator not in failed:
                found = _run(simulator, ["--workload", workload, "--rounds", str(rounds), *options])
                if isinstance(found, str):
                    failed.add(simulator)
                yield simulator, found


def rows(found: Sequence[tuple[Simulator, dict[str, Any]]]) -> list[SimulatorRow]:
    """Returns one row for each simulator and workload, the fastest first."""
    groups: defaultdict[tuple[str, Simulator], list[dict[str, Any]]] = defaultdict(list)
    for simulator, result in found:
        groups[result["workload"], simulator].append(result)
    ours = {
        workload: median(_rounds(results))
        for (workload, simulator), results in groups.items()
        if simulator.name == f"{OURS} auto"
    }
    made = [
        SimulatorRow(
            workload=workload,
            system=simulator.name,
            version=results[0]["version"],
            clients=results[0]["clients"],
            cohort=results[0]["cohort"],
            runs=len(results),
            seconds_per_round=median(_rounds(results)),
            first_round_seconds=median(result["first_round_seconds"] for result in results),
            import_seconds=median(result["import_seconds"] for result in results),
            peak_mb=median(result["peak_bytes"] for result in results) / 1e6,
            times_ours=median(_rounds(results)) / ours[workload] if workload in ours else None,
            loss_before=results[0]["loss_before"],
            loss_after=results[0]["loss_after"],
        )
        for (workload, simulator), results in groups.items()
    ]
    return sorted(made, key=lambda row: (row.workload != "mlp", row.workload, row.seconds_per_round))


def _rounds(results: Sequence[dict[str, Any]]) -> list[float]:
    return [seconds for result in results for seconds in result["round_seconds"][1:]]


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
            [*simulator.command, *arguments, "--mode", simulator.mode],
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
